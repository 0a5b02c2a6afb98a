//! What the node knows about one socket.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use socketioxide::socket::Sid;

use super::App;
use super::inbox::Inbox;
use super::transport::Conn;
use super::waiting::SessionPlace;
use crate::auth::Refreshed;
use crate::chat::UserRooms;
use crate::guard::EventRate;
use crate::model::{ClientAddress, Identity, RoomId, UnixMs, UserId};
use crate::redis::OwnedSocket;

/// What the front found out about a request, for the handshake.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    /// Whose request it is.
    pub address: ClientAddress,
    /// The connection it came on.
    pub conn: Arc<Conn>,
    /// Whether that connection becomes a websocket.
    pub websocket: bool,
    /// Its place among the sessions that have not said who they are, where it needed one. The engine keeps it as long as
    /// the session, which is longer than the connection.
    pub place: Option<Arc<SessionPlace>>,
}

/// The name under which this node writes to Redis; a new one when it lost its liveness.
#[derive(Debug)]
pub struct NodeName(ArcSwap<String>);

impl Default for NodeName {
    fn default() -> Self {
        Self(ArcSwap::from_pointee(fresh_name()))
    }
}

impl NodeName {
    /// The current name.
    pub fn get(&self) -> Arc<String> {
        self.0.load_full()
    }

    /// Takes a new name and returns it.
    pub fn renew(&self) -> Arc<String> {
        let name = Arc::new(fresh_name());
        self.0.store(name.clone());
        name
    }
}

fn fresh_name() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The newest tokens of a socket. They have no `Debug` form, so that no log can show them.
#[derive(Clone)]
pub struct Tokens {
    /// The access token, where only the auth service can tell whether it still holds; else it is not kept.
    pub access: Option<Arc<str>>,
    /// What the client would be asked to exchange.
    pub refresh: String,
}

/// Never: the token has an end of its own.
const NOT_DUE: u64 = u64::MAX;

/// One connected socket.
pub struct Session {
    /// The node it is on.
    pub app: Arc<App>,
    /// Its id, the engine's and the namespace's alike.
    pub sid: Sid,
    /// Where it comes from.
    pub address: ClientAddress,
    /// Whether it speaks protocol 2.
    pub proto2: bool,
    /// What it says it is.
    pub user_agent: String,
    /// When it connected.
    pub connected_at: Instant,
    /// When it connected, Unix ms.
    pub connected_ms: u64,
    /// Its events, in order.
    pub inbox: Inbox,
    /// The user's room list.
    pub rooms: Arc<UserRooms>,
    /// The rate of its events.
    pub rate: EventRate,
    /// Events that were beyond the rate.
    refused: AtomicU32,
    identity: Mutex<Identity>,
    tokens: Mutex<Tokens>,
    /// When the access token is to be verified again, in milliseconds after `connected_at`.
    verify_at: AtomicU64,
    membership: Mutex<Membership>,
    /// Whether the room list is being fetched behind a message.
    list_refresh: AtomicBool,
    /// Whether Redis has not been told of it yet.
    unregistered: AtomicBool,
    /// Why we cut it, if we did.
    cut: Mutex<Option<String>>,
}

/// The rooms under which the socket is written in Redis.
#[derive(Debug, Default)]
struct Membership {
    belongs: HashSet<RoomId>,
    joined: HashSet<RoomId>,
    /// Rooms that may still name the socket in Redis: noted before anything is written there, and removed only when
    /// Redis has confirmed that it is gone.
    traces: HashSet<RoomId>,
}

/// What a verified handshake brings along.
pub struct Handshake {
    /// The verified user.
    pub identity: Identity,
    /// The tokens.
    pub tokens: Tokens,
    /// Where it comes from.
    pub client: ClientInfo,
    /// Whether it speaks protocol 2.
    pub proto2: bool,
    /// What it says it is.
    pub user_agent: String,
}

