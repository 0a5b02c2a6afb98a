//! From a packet to its use case: which event it is, what it carries, and who handles it.

#[cfg(test)]
mod fuzz;
mod gpt;
pub mod lifecycle;
mod message;
mod room;
mod sync;
mod token;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use socketioxide_core::Value;
use tracing::Instrument as _;

use super::inbox::{Incoming, Job};
use super::reply::Reply;
use super::{Session, Socket};
use crate::chat::ChatError;
use crate::chat::payload::Payload;
use crate::config::Rule;
use crate::guard::Weight;
use crate::model::Scope;

/// Messages of one socket stored by one script call: keeps a call below a millisecond.
pub const BATCH_MAX: usize = 64;

/// Whether a packet is the event `message`, which may be stored together with its neighbours.
pub fn is_message(packet: &Value) -> bool {
    matches!(packet, Value::Str(text, _) if text.as_str().starts_with("[\"message\""))
}

/// What events cost of their socket's rate, by the beginning of their packet; all others cost one.
const WEIGHTS: [(&str, Weight); 4] = [
    ("[\"message\"", Weight::MESSAGE),
    ("[\"syncRooms\"", Weight::of(5)),
    ("[\"deleteroom\"", Weight::of(5)),
    ("[\"refreshToken\"", Weight::of(5)),
];

/// Events that are also counted over all nodes, because each costs a call of a service.
const COSTLY: [&str; 3] = ["syncRooms", "deleteroom", "refreshToken"];

/// What an event costs of its socket's rate.
pub fn weight(packet: &Value) -> Weight {
    let Value::Str(text, _) = packet else {
        return Weight::of(1);
    };
    let known = WEIGHTS.iter().find(|(start, _)| text.as_str().starts_with(start));
    known.map_or(Weight::of(1), |(_, weight)| *weight)
}

/// The events of the contract, by name.
const NAMES: [&str; 10] = [
    "message",
    "join",
    "leave",
    "syncRooms",
    "loadMoreMessages_for_room",
    "editMessage",
    "deleteMessage",
    "deleteroom",
    "refreshToken",
    "gpt:cancel",
];

/// An event with its payload and the answer it still needs.
pub struct Event {
    packet: Value,
    /// Its place among the jobs of its socket.
    pub number: u64,
    /// How to answer.
    pub reply: Reply,
}

/// Name and first argument of a packet.
fn split(packet: &Value) -> Option<(Cow<'_, str>, Option<&RawValue>)> {
    #[derive(Deserialize)]
    struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
    let Value::Str(text, _) = packet else { return None };
    let arguments: Vec<&RawValue> = serde_json::from_str(text.as_str()).ok()?;
    let name: Name<'_> = serde_json::from_str(arguments.first()?.get()).ok()?;
    Some((name.0, arguments.get(1).copied()))
}

impl Event {
    /// An event as it came, with its place among the jobs of its socket.
    pub fn new(incoming: Incoming, number: u64) -> Self {
        let name = split(&incoming.packet).map(|(name, _)| name);
        let name = NAMES
            .into_iter()
            .find(|known| name.as_deref() == Some(known))
            .unwrap_or("unknown");
        Self {
            reply: Reply::new(name, incoming.ack_id, incoming.at),
            packet: incoming.packet,
            number,
        }
    }

    /// The object that the event carries.
    pub fn payload(&self) -> Result<Payload<'_>, ChatError> {
        if matches!(&self.packet, Value::Str(_, Some(attachments)) if !attachments.is_empty()) {
            // Their placeholders would be stored instead of them.
            return Err(ChatError::BadPayload("binary attachments are not supported".into()));
        }
        let missing = || ChatError::BadPayload("the payload must be an object".into());
        let raw = split(&self.packet)
            .and_then(|(_, payload)| payload)
            .ok_or_else(missing)?;
        Payload::parse(raw)
    }
}

/// Refuses an event that found the inbox full.
pub fn refuse_overflow(session: &Session, socket: &Socket, incoming: Incoming) {
    let error = ChatError::RateLimited(Duration::from_secs(1));
    Event::new(incoming, 0).reply.fail_now(&session.app, socket, &error);
}

/// Refuses an event that is beyond its rate; a socket that goes on and on is cut, and its session blocked.
pub fn refuse_beyond(session: &Arc<Session>, socket: &Socket, incoming: Incoming, wait: Duration) {
    let app = &session.app;
    app.metrics.refusals_total.inc(["events"]);
    Event::new(incoming, 0)
        .reply
        .fail_if_room(app, socket, &ChatError::RateLimited(wait));
    if app.guard.is_flood(session.count_refused()) {
        let (session, socket) = (session.clone(), socket.clone());
        app.tracker
            .spawn(async move { block_and_cut(&session, &socket, Rule::Flood).await });
    }
}

