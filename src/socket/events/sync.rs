//! `syncRooms` and `loadMoreMessages_for_room`.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::Event;
use crate::chat::payload::Payload;
use crate::chat::{ChatError, SYNC_MAX_ROOMS, SyncRequest};
use crate::config::Rule;
use crate::model::{Epoch, Identity, RoomId};
use crate::socket::protocol::{PreviousInfo, SyncedMessages, event};
use crate::socket::{Session, Socket};

/// Rooms of one request that are checked one by one, because the user's list does not know them.
const UNKNOWN_MAX: usize = 10;

/// `syncRooms`: few rooms are answered as `syncRoomsResponse`, many in one batch as `updatedRooms`.
pub async fn sync_rooms(session: &Arc<Session>, socket: &Socket, event: &Event) -> Result<(), ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let identity = session.identity();
    if payload.raw("platformid").is_none() && payload.raw("platformId").is_none() {
        super::block_and_cut(session, socket, Rule::SyncWithoutUser).await;
        return Err(ChatError::BadPayload("`platformid` is missing".into()));
    }
    crate::chat::check_identity(&payload, &identity)?;
    let wanted = requests(&payload)?;
    let batch = wanted.len() > app.sync_parallel_max;
    let (allowed, refused) = authorise(session, socket, &identity, wanted).await;
    let synced = app.chat.sync(&identity, allowed, batch).await;
    let mut answer: Vec<SyncedMessages<'_>> = Vec::with_capacity(synced.len() + refused.len());
    let mut infos = Vec::with_capacity(synced.len());
    for room in &synced {
        let (messages, code) = match &room.messages {
            Ok(messages) => (messages.as_slice(), None),
            Err(error) => (&[][..], Some(error.code())),
        };
        answer.push(SyncedMessages {
            room_id: &room.room,
            messages,
            code,
        });
        infos.push(PreviousInfo {
            room_id: &room.room,
            epoch: room.epoch.as_str(),
            top_seq: room.top,
            recovered: room.recovered && code.is_none(),
            more: room.more,
            gpt: Vec::new(),
        });
    }
    answer.extend(refused.iter().map(|(room, error)| SyncedMessages {
        room_id: room,
        messages: &[],
        code: Some(error.code()),
    }));
    let name = if batch {
        event::UPDATED_ROOMS
    } else {
        event::SYNC_RESPONSE
    };
    if session.proto2 {
        app.deliver.emit(socket, name, &(answer, infos)).await;
    } else {
        app.deliver.emit(socket, name, answer.as_slice()).await;
    }
    // The rooms that could be answered were; the client learns of the others by their code and by this, the worst first.
    let worst = refused
        .iter()
        .position(|(_, error)| *error == ChatError::Forged)
        .unwrap_or(0);
    match refused.into_iter().nth(worst) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Splits the rooms into those the user belongs to and the others. A list that is old is fetched once for all of them; of
/// the rooms it does not know, only a few are asked for one by one, because they may be invented.
async fn authorise(
    session: &Arc<Session>,
    socket: &Socket,
    identity: &Identity,
    wanted: Vec<SyncRequest>,
) -> (Vec<SyncRequest>, Vec<(RoomId, ChatError)>) {
    let chat = &session.app.chat;
    if session.rooms.is_stale() {
        let fetched = chat.fetch_rooms(identity, &session.rooms).await;
        super::lifecycle::rooms_fetched(session, socket, fetched).await;
    }
    let (mut allowed, mut refused, mut checked) = (Vec::with_capacity(wanted.len()), Vec::new(), 0);
    for request in wanted {
        let known = !session.rooms.is_stale() && session.rooms.has(&request.room);
        let result = if known {
            Ok(())
        } else if checked < UNKNOWN_MAX {
            checked += 1;
            chat.ensure_member(identity, &session.rooms, &request.room).await
        } else if session.rooms.was_fetched() {
            Err(ChatError::NotMember)
        } else {
            Err(ChatError::Unavailable("the room service"))
        };
        match result {
            Ok(()) => allowed.push(request),
            Err(error) => refused.push((request.room, error)),
        }
    }
    (allowed, refused)
}

pub(super) fn requests(payload: &Payload<'_>) -> Result<Vec<SyncRequest>, ChatError> {
    let bad = || ChatError::BadPayload("`rooms` must be a list of objects".into());
    let raw = payload.raw("rooms").ok_or_else(bad)?;
    let rooms: Vec<&RawValue> = serde_json::from_str(raw.get()).map_err(|_| bad())?;
    if rooms.len() > SYNC_MAX_ROOMS {
        return Err(ChatError::TooManyRooms(SYNC_MAX_ROOMS));
    }
    let mut seen = std::collections::HashSet::new();
    let mut requests = Vec::with_capacity(rooms.len());
    for room in rooms {
        let entry = Payload::parse(room)?;
        let cursor = match entry.event_cursor()? {
            Some(cursor) => Some(cursor),
            None => entry.cursor("timestamp")?,
        };
        let room = entry.room("roomId")?;
        // A room named twice is answered once.
        if seen.insert(room.clone()) {
            requests.push(SyncRequest { room, cursor });
        }
    }
    Ok(requests)
}

/// `loadMoreMessages_for_room`: a page of older or newer messages, or raw events by number.
pub async fn load_more(session: &Arc<Session>, event: &Event) -> Result<Vec<Box<RawValue>>, ChatError> {
    let app = &session.app;
    let payload = event.payload()?;
    let room = payload.room("roomId").or_else(|_| payload.room("roomID"))?;
    let identity = session.identity();
    crate::chat::check_identity(&payload, &identity)?;
    app.chat.ensure_member(&identity, &session.rooms, &room).await?;
    let kind = payload.text("type")?;
    if kind.as_deref() == Some("gap") {
        let missing = |name: &str| ChatError::BadPayload(format!("`{name}` is missing"));
        let from = payload.number("from")?.ok_or_else(|| missing("from"))?;
        let to = payload.number("to")?.ok_or_else(|| missing("to"))?;
        let epoch = payload.text("epoch")?.map(|epoch| Epoch::from(&*epoch));
        return app.chat.gap(&room, epoch, from, to).await;
    }
    let cursor = match payload.cursor("timestamp")? {
        Some(cursor) => Some(cursor),
        None => payload.cursor("oldmessage")?,
    };
    app.chat
        .more(&room, cursor.as_ref(), kind.as_deref() == Some("new"))
        .await
}
