//! The one task of a connection: reads and answers, writes in order, upgrades, ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::address::Address;
use super::event::{Event, UNREADABLE};
use super::inner::{Inner, Out};
use super::polling::Polling;
use super::websocket::{self, Ws};
use super::{Builder, CloseReason, ConnectError, Transport};
use crate::packet::{Body, EnginePacket, Handshake, Packet, ROOT, SEPARATOR};

/// Frames written with one flush.
const BATCH: usize = 64;

/// How long a failed or finished writer lets the reader drain what the server already sent.
const GRACE: Duration = Duration::from_secs(1);

/// The transport a connection starts on.
pub(super) enum Link {
    Websocket(Box<Ws>),
    /// With what it takes to open a websocket if the session is to move there.
    Polling(Polling, Option<Box<(Address, Builder)>>),
}

pub(super) struct Driver {
    inner: Arc<Inner>,
    sid: String,
    /// pingInterval + pingTimeout
    silence: Duration,
    events: Option<mpsc::Sender<Event>>,
    tag: u64,
    on_connect: Vec<String>,
    connected: Option<oneshot::Sender<Result<(), ConnectError>>>,
}

/// How a polling loop ended.
enum Stop {
    Idle,
    Closed(CloseReason),
}

fn closed(error: impl ToString) -> CloseReason {
    CloseReason::TransportClose(error.to_string())
}

impl Driver {
    pub fn new(
        inner: Arc<Inner>,
        handshake: Handshake,
        events: Option<mpsc::Sender<Event>>,
        tag: u64,
        on_connect: Vec<String>,
        connected: oneshot::Sender<Result<(), ConnectError>>,
    ) -> Self {
        let silence = Duration::from_millis(handshake.ping_interval.saturating_add(handshake.ping_timeout));
        Self {
            inner,
            sid: handshake.sid,
            silence,
            events,
            tag,
            on_connect,
            connected: Some(connected),
        }
    }

    pub async fn run(mut self, link: Link, mut outbox: mpsc::Receiver<Out>) {
        let reason = match link {
            Link::Websocket(ws) => self.pump_websocket(*ws, &mut outbox).await,
            Link::Polling(polling, upgrade) => match self.pump_polling(&polling, upgrade, &mut outbox).await {
                Ok(ws) => {
                    drop(polling);
                    self.inner.transport.send_replace(Transport::Websocket);
                    self.pump_websocket(*ws, &mut outbox).await
                }
                Err(reason) => reason,
            },
        };
        // Nothing may be enqueued after the end was announced, and a stream ends with its connection.
        drop(outbox);
        self.events = None;
        self.inner.close(reason);
    }

    async fn pump_websocket(&mut self, ws: Ws, outbox: &mut mpsc::Receiver<Out>) -> CloseReason {
        let (mut sink, mut stream) = ws.split();
        // The reader is polled first, so that what it enqueues is written in the same turn.
        let reason = tokio::select! {
            biased;
            reason = self.read_websocket(&mut stream) => reason,
            reason = write_websocket(&mut sink, outbox) => reason,
        };
        if matches!(reason, CloseReason::ServerDisconnect | CloseReason::PingTimeout) {
            let _ = timeout(GRACE, sink.close()).await;
        }
        reason
    }

    async fn read_websocket(&mut self, stream: &mut SplitStream<Ws>) -> CloseReason {
        let inner = self.inner.clone();
        let mut paused = inner.paused.subscribe();
        let mut quiet = Box::pin(sleep(self.silence));
        loop {
            if *paused.borrow_and_update() {
                // Cannot fail: `inner` holds the sender.
                let _ = paused.wait_for(|paused| !paused).await;
                quiet.as_mut().reset(tokio::time::Instant::now() + self.silence);
            }
            // Biased: while anything is readable, a ping may still be behind it.
            let frame = tokio::select! {
                biased;
                frame = stream.next() => frame,
                _ = paused.changed() => continue,
                () = &mut quiet => return CloseReason::PingTimeout,
            };
            let ended = match frame {
                Some(Ok(Message::Text(text))) => match self.handle_frame(&text).await {
                    Ok(true) => {
                        quiet.as_mut().reset(tokio::time::Instant::now() + self.silence);
                        Ok(())
                    }
                    Ok(false) => Ok(()),
                    Err(reason) => Err(reason),
                },
                Some(Ok(Message::Binary(bytes))) => {
                    self.report(format!("binary frame of {} bytes", bytes.len())).await;
                    Ok(())
                }
                Some(Ok(Message::Close(frame))) => Err(closed(frame.map_or_else(
                    || "close frame".to_owned(),
                    |frame| format!("close frame {} {}", frame.code, frame.reason),
                ))),
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(closed(error)),
                None => Err(closed("end of stream")),
            };
            if let Err(reason) = ended {
                return reason;
            }
        }
    }

