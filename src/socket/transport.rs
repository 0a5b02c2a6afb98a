//! Kill handles of the connections under the sockets.
//!
//! socketioxide has no public way to close a transport, and `disconnect()` tells JS clients to stay away for good. A
//! connection that is shut down from our side looks like a lost network: the client comes back by itself.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use socket2::SockRef;
use socketioxide::socket::Sid;
use tokio::net::TcpStream;

/// One TCP connection, as others may act on it.
#[derive(Debug)]
pub struct Conn {
    stream: Weak<TcpStream>,
    /// The address at the other end of the TCP connection.
    pub peer: SocketAddr,
    started: Instant,
    /// Milliseconds after `started` since when a write has been blocked; 0 = none is.
    blocked_since: AtomicU64,
    killed: AtomicBool,
}

impl Conn {
    /// The handle of a connection that was just accepted.
    pub fn new(stream: &Arc<TcpStream>, peer: SocketAddr) -> Self {
        Self {
            stream: Arc::downgrade(stream),
            peer,
            started: Instant::now(),
            blocked_since: AtomicU64::new(0),
            killed: AtomicBool::new(false),
        }
    }

    /// Shuts the transport down in both directions.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Relaxed);
        if let Some(stream) = self.stream.upgrade() {
            // A connection that is gone already is what is wanted.
            let _gone = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }

    /// Whether the connection still exists.
    pub fn is_open(&self) -> bool {
        self.stream.strong_count() > 0
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

/// The connection under each socket, by engine sid, which is the socket's id.
#[derive(Debug, Default)]
pub struct Transports {
    by_sid: DashMap<Sid, Arc<Conn>>,
}

impl Transports {
    /// The socket began on this connection; a connection it has upgraded to meanwhile stays.
    pub fn begin(&self, sid: Sid, conn: Arc<Conn>) {
        self.by_sid.entry(sid).or_insert(conn);
    }

    /// The socket upgrades to this connection, which may happen before its handshake is done. One that was closed by us
    /// stays closed.
    pub fn upgrade(&self, sid: Sid, conn: Arc<Conn>) {
        let mut known = self.by_sid.entry(sid).or_insert_with(|| conn.clone());
        if !known.is_killed() {
            *known = conn;
        }
    }

    /// Forgets connections that ended without ever having had a socket, such as upgrades of invented sessions.
    pub fn sweep(&self, is_socket: impl Fn(Sid) -> bool) {
        self.by_sid.retain(|sid, conn| conn.is_open() || is_socket(*sid));
    }

    /// The socket is gone.
    pub fn remove(&self, sid: Sid) {
        self.by_sid.remove(&sid);
    }

    /// Closes the transport of a socket.
    pub fn kill(&self, sid: Sid) {
        if let Some(conn) = self.by_sid.get(&sid) {
            conn.kill();
        }
    }

    /// Whether the transport of a socket was closed by us: a polling client must be refused at its next poll.
    pub fn is_killed(&self, sid: Sid) -> bool {
        self.by_sid.get(&sid).is_some_and(|conn| conn.is_killed())
    }
}
