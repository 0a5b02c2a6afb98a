//! Kill handles of the connections under the sockets.
//!
//! socketioxide has no public way to close a transport, and `disconnect()` tells JS clients to stay away for good. A
//! connection that is shut down from our side looks like a lost network: the client comes back by itself. The handle of a
//! websocket is also the direct way to its peer: see [`super::line`].

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use socket2::SockRef;
use socketioxide::TransportType;
use socketioxide::socket::Sid;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::line::{Line, NotSent, Sight};
use super::waiting::Place;
use super::{Socket, reply};

/// Runs of frames that one who sends takes along for others.
const HANDED_OVER_MAX: usize = 64;

/// A way to send frames on a line.
type Send = fn(&mut Line, &Bytes, &dyn Fn(&[u8]) -> io::Result<usize>) -> Result<(), NotSent>;

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
    direct: Mutex<Direct>,
    /// Somebody sends, and takes along what others hand over.
    sending: AtomicBool,
    handed_over: Mutex<Vec<Bytes>>,
}

/// The direct way to the peer of a websocket.
#[derive(Debug, Default)]
struct Direct {
    line: Line,
    /// There from the switch of protocols to the end of the connection.
    stream: Option<Arc<TcpStream>>,
    /// Whether a task writes what waits.
    looked_after: bool,
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
            direct: Mutex::default(),
            sending: AtomicBool::new(false),
            handed_over: Mutex::default(),
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

    fn direct(&self) -> MutexGuard<'_, Direct> {
        self.direct.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is about to become a websocket.
    pub fn expect_websocket(&self) {
        let stream = self.stream().upgrade();
        let mut direct = self.direct();
        direct.line.expect_switch();
        direct.stream = stream;
    }

    /// Sends whole frames between those of the engine. What the peer does not take at once waits, and is written by a task
    /// of the tracker.
    ///
    /// Who comes while another sends hands its frames over to that one instead of waiting for its write: a sender's ack and
    /// its own copy of the message go out at the same time.
    pub fn send(self: &Arc<Self>, frames: &Bytes, tracker: &TaskTracker) -> Result<(), NotSent> {
        if self.hand_over(frames) {
            return Ok(());
        }
        let mut direct = self.direct();
        self.sending.store(true, Ordering::SeqCst);
        self.send_handed_over(&mut direct);
        let sent = self.send_on(&mut direct, frames, Line::send);
        loop {
            self.sending.store(false, Ordering::SeqCst);
            if self.handed_over().is_empty() {
                break;
            }
            self.sending.store(true, Ordering::SeqCst);
            self.send_handed_over(&mut direct);
        }
        if sent.is_ok() {
            self.look_after(&mut direct, tracker);
        }
        sent
    }

    /// Gives frames to whoever is sending now; `false` when nobody is, or too many did already.
    fn hand_over(&self, frames: &Bytes) -> bool {
        if !self.sending.load(Ordering::SeqCst) {
            return false;
        }
        let mut handed_over = self.handed_over();
        // Whoever ends its sending looks here afterwards, and needs this lock for it.
        let taken = self.sending.load(Ordering::SeqCst) && handed_over.len() < HANDED_OVER_MAX;
        if taken {
            handed_over.push(frames.clone());
        }
        taken
    }

    fn send_handed_over(&self, direct: &mut Direct) {
        let frames = std::mem::take(&mut *self.handed_over());
        for frames in &frames {
            // The peer is gone: nobody misses them.
            let _gone = self.send_on(direct, frames, Line::send_or_wait);
        }
    }

    fn send_on(&self, direct: &mut Direct, frames: &Bytes, send: Send) -> Result<(), NotSent> {
        let stream = direct.stream.as_ref().ok_or(NotSent::Gone)?;
        send(&mut direct.line, frames, &|bytes| self.write(stream, bytes))
    }

