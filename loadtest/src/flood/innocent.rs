//! One innocent client: writes at a steady pace whatever happens, and records every ack and every message.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::ledger::Ledger;
use super::meter::Wait;
use crate::checker::{Entry, Receipt};
use crate::client::{Builder, Client, EmitError, Event, PendingAck};
use crate::deployment::APP;

/// A wait longer than this is a loss: nobody looks at a spinner that long.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Events read ahead of the recording.
const EVENTS_AHEAD: usize = 1024;

/// Who an innocent client is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Its name in messages and in the report.
    pub name: String,
    /// Where it writes and reads.
    pub room: String,
    /// Between two of its messages.
    pub period: Duration,
    /// Its first message comes this much after the start of all, so that they do not write in step.
    pub offset: Duration,
}

/// The settings of a connection of a valid user from an address of its own.
pub fn builder(url: &str, user: usize, token: &str, from: Ipv4Addr) -> Builder {
    let auth = json!({
        "accessToken": token,
        "refreshToken": "none",
        "userAgent": APP,
        "username": format!("user{user}"),
        "proto": 2,
    });
    Client::builder(url)
        .auth(auth)
        .local_address(IpAddr::V4(from))
        .timeout(ANSWER_MAX)
}

/// Connects and joins; the events come through the channel.
pub async fn enter(builder: Builder, room: &str) -> Result<(Client, mpsc::Receiver<Event>), String> {
    let (sender, events) = mpsc::channel(EVENTS_AHEAD);
    let client = builder
        .stream(sender)
        .connect()
        .await
        .map_err(|error| error.to_string())?;
    let answer = client.emit_ack("join", &json!({ "roomID": room })).await;
    match answer {
        Ok(args) if args.first().is_some_and(|answer| answer["ok"] == json!(true)) => Ok((client, events)),
        Ok(args) => Err(format!("the join of {room} was answered {}", Value::from(args))),
        Err(error) => Err(format!("the join of {room}: {error}")),
    }
}

type Answer = Result<(Vec<Value>, Instant), EmitError>;

async fn answered(key: String, meant: Instant, pending: Result<PendingAck, EmitError>) -> (String, Instant, Answer) {
    let answer = match pending {
        Ok(pending) => pending.await,
        Err(error) => Err(error),
    };
    (key, meant, answer)
}

/// A message object, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    id: String,
    epoch: String,
    seq: u64,
    message: String,
}

/// A connected client in its room.
pub struct Innocent {
    ledger: Arc<Ledger>,
    profile: Profile,
    client: Client,
    events: mpsc::Receiver<Event>,
    written: u32,
}

impl Innocent {
    /// Is in its room already, and owed everything from the beginning: nobody writes before all are there.
    pub fn new(ledger: Arc<Ledger>, profile: Profile, client: Client, events: mpsc::Receiver<Event>) -> Self {
        ledger.checker().joined(&profile.name, &profile.room, Some(("", 0)));
        Self {
            ledger,
            profile,
            client,
            events,
            written: 0,
        }
    }

    /// Writes from `start` until `stop`, and reads for as long as it is not dropped or cut.
    pub async fn run(mut self, start: Instant, mut stop: watch::Receiver<bool>) {
        let mut acks = FuturesUnordered::new();
        let mut writing = true;
        loop {
            let meant = start + self.profile.offset + self.profile.period * self.written;
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.take(&event),
                    None => break,
                },
                Some(answered) = acks.next(), if !acks.is_empty() => self.settle(answered),
                () = sleep_until(meant.into()), if writing => {
                    self.written += 1;
                    let key = format!("{}-{}", self.profile.name, self.written);
                    let pending = self.send(&key, meant);
                    acks.push(answered(key, meant, pending));
                }
                _ = stop.wait_for(|stop| *stop), if writing => writing = false,
            }
        }
        let reason = self.client.closed().await;
        self.find(&format!("lost its connection: {reason}"));
        // Their answers cannot come any more.
        while let Some(answered) = acks.next().await {
            self.settle(answered);
        }
    }

    fn send(&self, key: &str, meant: Instant) -> Result<PendingAck, EmitError> {
        let Profile { name, room, .. } = &self.profile;
        let text = format!("{key} {}", self.ledger.to_us(meant));
        self.ledger.checker().sent(name, room, key);
        self.ledger.sent.fetch_add(1, Ordering::Relaxed);
        let payload = json!({ "roomID": room, "message": text, "cid": key });
        self.client.emit_ack_later("message", &payload)
    }

    fn settle(&self, (key, meant, answer): (String, Instant, Answer)) {
        let Profile { name, room, .. } = &self.profile;
        self.ledger.settled.fetch_add(1, Ordering::Relaxed);
        match answer {
            Ok((args, at)) => match args.first().and_then(receipt) {
                Some(receipt) => {
                    self.ledger.checker().acked(name, room, &key, receipt);
                    self.ledger.meter.record(Wait::Ack, meant, at);
                }
                None => {
                    self.ledger.checker().uncertain(name, room, &key);
                    self.find(&format!("{key} was answered {}", Value::from(args)));
                }
            },
            Err(error) => {
                self.ledger.checker().uncertain(name, room, &key);
                self.find(&format!("{key} has no ack: {error}"));
            }
        }
    }

    fn take(&self, event: &Event) {
        match event.name.as_str() {
            "message" => match event.arg::<Message>(0) {
                Ok(message) => self.record(&message, event.at),
                Err(error) => self.find(&format!("got an unreadable message ({error}): {}", event.raw())),
            },
            "previousMessages" => match event.arg::<Vec<Message>>(0) {
                Ok(messages) => messages.iter().for_each(|message| self.record(message, event.at)),
                Err(error) => self.find(&format!("got an unreadable page ({error})")),
            },
            "errorMessage" | "security:notice" | "sync:lost" => self.find(&format!("was told {}", event.raw())),
            _ => {}
        }
    }

    fn record(&self, message: &Message, at: Instant) {
        let Some((key, us)) = message.message.split_once(' ') else {
            self.find(&format!("got a message of nobody: {}", message.message));
            return;
        };
        let entry = Entry {
            epoch: &message.epoch,
            seq: message.seq,
            id: &message.id,
            key: Some(key),
        };
        self.ledger
            .checker()
            .received(&self.profile.name, &self.profile.room, entry);
        self.ledger.received.fetch_add(1, Ordering::Relaxed);
        if let Ok(us) = us.parse() {
            self.ledger.meter.record(Wait::Delivery, self.ledger.moment(us), at);
        }
    }

    fn find(&self, what: &str) {
        let Profile { name, room, .. } = &self.profile;
        self.ledger.find(format!("{name} in {room} {what}"));
    }
}

fn receipt(answer: &Value) -> Option<Receipt<'_>> {
    if answer["ok"] != json!(true) {
        return None;
    }
    Some(Receipt {
        id: answer["id"].as_str()?,
        epoch: answer["epoch"].as_str()?,
        seq: answer["seq"].as_u64()?,
        ts: answer["ts"].as_u64()?,
    })
}
