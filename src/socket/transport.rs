//! Kill handles of the connections under the sockets.
//!
//! socketioxide has no public way to close a transport, and `disconnect()` tells JS clients to stay away for good. A
//! connection that is shut down from our side looks like a lost network: the client comes back by itself.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use socket2::SockRef;
use socketioxide::socket::Sid;
use tokio::net::TcpStream;

use super::waiting::Place;

/// One TCP connection, as others may act on it.
#[derive(Debug)]
pub struct Conn {
    /// Nothing while the connection moves from one runtime to another.
    stream: Mutex<Weak<TcpStream>>,
    /// The address at the other end of the TCP connection.
    pub peer: SocketAddr,
    started: Instant,
    /// Milliseconds after `started` since when a write has been blocked; 0 = none is.
    blocked_since: AtomicU64,
    killed: AtomicBool,
    stage: Mutex<Stage>,
}

/// How far a connection has come.
#[derive(Debug)]
enum Stage {
    /// It has no place among those that wait: it has just come, or came through a proxy.
    Fresh,
    /// It has yet to say who it is.
    Waiting { _place: Place },
    /// It carries a known socket, or is about to be closed.
    Settled,
}

impl Conn {
    /// The handle of a connection that was just accepted.
    pub fn new(stream: &Arc<TcpStream>, peer: SocketAddr) -> Self {
        Self {
            stream: Mutex::new(Arc::downgrade(stream)),
            peer,
            started: Instant::now(),
            blocked_since: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            stage: Mutex::new(Stage::Fresh),
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a fresh connection the place that `enter` finds; `None` when it is not fresh, `false` without a place.
    pub fn wait_with(&self, enter: impl FnOnce() -> Option<Place>) -> Option<bool> {
        let mut stage = self.stage();
        if !matches!(*stage, Stage::Fresh) {
            return None;
        }
        let place = enter();
        let entered = place.is_some();
        if let Some(place) = place {
            *stage = Stage::Waiting { _place: place };
        }
        Some(entered)
    }

    /// Whether it has yet to say who it is.
    pub fn is_waiting(&self) -> bool {
        matches!(*self.stage(), Stage::Waiting { .. })
    }

    /// Its socket is known, or it ends: it gives its place back.
    pub fn settle(&self) {
        *self.stage() = Stage::Settled;
    }

    fn stream(&self) -> MutexGuard<'_, Weak<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the connection off its runtime, so that another can have it.
    pub fn detach(&self, stream: Arc<TcpStream>) -> io::Result<std::net::TcpStream> {
        // Whoever kills holds the lock, so from here on there is no other.
        *self.stream() = Weak::new();
        Arc::into_inner(stream).ok_or(io::ErrorKind::ResourceBusy)?.into_std()
    }

    /// Puts the connection on the current runtime.
    pub fn attach(&self, stream: std::net::TcpStream) -> io::Result<Arc<TcpStream>> {
        let stream = Arc::new(TcpStream::from_std(stream)?);
        let mut attached = self.stream();
        *attached = Arc::downgrade(&stream);
        if self.is_killed() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        drop(attached);
        Ok(stream)
    }

    /// Shuts the transport down in both directions.
    pub fn kill(&self) {
        let stream = self.stream();
        self.killed.store(true, Ordering::Relaxed);
        if let Some(stream) = stream.upgrade() {
            // A connection that is gone already is what is wanted.
            let _gone = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }

    /// Whether the connection still exists.
    pub fn is_open(&self) -> bool {
        self.stream().strong_count() > 0
    }

    /// Whether [`Self::kill`] was called.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// How long a write has been blocked.
    pub fn blocked_for(&self) -> Duration {
        match self.blocked_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => self.started.elapsed().saturating_sub(Duration::from_millis(since)),
        }
    }

    /// Notes whether the last write was blocked.
    pub fn note_write(&self, blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        if blocked && since == 0 {
            let now = u64::try_from(self.started.elapsed().as_millis())
                .unwrap_or(u64::MAX)
                .max(1);
            self.blocked_since.store(now, Ordering::Relaxed);
        } else if !blocked && since != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }
}

/// The connections under one socket.
#[derive(Debug)]
struct Transport {
    /// Those that carry this socket alone. A polling request may come on a connection that a proxy shares between
    /// clients, so only websockets are shut down.
    websockets: Vec<Arc<Conn>>,
    /// When we closed it: from then on every request of its session is refused.
    killed: Option<Instant>,
}

/// Websocket connections that may claim one session; a stock client opens one, and a second after a failed probe.
const CLAIMS_MAX: usize = 4;
/// How long a closed session is remembered: longer than the engine keeps one whose client is silent (ping interval and
/// timeout), so that a polling client cannot outlive its cut.
const KILLED_FOR: Duration = Duration::from_secs(180);

/// The connections under each socket, by engine sid, which is the socket's id.
#[derive(Debug, Default)]
pub struct Transports {
    by_sid: DashMap<Sid, Transport>,
}

impl Transports {
    /// A websocket says that it belongs to this session: at the handshake, or as an upgrade, which may overtake it.
    /// All that do are remembered, because only the engine knows which one it takes. `false` when there are too many, or
    /// the session was closed.
    pub fn claim(&self, sid: Sid, conn: Arc<Conn>) -> bool {
        let mut transport = self.by_sid.entry(sid).or_insert_with(|| Transport {
            websockets: Vec::new(),
            killed: None,
        });
        transport.websockets.retain(|conn| conn.is_open());
        if transport.killed.is_some() || transport.websockets.len() >= CLAIMS_MAX {
            return false;
        }
        transport.websockets.push(conn);
        true
    }

    /// The socket is known: its connections wait no longer.
    pub fn settle(&self, sid: Sid) {
        if let Some(transport) = self.by_sid.get(&sid) {
            transport.websockets.iter().for_each(|conn| conn.settle());
        }
    }

    /// The socket is gone. A closed one stays refused.
    pub fn remove(&self, sid: Sid) {
        self.by_sid.remove_if(&sid, |_, transport| transport.killed.is_none());
    }

    /// Closes the transport of a socket.
    pub fn kill(&self, sid: Sid) {
        let mut transport = self.by_sid.entry(sid).or_insert_with(|| Transport {
            websockets: Vec::new(),
            killed: None,
        });
        transport.killed.get_or_insert_with(Instant::now);
        for conn in &transport.websockets {
            conn.kill();
        }
    }

    /// Whether the transport of a socket was closed by us.
    pub fn is_killed(&self, sid: Sid) -> bool {
        self.by_sid
            .get(&sid)
            .is_some_and(|transport| transport.killed.is_some())
    }

    /// Forgets closed sessions that the engine has forgotten too, and connections that never had a socket.
    pub fn sweep(&self, is_socket: impl Fn(Sid) -> bool) {
        self.by_sid.retain(|sid, transport| match transport.killed {
            Some(at) => at.elapsed() < KILLED_FOR,
            None => is_socket(*sid) || transport.websockets.iter().any(|conn| conn.is_open()),
        });
    }
}
