//! The beginning and the end of a socket.

use std::sync::Arc;

use socketioxide::socket::DisconnectReason;

use crate::chat::RoomListError;
use crate::config::Rule;
use crate::model::RoomId;
use crate::socket::inbox::{Inbox, Job};
use crate::socket::{Live, Session, Socket};

/// Fetches the user's rooms and writes the socket down; events wait meanwhile.
pub async fn connected(session: &Arc<Session>, socket: &Socket) {
    // A block or a revocation that came while the handshake was checked found no socket to cut.
    let (guard, identity) = (&session.app.guard, session.identity());
    if let Some(ban) = guard.ban_of(session.address, &identity) {
        return crate::socket::control::cut(session, socket, ban.code(), Some(guard.bans().left(&ban)));
    }
    // Before the list: what has gone from it is told once, and a socket that is cut would keep it from the user's others.
    if guard.is_revoked(&identity).await.unwrap_or(false) {
        return crate::socket::control::cut(session, socket, "revoked", None);
    }
    let fetched = session.app.chat.fetch_rooms(&identity, &session.rooms).await;
    let entry = serde_json::json!({
        "time": session.connected_ms,
        "event": "connect",
        "socket": session.sid,
        "ip": session.address.ip,
        "userAgent": session.user_agent,
        "node": *session.app.node.get(),
    })
    .to_string();
    let ((), recorded) = tokio::join!(
        rooms_fetched(session, socket, fetched),
        session.app.redis.record_connection(&identity.user, &entry)
    );
    if let Err(error) = recorded {
        tracing::debug!(%error, "connection history not written");
    }
}

/// Brings what is written in Redis in line with the room list; `fetched` holds the rooms that are no longer in it.
pub async fn rooms_fetched(session: &Arc<Session>, socket: &Socket, fetched: Result<Vec<RoomId>, RoomListError>) {
    let app = &session.app;
    match fetched {
        Ok(gone) => {
            for room in &gone {
                forget_room(session, socket, room).await;
            }
            evict_other_devices(session, &gone);
        }
        Err(RoomListError::Refused) => return super::block_and_cut(session, socket, Rule::UserRefused).await,
        // The socket stays; the node's sweep tries again.
        Err(RoomListError::Unavailable) => {}
    }
    let rooms = session.rooms.rooms();
    session.note_belongs(rooms.iter().cloned());
    app.deliver.add_belonging(&rooms, socket);
    register(session).await;
}

/// The list is shared by the user's sockets here, and only one of them hears what has gone from it.
fn evict_other_devices(session: &Session, gone: &[RoomId]) {
    if gone.is_empty() {
        return;
    }
    let user = session.identity().user;
    for Live { session: other, socket } in session.app.live() {
        if other.sid != session.sid && other.identity().user == user {
            for room in gone {
                let _queued = Inbox::push(
                    &other,
                    &socket,
                    Job::Evict {
                        room: room.clone(),
                        gone: false,
                    },
                );
            }
        }
    }
}

/// Writes the socket with all its rooms, also without any: the node's hash must know every socket it serves. What
/// cannot be written now is tried again by the node's upkeep.
pub async fn register(session: &Session) {
    let app = &session.app;
    let written = app
        .redis
        .register_socket(&app.node.get(), &session.owned(), &session.traces())
        .await;
    if let Err(error) = &written {
        tracing::warn!(%error, "membership not written yet");
    }
    session.set_unregistered(written.is_err());
}

/// Fetches the list without holding up the socket's events; what follows from it takes its place among them.
pub fn refresh_rooms_behind(session: &Arc<Session>, socket: &Socket) {
    if !session.rooms.is_stale() || !session.begin_list_refresh() {
        return;
    }
    let (session, socket) = (session.clone(), socket.clone());
    session.app.tracker.clone().spawn(async move {
        let fetched = session.app.chat.fetch_rooms(&session.identity(), &session.rooms).await;
        session.end_list_refresh();
        let _queued = Inbox::push(&session, &socket, Job::RoomsFetched(fetched));
    });
}

/// The user no longer belongs to the room.
pub async fn forget_room(session: &Session, socket: &Socket, room: &RoomId) {
    let app = &session.app;
    session.note_left(room, true);
    session.rooms.remove(room);
    app.deliver.remove_member(room, socket.id);
    app.deliver.remove_belonging(std::slice::from_ref(room), socket.id);
    leave_in_redis(session, room, true).await;
}

/// Removes the socket from a room's sets; what cannot be removed now goes with the socket.
pub async fn leave_in_redis(session: &Session, room: &RoomId, for_good: bool) {
    let user = session.identity().user;
    match session
        .app
        .redis
        .leave_room(&session.sid.to_string(), &user, room, for_good)
        .await
    {
        Ok(()) => session.note_removed(room),
        Err(error) => tracing::warn!(%error, "membership not removed yet"),
    }
}

/// An act of another socket or node: the user left the room for good, or the room is gone.
pub async fn evicted(session: &Arc<Session>, socket: &Socket, room: &RoomId, gone: bool) {
    if session.belongs_to(room) {
        tracing::debug!(%room, gone, sid = %socket.id, "evicted");
        forget_room(session, socket, room).await;
    }
}

/// Removes everything of a socket that is gone.
pub async fn closed(session: &Arc<Session>, socket: &Socket, reason: DisconnectReason) {
    let app = &session.app;
    let owned = session.traces();
    for room in &owned.rooms {
        app.deliver.remove_member(room, socket.id);
    }
    app.deliver.remove_belonging(&owned.rooms, socket.id);
    app.sockets.remove(&socket.id);
    app.transports.remove(socket.id);
    app.metrics.connections.dec();
    if app.crashed.load(std::sync::atomic::Ordering::Acquire) {
        return;
    }
    let reason = session.cut_reason().unwrap_or_else(|| format!("{reason:?}"));
    // Without Redis the entries stay under the node's name; the sweep, or the reaper of another node, removes them.
    if let Err(error) = app.redis.unregister_socket(&app.node.get(), &owned).await {
        tracing::debug!(%error, "membership not removed");
        app.orphans.insert(owned.socket.clone(), owned.clone());
    }
    let entry = serde_json::json!({
        "time": crate::model::unix_ms(),
        "event": "disconnect",
        "socket": session.sid,
        "ip": session.address.ip,
        "userAgent": session.user_agent,
        "node": *app.node.get(),
        "reason": reason,
        "seconds": session.connected_at.elapsed().as_secs(),
    });
    if let Err(error) = app.redis.record_connection(&owned.user, &entry.to_string()).await {
        tracing::debug!(%error, "connection history not written");
    }
}
