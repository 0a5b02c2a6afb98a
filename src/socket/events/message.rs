//! `message`, `editMessage` and `deleteMessage`.

use std::sync::Arc;

use tracing::{Instrument as _, Span};

use super::lifecycle::refresh_rooms_behind;
use super::{Event, fail};
use crate::chat::{ChatError, compose_delete, compose_edit, compose_message};
use crate::model::{Identity, RoomId};
use crate::redis::{Draft, Receipt};
use crate::socket::reply::Reply;
use crate::socket::{Session, Socket};
use crate::telemetry::trace;

/// Stores the messages that waited together, each room's run in one round trip and in the order sent.
pub async fn post(session: &Arc<Session>, socket: &Socket, events: Vec<Event>) {
    // A list older than a minute is fetched behind the messages, so that none waits for HTTP.
    refresh_rooms_behind(session, socket);
    let identity = session.identity();
    let (mut strikes, mut evicted) = (0, 0);
    let mut run: Option<(RoomId, Vec<Draft>, Vec<Reply>)> = None;
    for event in events {
        let composed = compose(session, &identity, &event);
        match composed {
            Ok((room, mut draft)) => {
                draft.trace = trace::context_of(&event.reply.span, "");
                if run.as_ref().is_some_and(|(current, ..)| *current != room) {
                    store(session, socket, run.take()).await;
                }
                let (_, drafts, replies) = run.get_or_insert_with(|| (room, Vec::new(), Vec::new()));
                drafts.push(draft);
                replies.push(event.reply);
            }
            Err(error) => {
                // Answers keep the order of the events.
                store(session, socket, run.take()).await;
                event.reply.fail(&session.app, socket, &error).await;
                match error {
                    ChatError::NotMember => evicted = 1,
                    error => strikes += u32::from(error.is_strike()),
                }
            }
        }
    }
    store(session, socket, run).await;
    // Messages to a room that were sent together are one act: who has just been removed from it is no attacker.
    strikes += evicted;
    if strikes > 0 {
        session.app.guard.strike(&session.identity(), strikes).await;
    }
}

fn compose(session: &Session, identity: &Identity, event: &Event) -> Result<(RoomId, Draft), ChatError> {
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    let draft = compose_message(
        &payload,
        identity,
        &room,
        session.app.chat.max_text(),
        &session.app.mention,
    )?;
    require_joined(session, &room)?;
    require_order(session, &room, event)?;
    Ok((room, draft))
}

async fn store(session: &Arc<Session>, socket: &Socket, run: Option<(RoomId, Vec<Draft>, Vec<Reply>)>) {
    let Some((room, drafts, replies)) = run else { return };
    // What is logged meanwhile names the first trace that it belongs to.
    let span = replies.iter().map(|reply| &reply.span).find(|span| !span.is_disabled());
    let span = span.cloned().unwrap_or_else(Span::none);
    let results = session.app.chat.post(&room, &drafts).instrument(span).await;
    let mut stored = 0;
    for (reply, result) in replies.into_iter().zip(results) {
        match result {
            Ok(receipt) => {
                stored += u32::from(!receipt.dup);
                reply.stored(&session.app, socket, &receipt).await;
            }
            Err(error) => {
                note_doubt(session, &room, &error);
                fail(session, socket, reply, &error).await;
            }
        }
    }
    if stored > 0 {
        *session.app.message_counts.entry(session.identity().user).or_default() += stored;
    }
}

/// `editMessage`.
pub async fn edit(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<Receipt, ChatError> {
    refresh_rooms_behind(session, socket);
    let identity = session.identity();
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    let draft = compose_edit(&payload, &identity, &room, session.app.chat.max_text())?;
    change(session, event, &identity, &room, draft).await
}

/// `deleteMessage`.
pub async fn delete(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<Receipt, ChatError> {
    refresh_rooms_behind(session, socket);
    let identity = session.identity();
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    let draft = compose_delete(&payload, &identity, &room)?;
    change(session, event, &identity, &room, draft).await
}

async fn change(
    session: &Session,
    event: &Event,
    identity: &Identity,
    room: &RoomId,
    mut draft: Draft,
) -> Result<Receipt, ChatError> {
    draft.trace = trace::context_of(&event.reply.span, "");
    require_joined(session, room)?;
    require_order(session, room, event)?;
    let changed = session.app.chat.change(identity, room, draft).await;
    if let Err(error) = &changed {
        note_doubt(session, room, error);
    }
    changed
}

/// What waited behind something of which nobody knows whether it was stored is not sent: it might come before it.
fn require_order(session: &Session, room: &RoomId, event: &Event) -> Result<(), ChatError> {
    if session.inbox.is_in_doubt(room, event.number) {
        return Err(ChatError::Uncertain);
    }
    Ok(())
}

fn note_doubt(session: &Session, room: &RoomId, error: &ChatError) {
    if *error == ChatError::Uncertain {
        session.inbox.note_doubt(room);
    }
}

/// Who has joined was checked then, and is evicted when the room list says so later.
fn require_joined(session: &Session, room: &RoomId) -> Result<(), ChatError> {
    if session.has_joined(room) {
        Ok(())
    } else if session.belongs_to(room) {
        Err(ChatError::NotJoined)
    } else if !session.rooms.was_fetched() {
        // The room service was away when the socket connected: that is no fault of the client's.
        Err(ChatError::Unavailable("the room service"))
    } else {
        Err(ChatError::NotMember)
    }
}