    /// Pumps by polling; `Ok` is the websocket the session has moved to.
    async fn pump_polling(
        &mut self,
        polling: &Polling,
        upgrade: Option<Box<(Address, Builder)>>,
        outbox: &mut mpsc::Receiver<Out>,
    ) -> Result<Box<Ws>, CloseReason> {
        let sid = self.sid.clone();
        let probe = async {
            match upgrade.as_deref() {
                // As the official client: a failed probe leaves the session where it is.
                Some((address, builder)) => websocket::probe(address, builder, &sid).await.ok(),
                None => None,
            }
        };
        let (halt, halted) = watch::channel(false);
        let reading = self.read_polling(polling, halted.clone());
        let writing = write_polling(polling, outbox, halted);
        tokio::pin!(probe, reading, writing);
        let (mut ws, mut probed, mut read, mut written) = (None, false, false, false);
        while !(read && written) {
            let stop = tokio::select! {
                biased;
                stop = &mut reading, if !read => { read = true; stop }
                stop = &mut writing, if !written => { written = true; stop }
                answer = &mut probe, if !probed => {
                    probed = true;
                    if answer.is_some() {
                        ws = answer.map(Box::new);
                        halt.send_replace(true);
                    }
                    continue;
                }
            };
            if let Stop::Closed(reason) = stop {
                return Err(reason);
            }
        }
        let mut ws = ws.ok_or_else(|| closed("polling stopped"))?;
        ws.send(Message::text("5")).await.map_err(closed)?;
        Ok(ws)
    }

    async fn read_polling(&mut self, polling: &Polling, halted: watch::Receiver<bool>) -> Stop {
        let inner = self.inner.clone();
        let mut paused = inner.paused.subscribe();
        let mut quiet = Box::pin(sleep(self.silence));
        // A poll under way is always finished: the server ends it for an upgrade, and its answer may hold events.
        while !*halted.borrow() {
            let mut get = Box::pin(polling.get());
            let body = loop {
                if *paused.borrow_and_update() {
                    // The poll under way is kept, not cancelled: its answer would be lost.
                    let _ = paused.wait_for(|paused| !paused).await;
                    quiet.as_mut().reset(tokio::time::Instant::now() + self.silence);
                }
                tokio::select! {
                    biased;
                    body = &mut get => break body,
                    _ = paused.changed() => {}
                    () = &mut quiet => return Stop::Closed(CloseReason::PingTimeout),
                }
            };
            let body = match body {
                Ok(body) => body,
                Err(error) => return Stop::Closed(closed(error)),
            };
            for packet in body.split(SEPARATOR) {
                match self.handle_frame(packet).await {
                    Ok(true) => quiet.as_mut().reset(tokio::time::Instant::now() + self.silence),
                    Ok(false) => {}
                    Err(reason) => return Stop::Closed(reason),
                }
            }
        }
        Stop::Idle
    }

    /// Handles one Engine.IO packet; true when it was a ping.
    async fn handle_frame(&mut self, text: &str) -> Result<bool, CloseReason> {
        let at = Instant::now();
        match EnginePacket::parse(text) {
            Ok(EnginePacket::Message(message)) => self.handle_message(message, at).await?,
            Ok(EnginePacket::Ping(probe)) => {
                // Waits for room in the queue rather than losing the pong; the writer runs in the same task.
                let _ = self.inner.out.send(Out::Text(format!("3{probe}"))).await;
                return Ok(true);
            }
            Ok(EnginePacket::Close) => return Err(CloseReason::EngineClose),
            Ok(EnginePacket::Open(_) | EnginePacket::Pong(_) | EnginePacket::Upgrade | EnginePacket::Noop) => {}
            Err(error) => self.report(format!("{error}: {}", clip(text))).await,
        }
        Ok(false)
    }

