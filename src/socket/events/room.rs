//! `join`, `leave` and `deleteroom`.

use std::sync::Arc;

use super::Event;
use crate::chat::payload::Payload;
use crate::chat::{ChatError, Previous, Wanted};
use crate::model::{Cursor, RoomId};
use crate::redis::Act;
use crate::socket::protocol::{PreviousInfo, RoomUpdate, event};
use crate::socket::{Session, Socket};

/// `join`: checks, subscribes, answers with what was missed, and goes on live from exactly there.
pub async fn join(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<(), ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    super::token::require_valid(session, socket).await?;
    let identity = session.identity();
    crate::chat::check_identity(&payload, &identity)?;
    let (cursor, wanted) = cursor(session, &payload)?;
    let info = app
        .chat
        .check_member(&identity, &session.rooms, &room, payload.raw("createdAt"))
        .await?;

    // Subscribed before the log is read: what comes between the two is in the log, what comes later is on the bus.
    let interest = app.deliver.enter(&room).await?;
    let previous = app.chat.previous(&room, cursor.as_ref(), wanted).await?;
    session.note_joined(&room);
    if let Err(error) = app.redis.register_socket(&app.node.get(), &session.owned()).await {
        session.note_left(&room, false);
        return Err(error.into());
    }
    app.deliver.add_belonging(std::slice::from_ref(&room), socket);
    let Previous {
        messages,
        changes,
        top,
        epoch,
        recovered,
        more,
        page,
    } = previous;
    app.deliver.add_member(&interest, session, socket, top, &page);
    if session.proto2 {
        let info = PreviousInfo {
            room_id: &room,
            epoch: epoch.as_str(),
            top_seq: top.seq,
            recovered,
            more,
        };
        app.deliver
            .emit(socket, event::PREVIOUS_MESSAGES, &(messages.as_slice(), info))
            .await;
    } else {
        app.deliver
            .emit(socket, event::PREVIOUS_MESSAGES, messages.as_slice())
            .await;
    }
    for change in &changes {
        app.deliver.emit(socket, change.kind.event_name(), &*change.json).await;
    }
    app.deliver.catch_up(&app.chat, &interest, socket, top, &page).await;
    announce(session, &room, &RoomUpdate::new(&room, &info.participants)).await;
    Ok(())
}

/// Where the client stands, and in which form it wants what follows.
fn cursor(session: &Session, payload: &Payload<'_>) -> Result<(Option<Cursor>, Wanted), ChatError> {
    if session.proto2
        && let Some(cursor) = payload.event_cursor()?
    {
        return Ok((Some(cursor), Wanted::Raw));
    }
    Ok((
        payload.cursor("lastmessage")?,
        if session.proto2 { Wanted::Raw } else { Wanted::Folded },
    ))
}

/// `leave`: the live delivery ends; the user stays a participant.
pub async fn leave(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<(), ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    crate::chat::check_identity(&payload, &session.identity())?;
    if !session.note_left(&room, false) {
        return if session.belongs_to(&room) {
            Err(ChatError::NotJoined)
        } else {
            Err(ChatError::NotMember)
        };
    }
    app.deliver.remove_member(&room, socket.id);
    app.redis
        .leave_rooms(&app.node.get(), &session.owned(), std::slice::from_ref(&room), false)
        .await?;
    Ok(())
}

/// `deleteroom`: the caller leaves for good, on every device; the last one takes the room along.
pub async fn delete(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<(), ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    let identity = session.identity();
    crate::chat::check_identity(&payload, &identity)?;
    app.chat
        .check_member(&identity, &session.rooms, &room, payload.raw("createdAt"))
        .await?;
    let deleted = app.chat.leave_for_good(&identity, &room).await?;
    if deleted {
        app.redis.delete_room(&room).await?;
        app.redis.publish_act(&Act::RoomGone { room: room.clone() }).await?;
    } else {
        app.redis
            .publish_act(&Act::Evict {
                user: identity.user.clone(),
                room: room.clone(),
            })
            .await?;
    }
    // This socket at once, the others by the act.
    super::lifecycle::forget_room(session, socket, &room).await;
    if deleted {
        app.redis.delete_room_sets(&room).await?;
        announce(session, &room, &RoomUpdate::new(&room, &[])).await;
    } else if let Ok(info) = app.chat.check_room(&room, None).await {
        announce(session, &room, &RoomUpdate::new(&room, &info.participants)).await;
    }
    Ok(())
}

/// Tells everybody who belongs to the room, wherever they are; best effort.
async fn announce(session: &Session, room: &RoomId, update: &RoomUpdate<'_>) {
    let Ok(json) = serde_json::to_string(update) else {
        return;
    };
    if let Err(error) = session.app.redis.publish_update(room, &json).await {
        tracing::debug!(%error, "roomUpdate not published");
    }
}
