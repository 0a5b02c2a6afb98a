//! The handshake: who is connecting, and whether they may.
//!
//! socketioxide queues the CONNECT packet and then calls the connect handler, while another task already reads what the
//! client answers: an event that arrives in between finds no handler and is lost. So the handlers are registered by the
//! middleware, before the client can know that it is connected, and events wait in the inbox until the connect handler
//! opens it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use socketioxide::extract::{HttpExtension, TryData};
use socketioxide::handler::{ConnectHandler, DisconnectHandler, FromConnectParts, MessageHandler};
use socketioxide::socket::DisconnectReason;
use socketioxide_core::Value;

use super::events::refuse_overflow;
use super::inbox::{Inbox, Incoming, Job};
use super::protocol::{TokenRefresh, event};
use super::session::{ClientInfo, Handshake, Session, Tokens};
use super::{App, Live, Socket};
use crate::auth::{RefreshError, VerifyError};
use crate::model::{Identity, Scope};
use crate::redis::Adapter;

type Refused = Box<dyn fmt::Display + Send>;

/// How long everything a handshake asks for may take together; the library would wait 45 s.
const HANDSHAKE_MAX: Duration = Duration::from_secs(8);
/// When to come back after an outage of the auth service.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How long a refused client may take to read the reason.
const REFUSED_GRACE: Duration = Duration::from_secs(1);

/// The `auth` payload of CONNECT. Types are lenient here, so that a wrong one is told from a missing one.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthPayload {
    access_token: serde_json::Value,
    refresh_token: serde_json::Value,
    user_agent: serde_json::Value,
    username: serde_json::Value,
    proto: serde_json::Value,
}

/// Why a handshake is refused: the text for old clients and the code for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// A block that has just begun, or a login that was ended.
    Banned,
    /// A block of before, and how long it still lasts.
    StillBanned(Duration),
    InvalidRefreshToken,
    RefreshFailed,
    Unavailable,
}

impl Refusal {
    fn text(self) -> &'static str {
        match self {
            Self::Banned | Self::StillBanned(_) => "you're banned",
            Self::InvalidRefreshToken => "Invalid refresh token",
            Self::RefreshFailed => "Token refresh failed",
            Self::Unavailable => "auth_unavailable",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "auth_unavailable",
            Self::Banned | Self::StillBanned(_) | Self::InvalidRefreshToken | Self::RefreshFailed => "blocked",
        }
    }

    fn retry_after(self, block: Duration) -> Duration {
        match self {
            Self::Unavailable => RETRY_AFTER,
            Self::StillBanned(left) => left,
            Self::Banned | Self::InvalidRefreshToken | Self::RefreshFailed => block,
        }
    }

    /// The one string that the library can send in `connect_error`.
    fn message(self, proto2: bool, block: Duration) -> String {
        if !proto2 {
            return self.text().to_owned();
        }
        let retry_after_ms = u64::try_from(self.retry_after(block).as_millis()).unwrap_or(u64::MAX);
        serde_json::json!({"code": self.code(), "message": self.text(), "retryAfterMs": retry_after_ms}).to_string()
    }
}

/// The handshake check, for `ConnectHandler::with`.
#[derive(Clone)]
pub struct ConnectMiddleware(pub Arc<App>);

impl socketioxide::handler::ConnectMiddleware<Adapter, Self> for ConnectMiddleware {
    async fn call<'a>(&'a self, socket: Socket, auth: &'a Option<Value>) -> Result<(), Refused> {
        let app = &self.0;
        let Ok(HttpExtension(client)) = HttpExtension::<ClientInfo>::from_connect_parts(&socket, auth) else {
            tracing::error!("a handshake without its connection");
            return Err(Box::new(Refusal::Unavailable.text()));
        };
        let payload = match TryData::<AuthPayload>::from_connect_parts(&socket, auth) {
            Ok(TryData(Ok(payload))) => payload,
            Ok(TryData(Err(_))) | Err(_) => AuthPayload::default(),
        };
        let proto2 = payload.proto == 2;
        if client.websocket {
            app.transports.claim(socket.id, client.conn.clone());
        }
        let checked = if app.sockets.contains_key(&socket.id) || app.transports.is_killed(socket.id) {
            // One engine session carries one socket, from its handshake to its end.
            Ok(Err(Refusal::Unavailable))
        } else {
            tokio::time::timeout(HANDSHAKE_MAX, check(app, &client, payload, proto2)).await
        };
        match checked.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Verified { handshake, refreshed }) => {
                let session = Arc::new(Session::new(app.clone(), socket.id, handshake));
                socket.on_fallback(Inlet(session.clone()));
                socket.on_disconnect(Outlet(session.clone()));
                socket.extensions.insert(Arc::new(Admitted { session, refreshed }));
                Ok(())
            }
            Err(refusal) => {
                app.metrics.handshakes_total.inc([refusal.code()]);
                close_refused(app, &socket);
                Err(Box::new(refusal.message(proto2, app.guard.block_duration())))
            }
        }
    }
}

/// A verified handshake and the new tokens to tell.
struct Verified {
    handshake: Handshake,
    refreshed: Option<(String, Option<String>)>,
}

/// What the middleware hands to the connect handler.
struct Admitted {
    session: Arc<Session>,
    refreshed: Option<(String, Option<String>)>,
}