    async fn handle_message(&mut self, message: &str, at: Instant) -> Result<(), CloseReason> {
        let packet = match Packet::parse(message) {
            Ok(packet) if packet.namespace == ROOT => packet,
            Ok(packet) => {
                self.report(format!("packet of namespace {}", packet.namespace)).await;
                return Ok(());
            }
            Err(error) => {
                self.report(format!("{error}: {}", clip(message))).await;
                return Ok(());
            }
        };
        match packet.body {
            Body::Connect(payload) => {
                let payload: Option<Value> = payload.and_then(|payload| serde_json::from_str(payload.get()).ok());
                let sid = payload
                    .as_ref()
                    .and_then(|payload| payload["sid"].as_str())
                    .unwrap_or_default();
                let _ = self.inner.sid.set(sid.to_owned());
                for frame in self.on_connect.drain(..) {
                    let _ = self.inner.out.send(Out::Text(frame)).await;
                }
                self.answer_connect(Ok(()));
            }
            Body::ConnectError(payload) => {
                let payload: Value = serde_json::from_str(payload.get()).unwrap_or_default();
                let message = payload["message"]
                    .as_str()
                    .or(payload.as_str())
                    .unwrap_or_default()
                    .to_owned();
                self.answer_connect(Err(ConnectError::Refused { message }));
                return Err(CloseReason::ServerDisconnect);
            }
            Body::Disconnect => return Err(CloseReason::ServerDisconnect),
            Body::Event { ack, name, array } => {
                self.deliver(Event {
                    client: self.tag,
                    name,
                    ack,
                    at,
                    array: array.into(),
                })
                .await;
            }
            Body::Ack { id, array } => match serde_json::from_str(array) {
                Ok(args) => self.inner.resolve_ack(id, args, at),
                Err(error) => self.report(format!("ack {id}: {error}")).await,
            },
            Body::Binary { attachments } => self.report(format!("binary packet, {attachments} attachments")).await,
        }
        Ok(())
    }

    fn answer_connect(&mut self, answer: Result<(), ConnectError>) {
        if let Some(connected) = self.connected.take() {
            // The caller may have given up; then its guard ends this task.
            let _ = connected.send(answer);
        }
    }

    async fn deliver(&self, event: Event) {
        match &self.events {
            // A consumer that went away no longer cares.
            Some(events) => drop(events.send(event).await),
            None => self.inner.deliver(event),
        }
    }

    async fn report(&self, what: String) {
        let array = Value::from(vec![UNREADABLE.to_owned(), what]).to_string().into();
        let name = UNREADABLE.to_owned();
        self.deliver(Event {
            client: self.tag,
            name,
            ack: None,
            at: Instant::now(),
            array,
        })
        .await;
    }
}

fn clip(text: &str) -> String {
    text.chars().take(120).collect()
}

/// Writes until told to disconnect or the transport fails, then leaves the reader a moment for what is on its way.
async fn write_websocket(sink: &mut SplitSink<Ws, Message>, outbox: &mut mpsc::Receiver<Out>) -> CloseReason {
    let mut batch = Vec::new();
    let reason = 'writing: loop {
        if outbox.recv_many(&mut batch, BATCH).await == 0 {
            break closed("no sender");
        }
        for out in batch.drain(..) {
            let (message, last) = match out {
                Out::Text(text) => (Message::text(text), false),
                Out::Binary(bytes) => (Message::binary(bytes), false),
                Out::Disconnect => (Message::text("41"), true),
            };
            if let Err(error) = sink.feed(message).await {
                break 'writing closed(error);
            }
            if last {
                let _ = sink.close().await;
                break 'writing CloseReason::DisconnectedByUs;
            }
        }
        if let Err(error) = sink.flush().await {
            break closed(error);
        }
    };
    sleep(GRACE).await;
    reason
}

async fn write_polling(polling: &Polling, outbox: &mut mpsc::Receiver<Out>, mut halted: watch::Receiver<bool>) -> Stop {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            // A dropped sender cannot happen before this future ends.
            _ = halted.wait_for(|halted| *halted) => return Stop::Idle,
            received = outbox.recv_many(&mut batch, BATCH) => if received == 0 {
                return Stop::Closed(closed("no sender"));
            }
        }
        match polling.post(&mut batch).await {
            Ok(false) => {}
            Ok(true) => return Stop::Closed(CloseReason::DisconnectedByUs),
            Err(error) => {
                sleep(GRACE).await;
                return Stop::Closed(closed(error));
            }
        }
    }
}
