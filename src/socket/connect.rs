//! The handshake: who is connecting, and whether they may.
//!
//! socketioxide queues the CONNECT packet and then calls the connect handler, while another task already reads what the
//! client answers: an event that arrives in between finds no handler and is lost. So the handlers are registered by the
//! middleware, before the client can know that it is connected, and events wait in the inbox until the connect handler
//! opens it.

mod refusal;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use socketioxide::extract::{HttpExtension, TryData};
use socketioxide::handler::{ConnectHandler, DisconnectHandler, FromConnectParts, MessageHandler};
use socketioxide::socket::DisconnectReason;
use socketioxide_core::Value;

use self::refusal::{Refusal, admitted};
use super::events;
use super::inbox::{Inbox, Incoming, Job};
use super::protocol::{TokenRefresh, event};
use super::session::{ClientInfo, Handshake, Session, Tokens};
use super::{App, Live, Socket};
use crate::auth::{RefreshError, VerifyError};
use crate::config::Rule;
use crate::guard::Entry;
use crate::model::{ClientAddress, Identity, Scope};
use crate::redis::Adapter;

type Refused = Box<dyn fmt::Display + Send>;

/// How long everything a handshake asks for may take together; the library would wait 45 s.
const HANDSHAKE_MAX: Duration = Duration::from_secs(8);
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
            app.transports.carry(socket.id, &client.conn);
        }
        let (mut leases, timer) = (Vec::new(), app.metrics.handshake_duration_seconds.start_timer());
        let checked = if app.sockets.contains_key(&socket.id) || app.transports.is_killed(socket.id) {
            // One engine session carries one socket, from its handshake to its end.
            Ok(Err(Refusal::Unavailable))
        } else {
            let applicant = Applicant {
                client: &client,
                socket: socket.id.as_str(),
                proto2,
            };
            tokio::time::timeout(HANDSHAKE_MAX, check(app, &applicant, payload, &mut leases)).await
        };
        timer.observe_duration();
        match checked.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(Verified { handshake, refreshed }) => {
                if let Some(place) = &client.place {
                    place.release();
                }
                let session = Arc::new(Session::new(app.clone(), socket.id, handshake));
                socket.on_fallback(Inlet(session.clone()));
                socket.on_disconnect(Outlet(session.clone()));
                socket.extensions.insert(Arc::new(Admitted { session, refreshed }));
                Ok(())
            }
            Err(refusal) => {
                app.metrics.handshakes_total.inc([refusal.code()]);
                close_refused(app, &socket, leases);
                Err(Box::new(refusal.message(proto2)))
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

/// Who wants to connect.
struct Applicant<'a> {
    client: &'a ClientInfo,
    socket: &'a str,
    proto2: bool,
}

