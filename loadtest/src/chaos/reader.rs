//! The reading half of a member: joins where it left off and records every event in its order.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::history::History;
use super::member::{Profile, Suffer};
use crate::checker::Entry;
use crate::client::{Client, Event, PendingAck};

/// The most that a legacy page holds, messages.
const PAGE_MESSAGES: usize = 1000;
/// The same in bytes of JSON.
const PAGE_BYTES: usize = 1024 * 1024;
/// Between two tries to join where the server names no time.
const RETRY: Duration = Duration::from_millis(300);

/// Why a connection is over.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// The other side, or the way to it, is gone.
    Lost,
    /// We cut it, for this long.
    Offline(Duration),
    /// The node asked to go elsewhere, and the moment has come.
    SentAway,
}

/// A message object, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Message {
    id: String,
    epoch: String,
    seq: u64,
    ts: u64,
    message: String,
}

/// The second argument of `previousMessages`, for protocol 2.
#[derive(Debug, Deserialize)]
struct PreviousInfo {
    recovered: bool,
    more: bool,
}

#[derive(Clone, Debug)]
struct Cursor {
    epoch: String,
    seq: u64,
    ts: u64,
    id: String,
}

/// What a member has seen.
pub struct Reader {
    history: Arc<History>,
    profile: Profile,
    cursor: Option<Cursor>,
    seen: HashSet<(usize, u64)>,
    epochs: Vec<String>,
    /// Joins answered on this connection.
    pages: u32,
    /// Whether a page may repeat what is seen already.
    repeats: bool,
    sent_cursor: bool,
    /// When the node wants it to leave.
    leave_at: Option<Instant>,
    /// Whether the present connection ever was in the room.
    pub was_joined: bool,
}

impl Reader {
    /// Has seen nothing.
    pub fn new(history: Arc<History>, profile: Profile) -> Self {
        Self {
            history,
            profile,
            cursor: None,
            seen: HashSet::new(),
            epochs: Vec::new(),
            pages: 0,
            repeats: false,
            sent_cursor: false,
            leave_at: None,
            was_joined: false,
        }
    }

    /// A new connection stands.
    pub fn connected(&mut self, again: bool) {
        (self.pages, self.repeats, self.leave_at) = (0, false, None);
        let (name, room) = self.names();
        let mut checker = self.history.checker();
        if again {
            checker.reconnected(name, room);
            if !self.profile.proto2 {
                // The end of the transport is all that a legacy client can be told.
                checker.tail_lost(name, room);
            }
        } else {
            // Nobody writes before everybody has joined.
            checker.joined(name, room, Some(("", 0)));
        }
    }

    /// Joins and reads until the connection ends; `joined` says whether the room may be written to, and is reset by who
    /// finds that it may not.
    pub async fn run(
        &mut self,
        client: &Client,
        events: &mut mpsc::Receiver<Event>,
        suffer: &mut mpsc::Receiver<Suffer>,
        joined: &watch::Sender<bool>,
    ) -> End {
        let index = self.profile.index;
        let mut watched = joined.subscribe();
        let mut joining = self.join(client);
        let mut retry_at = None;
        let mut resume_at: Option<Instant> = None;
        loop {
            tokio::select! {
                event = events.recv() => {
                    let Some(event) = event else {
                        if resume_at.is_some() {
                            // Whoever lost its connection while it did not read is as free as any other.
                            self.history.hold(index, false);
                        }
                        return End::Lost;
                    };
                    if self.take(&event) {
                        joined.send_replace(false);
                        joining = self.join(client);
                    }
                }
                answer = answered(&mut joining), if joining.is_some() => {
                    joining = None;
                    match answer {
                        Ok(()) => {
                            self.was_joined = true;
                            joined.send_replace(true);
                            self.state().joined.store(true, Ordering::Relaxed);
                        }
                        Err(pause) => retry_at = Some(Instant::now() + pause),
                    }
                }
                () = until(retry_at), if retry_at.is_some() => {
                    retry_at = None;
                    joining = self.join(client);
                }
                () = until(self.leave_at), if self.leave_at.is_some() && resume_at.is_none() => return End::SentAway,
                () = until(resume_at), if resume_at.is_some() => {
                    resume_at = None;
                    client.resume_reading();
                    self.history.hold(index, false);
                }
                // The writer was told that it is not in the room.
                _ = watched.wait_for(|joined| !joined), if self.was_joined && joining.is_none() && retry_at.is_none() => {
                    retry_at = Some(Instant::now() + RETRY);
                }
                Some(suffering) = suffer.recv() => {
                    self.history.hold(index, true);
                    match suffering {
                        Suffer::Offline(time) => return End::Offline(time),
                        Suffer::Pause(time) => {
                            client.pause_reading();
                            resume_at = Some(Instant::now() + time);
                        }
                    }
                }
            }
        }
    }

    fn names(&self) -> (&str, &str) {
        let state = self.state();
        (&state.name, &self.history.rooms[state.room].name)
    }

    fn state(&self) -> &super::history::MemberState {
        &self.history.members[self.profile.index]
    }

