//! Acts of the control stream, carried out on the sockets of this node; local and remote acts take the same way.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::frame::Packet;
use super::inbox::{Inbox, Job};
use super::protocol::{SecurityNotice, event};
use super::{App, Live, Session, Socket};
use crate::model::{RoomId, Scope};
use crate::redis::Act;

/// How long a notice may take to leave before the transport is closed.
const NOTICE_GRACE: Duration = Duration::from_millis(250);

/// Follows the control stream from `position` on, until stopped.
pub async fn follow_control(
    app: Arc<App>,
    position: String,
    news: tokio::sync::watch::Receiver<u64>,
    stop: CancellationToken,
) {
    let acts = app.redis.follow_acts(position, news, |act| carry_out(&app, &act));
    let _stopped = stop.run_until_cancelled(acts).await;
}

fn carry_out(app: &App, act: &Act) {
    let live = app.live();
    match act {
        Act::Ban { ban } => {
            app.guard.bans().insert(ban.clone());
            let left = app.guard.bans().left(ban);
            for Live { session, socket } in live.iter().filter(|live| is_in_scope(app, &live.session, &ban.scope)) {
                cut(session, socket, ban.code(), Some(left));
            }
        }
        Act::Unban { scope } => app.guard.bans().remove(scope),
        Act::Cut { scope, code } => {
            for Live { session, socket } in live.iter().filter(|live| is_in_scope(app, &live.session, scope)) {
                cut(session, socket, code, None);
            }
        }
        Act::Kick { socket: sid, code } => {
            for Live { session, socket } in live.iter().filter(|live| live.session.sid.as_str() == sid) {
                cut(session, socket, code, None);
            }
        }
        // Workers do.
        Act::CancelReply { .. } => {}
        Act::Evict { user, room } => {
            app.chat.forget_checks(room);
            for live in live.iter().filter(|live| live.session.identity().user == *user) {
                evict(live, room, false);
            }
        }
        Act::RoomGone { room } => {
            app.chat.forget_checks(room);
            // Also those that are about to join: the inbox puts this after what they are doing.
            for live in live
                .iter()
                .filter(|live| live.session.belongs_to(room) || live.session.rooms.has(room))
            {
                evict(live, room, true);
            }
        }
    }
}

fn is_in_scope(app: &App, session: &Session, scope: &Scope) -> bool {
    (scope.has_address(session.address.ip) && !app.guard.is_exempt(session.address))
        || scope.has_identity(&session.identity())
}

fn evict(live: &Live, room: &RoomId, gone: bool) {
    // Evictions are never refused by a full inbox.
    let _queued = Inbox::push(
        &live.session,
        &live.socket,
        Job::Evict {
            room: room.clone(),
            gone,
        },
    );
}

/// Tells a socket why, and closes its transport as soon as that had the time to leave.
///
/// A socket that is being cut already is left alone: the first reason is the one to tell.
pub fn cut(session: &Arc<Session>, socket: &Socket, code: &str, blocked_for: Option<Duration>) {
    if !session.note_cut(code) {
        return;
    }
    // An end that is nobody's fault must not look like a wave of blocks.
    let reason = if code == "auth_expired" {
        "auth_expired"
    } else {
        "blocked"
    };
    session.app.metrics.cuts_total.inc([reason]);
    if reason == "blocked" {
        session.inbox.drop_events();
    }
    let message = explain(code);
    // A full queue only means that the reason stays unknown.
    let notice = SecurityNotice {
        code,
        message,
        blocked_for_ms: blocked_for.and_then(|left| u64::try_from(left.as_millis()).ok()),
    };
    let deliver = &session.app.deliver;
    deliver.send_if_room(socket, &Packet::Event(event::SECURITY_NOTICE, &notice));
    let (app, socket) = (session.app.clone(), socket.clone());
    app.tracker.clone().spawn(async move {
        tokio::time::sleep(NOTICE_GRACE).await;
        app.transports.kill(socket.id);
        // A polling client has no open connection to close: its session ends here, its next poll is refused.
        if socket.transport_type() == socketioxide::TransportType::Polling {
            let _gone = socket.disconnect();
        }
    });
}

fn explain(code: &str) -> &'static str {
    match code {
        "token_requests" => "Too many token requests came from your network. Try again in a minute.",
        "forged_room" => "A request named a room that does not exist in this form.",
        "user_refused" => "The room service does not know this user.",
        "sync_without_user" => "A request did not say who it is for.",
        "revoked" => "This login was ended.",
        "auth_expired" => "The access token of this connection has expired.",
        "strikes" => "Too many requests were refused.",
        "flood" => "Far too many requests came from this connection.",
        "username" => "This login was used under another name.",
        "banned" => "An operator has banned you or your network.",
        "kicked" => "An operator closed this connection.",
        _ => "This connection was closed for security reasons.",
    }
}