    fn handed_over(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes bytes of the engine, or of HTTP.
    pub fn write_engine(
        self: &Arc<Self>,
        stream: &TcpStream,
        bytes: &[u8],
        tracker: &TaskTracker,
    ) -> io::Result<usize> {
        let mut direct = self.direct();
        let written = direct.line.write_engine(bytes, |bytes| self.write(stream, bytes));
        self.look_after(&mut direct, tracker);
        written
    }

    fn write(&self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let written = stream.try_write(bytes);
        match &written {
            Ok(_) => self.note_write(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.note_write(true),
            Err(_) => {}
        }
        written
    }

    /// Sees to it that what waits for the peer is written when it reads again.
    fn look_after(self: &Arc<Self>, direct: &mut Direct, tracker: &TaskTracker) {
        if direct.looked_after || !direct.line.is_blocked() {
            return;
        }
        if let Some(stream) = direct.stream.clone() {
            direct.looked_after = true;
            tracker.spawn(self.clone().write_waiting(stream));
        }
    }

    async fn write_waiting(self: Arc<Self>, stream: Arc<TcpStream>) {
        loop {
            let ready = stream.writable().await;
            let mut direct = self.direct();
            let written = ready.and_then(|()| direct.line.write_waiting(|bytes| self.write(&stream, bytes)));
            let blocked = written.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if !blocked {
                direct.looked_after = false;
                return;
            }
        }
    }

    /// The connection has ended.
    pub fn end(&self) {
        self.settle();
        let mut direct = self.direct();
        direct.line.end();
        if let Some(stream) = direct.stream.take()
            && direct.looked_after
        {
            // Wakes the task, which holds the stream.
            let _gone = SockRef::from(&*stream).shutdown(Shutdown::Both);
        }
    }

    /// Notes whether the last write was blocked.
    fn note_write(&self, blocked: bool) {
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
    /// The one of them to which frames are written directly.
    direct: Option<Arc<Conn>>,
    /// When we closed it: from then on every request of its session is refused.
    killed: Option<Instant>,
}

impl Transport {
    /// After an upgrade, the engine has the packets that no poll has fetched: the mark goes behind them, and what follows
    /// goes behind the mark.
    fn go_direct(&self, socket: &Socket) -> Option<Arc<Conn>> {
        let mut open = self.websockets.iter().filter(|conn| conn.is_open());
        // Only the engine knows which of several it has taken.
        let (Some(conn), None) = (open.next(), open.next()) else {
            return None;
        };
        let mut direct = conn.direct();
        if !direct.line.hold_behind(Sight::Mark) {
            return None;
        }
        if !reply::mark(socket) {
            direct.line.let_go();
            return None;
        }
        drop(direct);
        Some(conn.clone())
    }
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
            direct: None,
            killed: None,
        });
        transport.websockets.retain(|conn| conn.is_open());
        if transport.killed.is_some() || transport.websockets.len() >= CLAIMS_MAX {
            return false;
        }
        transport.websockets.push(conn);
        true
    }

    /// The connection on which CONNECT came, and is answered: it carries the socket from its first packet on.
    pub fn carry(&self, sid: Sid, conn: &Arc<Conn>) {
        if let Some(mut transport) = self.by_sid.get_mut(&sid)
            && conn.direct().line.hold_behind(Sight::Connected)
        {
            transport.direct = Some(conn.clone());
        }
    }

    /// The connection to which a socket's frames are written directly; `None` when they go through the engine, as they do
    /// while the client polls. Once there is one, nothing may go through the engine any more.
    pub fn direct(&self, socket: &Socket) -> Option<Arc<Conn>> {
        if socket.transport_type() != TransportType::Websocket {
            return None;
        }
        let known = self.by_sid.get(&socket.id)?.direct.clone();
        if known.is_some() {
            return known;
        }
        let mut transport = self.by_sid.get_mut(&socket.id)?;
        if transport.direct.is_none() {
            transport.direct = transport.go_direct(socket);
        }
        transport.direct.clone()
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
            direct: None,
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

#[cfg(test)]
mod tests;