/// Every row of the contract's handshake table. `leases` is what a refused one must give back.
async fn check(
    app: &Arc<App>,
    applicant: &Applicant<'_>,
    payload: AuthPayload,
    leases: &mut Vec<(Scope, String)>,
) -> Result<Verified, Refusal> {
    let Applicant { client, socket, proto2 } = *applicant;
    let (guard, address) = (&app.guard, client.address);
    let text = |value: &serde_json::Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let fields = (
        text(&payload.access_token),
        text(&payload.refresh_token),
        text(&payload.user_agent),
        text(&payload.username),
    );
    // Where a token is verified without asking anybody, the address and the user are looked at in one trip. Whatever is
    // wrong with the rest waits for the address all the same: the connection may be older than a block, and a session may
    // be tried again and again.
    let mut verified = None;
    if let (Some(access), Some(refresh), Some(user_agent), Some(username)) = &fields
        && app.auth.verifies_alone()
        && app.app_match.matches(user_agent)
    {
        match app.auth.verify(access).await {
            Ok(identity) if is_of(&identity, username) => {
                let tokens = Tokens {
                    access: None,
                    refresh: refresh.clone(),
                };
                let handshake = handshake(applicant, identity, tokens, user_agent.clone());
                return admit(app, applicant, handshake, Some(address), leases).await;
            }
            other => verified = Some(other),
        }
    }
    leases.extend(guard.leases(address, None, socket));
    admitted(guard.admit_address(address, socket).await?)?;
    let (Some(access), Some(refresh), Some(user_agent), Some(username)) = fields else {
        return Err(Refusal::Banned(guard.block_address(address, Rule::MissingField).await));
    };
    if !app.app_match.matches(&user_agent) {
        return Err(Refusal::Banned(guard.block_address(address, Rule::UserAgent).await));
    }
    let is_user = |identity: &Identity| is_of(identity, &username);
    let verified = match verified {
        Some(verified) => verified,
        None => app.auth.verify(&access).await,
    };
    let (identity, refreshed) = match verified {
        Ok(identity) if is_user(&identity) => (identity, None),
        Ok(identity) => {
            // The token was verified: its session is what is misused, not the address.
            return Err(Refusal::Banned(
                guard.block(&Scope::of(&identity), Rule::Username).await,
            ));
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
                let blocked = guard.block_address(address, Rule::RefreshOfAnother).await;
                return Err(Refusal::InvalidRefreshToken(blocked));
            }
            Err(RefreshError::Refused) => {
                let blocked = guard.block_address(address, Rule::RefreshRefused).await;
                return Err(Refusal::RefreshFailed(blocked));
            }
            Err(RefreshError::Unavailable(reason)) => {
                tracing::warn!(reason, "handshake refused: tokens cannot be exchanged");
                return Err(Refusal::Unavailable);
            }
        },
    };
    let (access, rotated) = refreshed.clone().unwrap_or((access, None));
    let tokens = Tokens {
        access: app.auth.ask_again_after(&identity).map(|_| access.into()),
        refresh: rotated.unwrap_or(refresh),
    };
    let handshake = handshake(applicant, identity, tokens, user_agent);
    let admitted = admit(app, applicant, handshake, None, leases).await?;
    Ok(Verified { refreshed, ..admitted })
}

fn handshake(applicant: &Applicant<'_>, identity: Identity, tokens: Tokens, user_agent: String) -> Handshake {
    Handshake {
        identity,
        tokens,
        client: applicant.client.clone(),
        proto2: applicant.proto2,
        user_agent,
    }
}

/// Lets in whose identity is known, unless the guard or an ended login says no; `address` where it is yet to be admitted.
async fn admit(
    app: &App,
    applicant: &Applicant<'_>,
    handshake: Handshake,
    address: Option<ClientAddress>,
    leases: &mut Vec<(Scope, String)>,
) -> Result<Verified, Refusal> {
    let (guard, identity, socket) = (&app.guard, &handshake.identity, applicant.socket);
    *leases = guard.leases(applicant.client.address, Some(&identity.user), socket);
    let of_address = async {
        match address {
            Some(address) => guard.admit_address(address, socket).await,
            None => Ok(Entry::Admitted),
        }
    };
    let (of_address, of_user, revoked) = tokio::join!(
        of_address,
        guard.admit_user(identity, socket),
        guard.is_revoked(identity)
    );
    admitted(of_address?)?;
    admitted(of_user?)?;
    if revoked? {
        return Err(Refusal::Banned(None));
    }
    Ok(Verified {
        handshake,
        refreshed: None,
    })
}

/// Whether a user is called so, in whatever case.
fn is_of(identity: &Identity, username: &str) -> bool {
    identity.username.to_lowercase() == username.to_lowercase()
}

/// A refused client goes by itself; one that does not is closed, so that it holds no connection.
fn close_refused(app: &Arc<App>, socket: &Socket, leases: Vec<(Scope, String)>) {
    let (app, sid) = (app.clone(), socket.id);
    app.tracker.clone().spawn(async move {
        // What cannot be given back now ends by itself.
        if let Err(error) = app.redis.give_back(&leases).await {
            tracing::debug!(%error, "leases not given back");
        }
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
        app.transports.settle(socket.id);
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
        let session = &self.0;
        if session.is_cut() {
            // What it still sends while it is being closed is not worth a look.
            return;
        }
        let weight = events::weight(&packet);
        let incoming = Incoming {
            packet,
            ack_id,
            at: Instant::now(),
        };
        if let Some(wait) = session.app.guard.take_event(&session.rate, &session.user(), weight) {
            return events::refuse_beyond(session, &socket, incoming, wait);
        }
        if let Err(refused) = Inbox::push(session, &socket, Job::Event(incoming)) {
            events::refuse_overflow(session, &socket, *refused);
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