impl Session {
    /// The session of a socket whose handshake was verified.
    pub fn new(app: Arc<App>, sid: Sid, handshake: Handshake) -> Self {
        let rooms = app.chat.user_rooms(&handshake.identity);
        let rate = app.guard.event_rate();
        // Anywhere within the time: those who connect together are not verified together ever after.
        let ask_again_after = app.auth.ask_again_after(&handshake.identity);
        let verify_at = ask_again_after.map_or(NOT_DUE, |after| millis(after.mul_f64(rand::random())));
        Self {
            app,
            sid,
            address: handshake.client.address,
            proto2: handshake.proto2,
            user_agent: handshake.user_agent,
            connected_at: Instant::now(),
            connected_ms: crate::model::unix_ms(),
            inbox: Inbox::default(),
            rooms,
            rate,
            refused: AtomicU32::new(0),
            identity: Mutex::new(handshake.identity),
            tokens: Mutex::new(handshake.tokens),
            verify_at: AtomicU64::new(verify_at),
            membership: Mutex::default(),
            list_refresh: AtomicBool::new(false),
            unregistered: AtomicBool::new(false),
            cut: Mutex::default(),
        }
    }

    /// Counts an event that was beyond the rate; returns how many there were.
    pub fn count_refused(&self) -> u32 {
        self.refused.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// Whose it is.
    pub fn user(&self) -> UserId {
        lock(&self.identity).user.clone()
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        lock(&self.identity).clone()
    }

    /// The newest tokens.
    pub fn tokens(&self) -> Tokens {
        lock(&self.tokens).clone()
    }

    /// When its access token ends, the tolerated clock difference included.
    pub fn expires_at(&self) -> Option<UnixMs> {
        lock(&self.identity).expires_at
    }

    /// The client has new tokens.
    pub fn renew(&self, refreshed: Refreshed) {
        let mut tokens = lock(&self.tokens);
        self.take(&mut tokens, refreshed.identity, &refreshed.access_token);
        if let Some(refresh) = refreshed.refresh_token {
            tokens.refresh = refresh;
        }
    }

    /// The auth service has confirmed an access token; one that was replaced meanwhile says nothing any more.
    pub fn confirm(&self, access: &str, identity: Identity) {
        let mut tokens = lock(&self.tokens);
        if tokens.access.as_deref() == Some(access) {
            self.take(&mut tokens, identity, access);
        }
    }

    fn take(&self, tokens: &mut Tokens, identity: Identity, access: &str) {
        tokens.access = self.app.auth.ask_again_after(&identity).map(|_| access.into());
        self.plan_verification(&identity);
        *lock(&self.identity) = identity;
    }

    /// Whether this is still its access token.
    pub fn holds(&self, access: &str) -> bool {
        lock(&self.tokens).access.as_deref() == Some(access)
    }

    /// Whether the auth service has to be asked about its access token.
    pub fn is_verification_due(&self) -> bool {
        self.verify_at.load(Ordering::Relaxed) <= millis(self.connected_at.elapsed())
    }

    /// The access token to verify, if one is due; the next time is noted at once.
    pub fn begin_verification(&self) -> Option<Arc<str>> {
        if !self.is_verification_due() {
            return None;
        }
        self.plan_verification(&self.identity());
        lock(&self.tokens).access.clone()
    }

    /// A little early and at random, so that those who were verified together drift apart.
    fn plan_verification(&self, identity: &Identity) {
        let at = self.app.auth.ask_again_after(identity).map_or(NOT_DUE, |after| {
            millis(self.connected_at.elapsed() + after.mul_f64(1.0 - rand::random::<f64>() / 4.0))
        });
        self.verify_at.store(at, Ordering::Relaxed);
    }

    /// Whether it has joined the room.
    pub fn has_joined(&self, room: &RoomId) -> bool {
        lock(&self.membership).joined.contains(room)
    }

    /// Whether it is written as belonging to the room.
    pub fn belongs_to(&self, room: &RoomId) -> bool {
        lock(&self.membership).belongs.contains(room)
    }

    /// Notes rooms it belongs to.
    pub fn note_belongs(&self, rooms: impl IntoIterator<Item = RoomId>) {
        let mut membership = lock(&self.membership);
        for room in rooms {
            membership.traces.insert(room.clone());
            membership.belongs.insert(room);
        }
    }

    /// Notes a room it is about to join.
    pub fn note_joined(&self, room: &RoomId) {
        let mut membership = lock(&self.membership);
        membership.traces.insert(room.clone());
        membership.belongs.insert(room.clone());
        membership.joined.insert(room.clone());
    }

    /// Notes that it left a room; `for_good` when the user no longer belongs there. Returns whether it had joined.
    pub fn note_left(&self, room: &RoomId, for_good: bool) -> bool {
        let mut membership = lock(&self.membership);
        if for_good {
            membership.belongs.remove(room);
        }
        membership.joined.remove(room)
    }

    /// Notes that Redis no longer names it in a room it does not belong to.
    pub fn note_removed(&self, room: &RoomId) {
        let mut membership = lock(&self.membership);
        if !membership.belongs.contains(room) {
            membership.traces.remove(room);
        }
    }

    /// What is to be written in Redis for it.
    pub fn owned(&self) -> OwnedSocket {
        let membership = lock(&self.membership);
        self.entry(membership.belongs.iter().cloned(), membership.joined.iter().cloned())
    }

    /// Everything that may be written in Redis for it: what is to be removed when it is gone.
    pub fn traces(&self) -> OwnedSocket {
        let membership = lock(&self.membership);
        self.entry(membership.traces.iter().cloned(), membership.traces.iter().cloned())
    }

    fn entry(&self, rooms: impl Iterator<Item = RoomId>, joined: impl Iterator<Item = RoomId>) -> OwnedSocket {
        let Identity { user, session, .. } = self.identity();
        let leases = self.app.guard.leases(self.address, Some(&user), self.sid.as_str());
        OwnedSocket {
            socket: self.sid.to_string(),
            user,
            rooms: rooms.collect(),
            joined: joined.collect(),
            leases: leases.into_iter().map(|(scope, _)| scope).collect(),
            login: session,
            ip: Some(self.address.ip),
            since: self.connected_ms,
        }
    }

    /// Fetches the user's room list if it is old, without holding up events.
    pub fn refresh_rooms(self: &Arc<Self>, socket: &super::Socket) {
        super::events::lifecycle::refresh_rooms_behind(self, socket);
    }

    /// Whether Redis has yet to be told of it.
    pub fn is_unregistered(&self) -> bool {
        self.unregistered.load(Ordering::Acquire)
    }

    /// Notes whether Redis has yet to be told of it.
    pub fn set_unregistered(&self, unregistered: bool) {
        self.unregistered.store(unregistered, Ordering::Release);
    }

    /// Claims the refresh of the room list; `false` when one is under way.
    pub fn begin_list_refresh(&self) -> bool {
        !self.list_refresh.swap(true, Ordering::AcqRel)
    }

    /// The refresh has ended.
    pub fn end_list_refresh(&self) {
        self.list_refresh.store(false, Ordering::Release);
    }

    /// Notes why we cut it; the first reason counts: `false` for further ones.
    pub fn note_cut(&self, reason: &str) -> bool {
        let mut cut = lock(&self.cut);
        let first = cut.is_none();
        cut.get_or_insert_with(|| reason.to_owned());
        first
    }

    /// Whether we cut it.
    pub fn is_cut(&self) -> bool {
        lock(&self.cut).is_some()
    }

    /// Why we cut it, if we did.
    pub fn cut_reason(&self) -> Option<String> {
        lock(&self.cut).clone()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves these values whole: each is changed in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