/// Every row of the contract's handshake table.
async fn check(app: &Arc<App>, client: &ClientInfo, payload: AuthPayload, proto2: bool) -> Result<Verified, Refusal> {
    // The connection may be older than the block, and a session may be tried again and again.
    let block = app.guard.blocked_address(client.address).await;
    if let Some(block) = block.map_err(|_| Refusal::Unavailable)? {
        return Err(Refusal::StillBanned(block.left));
    }
    let text = |value: &serde_json::Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let fields = (
        text(&payload.access_token),
        text(&payload.refresh_token),
        text(&payload.user_agent),
        text(&payload.username),
    );
    let (Some(access), Some(refresh), Some(user_agent), Some(username)) = fields else {
        return banned(app, client, "missing_field").await;
    };
    if !app.app_match.matches(&user_agent) {
        return banned(app, client, "user_agent").await;
    }
    let is_user = |identity: &Identity| identity.username.to_lowercase() == username.to_lowercase();
    let (identity, refreshed) = match app.auth.verify(&access).await {
        Ok(identity) if is_user(&identity) => (identity, None),
        Ok(identity) => {
            // The token was verified: its session is what is misused, not the address.
            app.guard.block(&Scope::of(&identity), "username").await;
            return Err(Refusal::Banned);
        }
        Err(VerifyError::Unavailable(reason)) => {
            tracing::warn!(reason, "handshake refused: tokens cannot be verified");
            return Err(Refusal::Unavailable);
        }
        Err(VerifyError::Invalid(_)) => match app.auth.refresh(&refresh, proto2).await {
            Ok(refreshed) if is_user(&refreshed.identity) => (
                refreshed.identity,
                Some((refreshed.access_token, refreshed.refresh_token)),
            ),
            Ok(_) => {
                app.guard.block_address(client.address, "refresh_of_another").await;
                return Err(Refusal::InvalidRefreshToken);
            }
            Err(RefreshError::Refused) => {
                app.guard.block_address(client.address, "refresh_refused").await;
                return Err(Refusal::RefreshFailed);
            }
            Err(RefreshError::Unavailable(reason)) => {
                tracing::warn!(reason, "handshake refused: tokens cannot be exchanged");
                return Err(Refusal::Unavailable);
            }
        },
    };
    let blocked = app
        .guard
        .blocked_identity(&identity)
        .await
        .map_err(|_| Refusal::Unavailable)?;
    let revoked = app
        .guard
        .is_revoked(&identity)
        .await
        .map_err(|_| Refusal::Unavailable)?;
    if let Some(block) = blocked {
        return Err(Refusal::StillBanned(block.left));
    }
    if revoked {
        return Err(Refusal::Banned);
    }
    let rotated = refreshed.as_ref().and_then(|(_, rotated)| rotated.clone());
    let tokens = Tokens {
        refresh: rotated.unwrap_or(refresh),
    };
    let handshake = Handshake {
        identity,
        tokens,
        client: client.clone(),
        proto2,
        user_agent,
    };
    Ok(Verified { handshake, refreshed })
}

async fn banned(app: &App, client: &ClientInfo, reason: &'static str) -> Result<Verified, Refusal> {
    app.guard.block_address(client.address, reason).await;
    Err(Refusal::Banned)
}

/// A refused client goes by itself; one that does not is closed, so that it holds no connection.
fn close_refused(app: &Arc<App>, socket: &Socket) {
    let (app, sid) = (app.clone(), socket.id);
    app.tracker.clone().spawn(async move {
        tokio::time::sleep(REFUSED_GRACE).await;
        // Closed, not forgotten: the engine's session may live on, and must not be used for another try.
        app.transports.kill(sid);
    });
}

/// The connect handler: the client is told, its events may begin.
#[derive(Clone)]
pub struct Connected(pub Arc<App>);

impl ConnectHandler<Adapter, Self> for Connected {
    fn call(&self, socket: Socket, _auth: Option<Value>) {
        let app = &self.0;
        let Some(admitted) = socket.extensions.remove::<Arc<Admitted>>() else {
            return;
        };
        let Admitted { session, refreshed } = &*admitted;
        app.metrics
            .handshakes_total
            .inc([if refreshed.is_some() { "refreshed" } else { "connected" }]);
        let user = session.identity().user;
        // Local: the adapter finds the socket here when another node emits to its user.
        socket.join(format!("user:{user}"));
        app.sockets.insert(
            socket.id,
            Live {
                session: session.clone(),
                socket: socket.clone(),
            },
        );
        app.metrics.connections.inc();
        if let Some((access_token, refresh_token)) = refreshed {
            let answer = TokenRefresh {
                access_token,
                refresh_token: refresh_token.as_deref(),
            };
            app.deliver.emit_now(&socket, event::TOKEN_REFRESH, &answer);
        }
        Inbox::open(session, &socket);
    }
}

/// Takes every event of a socket, in the order read, without spawning anything.
struct Inlet(Arc<Session>);

impl MessageHandler<Adapter, Self> for Inlet {
    fn call(&self, socket: Socket, packet: Value, ack_id: Option<i64>) {
        let incoming = Incoming { packet, ack_id };
        if let Err(refused) = Inbox::push(&self.0, &socket, Job::Event(incoming)) {
            refuse_overflow(&self.0, &socket, *refused);
        }
    }
}

/// Ends a socket after everything it sent.
struct Outlet(Arc<Session>);

impl DisconnectHandler<Adapter, Self> for Outlet {
    fn call_with_defer(&self, socket: Socket, reason: DisconnectReason, defer: fn(Socket)) {
        let _queued = Inbox::push(&self.0, &socket, Job::Closed(reason));
        defer(socket);
    }
}

#[cfg(test)]
mod fuzz;