/// Does one job, or stores a run of messages; `first` is the number of the first.
pub async fn handle(session: &Arc<Session>, socket: &Socket, first: u64, jobs: Vec<Job>) {
    let mut messages = Vec::new();
    for (number, job) in (first..).zip(jobs) {
        match job {
            Job::Event(incoming) => {
                let mut event = Event::new(incoming, number);
                event.reply.span = session.app.sampler.event(event.reply.event);
                if event.reply.event == "message" {
                    messages.push(event);
                } else {
                    let span = event.reply.span.clone();
                    handle_event(session, socket, event).instrument(span).await;
                }
            }
            Job::Connected => lifecycle::connected(session, socket).await,
            Job::Register => lifecycle::register(session).await,
            Job::Evict { room, gone } => lifecycle::evicted(session, socket, &room, gone).await,
            Job::Renew {
                refused,
                permit: _permit,
            } => token::renew(session, socket, &refused).await,
            Job::RoomsFetched(fetched) => lifecycle::rooms_fetched(session, socket, fetched).await,
            Job::Closed(reason) => lifecycle::closed(session, socket, reason).await,
        }
    }
    if !messages.is_empty() {
        message::post(session, socket, messages).await;
    }
}

async fn handle_event(session: &Arc<Session>, socket: &Socket, event: Event) {
    if let Err(error) = take_costly(session, event.reply.event).await {
        return event.reply.fail(&session.app, socket, &error).await;
    }
    let result = match event.reply.event {
        "join" => room::join(session, socket, &event).await.map(Answer::Done),
        "leave" => room::leave(session, socket, &event).await.map(Answer::Done),
        "deleteroom" => room::delete(session, socket, &event).await.map(Answer::Done),
        "editMessage" => message::edit(session, socket, &event).await.map(Answer::Stored),
        "deleteMessage" => message::delete(session, socket, &event).await.map(Answer::Stored),
        "syncRooms" => sync::sync_rooms(session, socket, &event).await.map(Answer::Done),
        "loadMoreMessages_for_room" => sync::load_more(session, &event).await.map(Answer::Messages),
        "gpt:cancel" => gpt::cancel(session, &event).await.map(Answer::Done),
        "refreshToken" => token::refresh(session, socket).await.map(Answer::Done),
        // Unknown events are ignored, as Socket.IO servers do; they are counted.
        _ => {
            session.app.metrics.events_total.inc([event.reply.event, "ignored"]);
            return;
        }
    };
    let app = &session.app;
    match result {
        Ok(Answer::Done(())) => event.reply.done(app, socket).await,
        Ok(Answer::Stored(receipt)) => event.reply.stored(app, socket, &receipt).await,
        Ok(Answer::Messages(messages)) => event.reply.send(app, socket, messages.as_slice()).await,
        Err(error) => fail(session, socket, event.reply, &error).await,
    }
}

/// Takes a costly event from its user's rate.
async fn take_costly(session: &Session, event: &str) -> Result<(), ChatError> {
    if !COSTLY.contains(&event) {
        return Ok(());
    }
    match session.app.guard.take_costly(&session.user()).await {
        Ok(None) => Ok(()),
        Ok(Some(wait)) => Err(ChatError::RateLimited(wait)),
        Err(_) if event == "refreshToken" => Err(ChatError::AuthUnavailable),
        Err(error) => Err(error.into()),
    }
}

enum Answer {
    Done(()),
    Stored(crate::redis::Receipt),
    Messages(Vec<Box<RawValue>>),
}

/// Answers a failed event; counts a strike, or blocks, where the error says so.
async fn fail(session: &Arc<Session>, socket: &Socket, reply: Reply, error: &ChatError) {
    reply.fail(&session.app, socket, error).await;
    if error.is_strike() {
        session.app.guard.strike(&session.identity(), 1).await;
    }
    if *error == ChatError::Forged {
        block_and_cut(session, socket, Rule::ForgedRoom).await;
    }
}

/// Blocks the session (else the user) and cuts this socket after telling it why.
async fn block_and_cut(session: &Arc<Session>, socket: &Socket, rule: Rule) {
    let blocked = session.app.guard.block(&Scope::of(&session.identity()), rule).await;
    if let Some(left) = blocked {
        super::control::cut(session, socket, rule.as_str(), Some(left));
    }
}