    fn join(&mut self, client: &Client) -> Option<PendingAck> {
        let mut payload = json!({ "roomID": self.names().1 });
        self.sent_cursor = self.cursor.is_some();
        match &self.cursor {
            None => {}
            Some(cursor) if self.profile.proto2 => {
                payload["epoch"] = json!(cursor.epoch);
                payload["seq"] = json!(cursor.seq);
                payload["ts"] = json!(cursor.ts);
            }
            // Both forms are in use.
            Some(cursor) if self.profile.index.is_multiple_of(2) => payload["lastmessage"] = json!(cursor.ts),
            Some(cursor) => payload["lastmessage"] = json!(cursor.id),
        }
        client.emit_ack_later("join", &payload).ok()
    }

    /// Records an event; true when the room must be joined again.
    fn take(&mut self, event: &Event) -> bool {
        match event.name.as_str() {
            "message" => {
                match event.arg::<Message>(0) {
                    Ok(message) => self.record(message),
                    Err(error) => self.find(&format!("got an unreadable message ({error}): {}", event.raw())),
                }
                false
            }
            "previousMessages" => match event.arg::<Vec<Message>>(0) {
                Ok(messages) => {
                    let info = event.arg::<Option<PreviousInfo>>(1).ok().flatten();
                    self.record_page(messages, info, event.raw().len())
                }
                Err(error) => {
                    self.find(&format!("got an unreadable page ({error})"));
                    false
                }
            },
            "sync:lost" => {
                self.history.tally.sync_lost.fetch_add(1, Ordering::Relaxed);
                let (name, room) = self.names();
                self.history.checker().tail_lost(name, room);
                true
            }
            // Legacy clients know nothing of it, and are not told.
            "server:drain" if self.profile.proto2 => {
                let drain: Value = event.arg(0).unwrap_or_default();
                match drain["afterMs"].as_u64() {
                    Some(after) => self.leave_at = Some(Instant::now() + Duration::from_millis(after)),
                    None => self.find(&format!("was told {}", event.raw())),
                }
                false
            }
            "server:drain" | "security:notice" => {
                self.find(&format!("was told {}", event.raw()));
                false
            }
            "errorMessage" => {
                let error: Value = event.arg(0).unwrap_or_default();
                if !matches!(
                    error["code"].as_str(),
                    Some("unavailable" | "uncertain" | "auth_unavailable")
                ) {
                    self.find(&format!("got {error}"));
                }
                false
            }
            _ => false,
        }
    }

    /// `bytes` is the size of the whole page.
    fn record_page(&mut self, messages: Vec<Message>, info: Option<PreviousInfo>, bytes: usize) -> bool {
        self.pages += 1;
        // A page that was asked for while events came live may repeat them.
        self.repeats |= self.pages > 1;
        if self.profile.proto2 && info.is_none() {
            self.find("got previousMessages without its second argument");
        }
        // A legacy page holds the newest only, and cannot say that there was more: it is full when not even one more
        // message of this size fits.
        let one = bytes / messages.len().max(1);
        let is_full = messages.len() >= PAGE_MESSAGES || bytes + one > PAGE_BYTES;
        let unrecovered = match &info {
            Some(info) => !info.recovered,
            None => !self.profile.proto2 && is_full,
        };
        if self.sent_cursor && unrecovered {
            self.repeats = true;
            let (name, room) = self.names();
            self.history.checker().recovered(name, room, false);
        }
        messages.into_iter().for_each(|message| self.record(message));
        // Without a cursor `more` speaks of older ones.
        self.sent_cursor && info.is_some_and(|info| info.more)
    }

    fn record(&mut self, message: Message) {
        self.history.tally.received.fetch_add(1, Ordering::Relaxed);
        let epoch = self.epochs.iter().position(|epoch| *epoch == message.epoch);
        let epoch = epoch.unwrap_or_else(|| {
            self.epochs.push(message.epoch.clone());
            self.epochs.len() - 1
        });
        let key = message.message.split(' ').next().unwrap_or_default();
        if self.seen.insert((epoch, message.seq)) || !self.repeats {
            let entry = Entry {
                epoch: &message.epoch,
                seq: message.seq,
                id: &message.id,
                key: Some(key),
            };
            let (name, room) = self.names();
            self.history.checker().received(name, room, entry);
        }
        let state = self.state();
        state.top_seq.store(message.seq, Ordering::Relaxed);
        if let Some(probe) = key.rsplit_once("/p").and_then(|(_, probe)| probe.parse().ok()) {
            state.seen_probe.fetch_max(probe, Ordering::Relaxed);
        }
        self.cursor = Some(Cursor {
            epoch: message.epoch,
            seq: message.seq,
            ts: message.ts,
            id: message.id,
        });
    }

    fn find(&self, what: &str) {
        let (name, room) = self.names();
        self.history.find(format!("{name} in {room} {what}"));
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// The end of a join: in the room, or how long to wait before the next try.
async fn answered(joining: &mut Option<PendingAck>) -> Result<(), Duration> {
    let Some(pending) = joining else {
        return std::future::pending().await;
    };
    let Ok((args, _)) = pending.await else {
        sleep(RETRY).await;
        return Err(RETRY);
    };
    let answer = args.first().unwrap_or(&Value::Null);
    if answer["ok"] == json!(true) {
        return Ok(());
    }
    Err(answer["retryAfterMs"].as_u64().map_or(RETRY, Duration::from_millis))
}
