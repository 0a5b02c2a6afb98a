//! `join`, `leave` and `deleteroom`.

use std::sync::Arc;
use std::time::Duration;

use super::Event;
use crate::chat::payload::Payload;
use crate::chat::{ChatError, Previous, Wanted};
use crate::model::{Cursor, RoomId, UserId};
use crate::redis::{Act, RedisError};
use crate::socket::protocol::{PartOfReply, PreviousInfo, RoomUpdate, event};
use crate::socket::{App, Session, Socket};
use crate::upstream::{Participant, RoomInfo};

/// How often, and for how long, the end of a membership is announced again: an outage of ten minutes is survived.
const DELETE_RETRY: Duration = Duration::from_secs(1);
const DELETE_TRIES: u32 = 600;

/// `join`: checks, subscribes, answers with what was missed, and goes on live from exactly there.
pub async fn join(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<(), ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let room = payload.room("roomID")?;
    super::token::require_valid(session, socket).await?;
    let identity = session.identity();
    crate::chat::check_identity(&payload, &identity)?;
    let (cursor, wanted) = cursor(session, &payload)?;
    let checked = app
        .chat
        .check_member(&identity, &session.rooms, &room, payload.raw("createdAt"))
        .await;
    if matches!(checked, Err(ChatError::NotMember)) && session.belongs_to(&room) {
        super::lifecycle::forget_room(session, socket, &room).await;
    }
    let info = checked?;

    // A second join begins anew: live events between its page and its membership would come twice.
    app.deliver.remove_member(&room, socket.id);
    let rejoins = session.note_left(&room, false);
    let joined = enter(session, socket, &room, cursor.as_ref(), wanted).await;
    match &joined {
        Ok(()) => announce_info(session, &room, &info).await,
        Err(_) => {
            app.deliver.remove_member(&room, socket.id);
            if session.note_left(&room, false) || rejoins {
                super::lifecycle::leave_in_redis(session, &room, false).await;
            }
        }
    }
    joined
}

/// Subscribes, answers with what was missed, and goes on live from exactly there.
async fn enter(
    session: &Arc<Session>,
    socket: &Socket,
    room: &RoomId,
    cursor: Option<&Cursor>,
    wanted: Wanted,
) -> Result<(), ChatError> {
    let app = &session.app;
    // Subscribed before the log is read: what comes between the two is in the log, what comes later is on the bus.
    let interest = app.deliver.enter(room).await?;
    // Written while the log is read; where either fails, `join` takes it back.
    session.note_joined(room);
    let (node, traces) = (app.node.get(), session.traces());
    let (previous, written) = tokio::join!(
        app.chat.previous(room, cursor, wanted),
        app.redis.join_room(&node, &traces, room)
    );
    let Previous {
        messages,
        changes,
        top,
        epoch,
        recovered,
        more,
        page,
    } = previous?;
    written?;
    app.deliver.add_belonging(std::slice::from_ref(room), socket);
    let member = app.deliver.add_member(&interest, session, socket, top, &page);
    if session.proto2 {
        let info = PreviousInfo {
            room_id: room,
            epoch: epoch.as_str(),
            top_seq: top.seq,
            recovered,
            more,
            gpt: parts_of_replies(app, room).await,
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
    app.deliver.catch_up(&app.chat, &interest, member).await;
    Ok(())
}

/// What is being written in the room. Read after the subscription: a piece that comes meanwhile comes twice, none is missed.
async fn parts_of_replies(app: &App, room: &RoomId) -> Vec<PartOfReply> {
    // Best effort, as the pieces are.
    let parts = app.redis.parts(room).await.unwrap_or_default();
    let part = |(id, generation, index, text): (String, u64, Option<u64>, String)| PartOfReply {
        id,
        generation,
        index: index.map_or(-1, |index| i64::try_from(index).unwrap_or(i64::MAX)),
        text,
    };
    parts.into_iter().map(part).collect()
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
    super::lifecycle::leave_in_redis(session, &room, false).await;
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
    // This socket at once, the others by the act.
    super::lifecycle::forget_room(session, socket, &room).await;
    // It is done at the room service, so it must be done here too, whenever Redis is back.
    if let Err(error) = finish_delete(app, &identity.user, &room, deleted).await {
        tracing::warn!(%room, %error, "the room is left, and Redis does not know yet");
        let (app, user, room) = (app.clone(), identity.user.clone(), room.clone());
        app.tracker.clone().spawn(async move {
            for _ in 0..DELETE_TRIES {
                tokio::time::sleep(DELETE_RETRY).await;
                if finish_delete(&app, &user, &room, deleted).await.is_ok() {
                    return;
                }
            }
            tracing::error!(%room, %user, "leaving the room was not announced");
        });
    }
    if deleted {
        announce(session, &room, &update_of(&room, &[])).await;
    } else if let Ok(info) = app.chat.check_room(&room, None).await {
        announce_info(session, &room, &info).await;
    }
    Ok(())
}

/// Tells every node, and removes what a deleted room kept; repeating it is harmless.
async fn finish_delete(app: &App, user: &UserId, room: &RoomId, deleted: bool) -> Result<(), RedisError> {
    if !deleted {
        return app
            .redis
            .publish_act(&Act::Evict {
                user: user.clone(),
                room: room.clone(),
            })
            .await;
    }
    app.redis.delete_room(room).await?;
    app.redis.publish_act(&Act::RoomGone { room: room.clone() }).await?;
    app.redis.delete_room_sets(room).await
}

/// Tells everybody who belongs to the room, wherever they are, who else does; best effort.
async fn announce_info(session: &Session, room: &RoomId, info: &RoomInfo) {
    let json = info.update.get_or_init(|| update_of(room, &info.participants));
    announce(session, room, json).await;
}

fn update_of(room: &RoomId, participants: &[Participant]) -> String {
    // Texts and a number: there is nothing in it that could fail.
    serde_json::to_string(&RoomUpdate::new(room, participants)).unwrap_or_default()
}

async fn announce(session: &Session, room: &RoomId, json: &str) {
    if let Err(error) = session.app.redis.publish_update(room, json).await {
        tracing::debug!(%error, "roomUpdate not published");
    }
}
