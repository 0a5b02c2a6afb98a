//! The ways in which one packet is sent to one socket: with patience, at once, or only if there is room.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::{Deliver, LAG_MAX};
use crate::socket::frame::Packet;
use crate::socket::line::NotSent;
use crate::socket::transport::Conn;
use crate::socket::{Socket, reply};

/// How often a full queue is tried again: its socket's writer empties it in one turn.
const FULL_RETRY: Duration = Duration::from_millis(5);

/// A member's socket.
pub struct Peer {
    pub(super) socket: Socket,
    pub(super) proto2: bool,
    /// The connection to which its frames are written directly, once there is one.
    direct: OnceLock<Arc<Conn>>,
}

impl Peer {
    /// A member that is sent nothing yet.
    pub(super) fn new(socket: Socket, proto2: bool) -> Self {
        Self {
            socket,
            proto2,
            direct: OnceLock::new(),
        }
    }
}

impl Deliver {
    /// Emits one event to one socket, waiting for room in its queue: only the task of this socket waits.
    pub async fn emit<T: Serialize + ?Sized>(&self, socket: &Socket, name: &str, data: &T) {
        self.send(socket, &Packet::Event(name, data)).await;
    }

    /// Emits one event to one socket at once. A socket that cannot take it has its transport closed: it comes back and
    /// is brought up to date.
    pub fn emit_now<T: Serialize + ?Sized>(&self, socket: &Socket, name: &str, data: &T) {
        self.send_now(socket, &Packet::Event(name, data));
    }

    /// Repeats a send while the socket's queue is full; a socket that does not read for too long has its transport closed.
    pub async fn send<T: Serialize + ?Sized>(&self, socket: &Socket, packet: &Packet<'_, T>) {
        let (started, mut frame) = (Instant::now(), None);
        while self.try_send(socket, packet, &mut frame) == Err(NotSent::Full) {
            if started.elapsed() > LAG_MAX {
                return self.cut(socket.id, "slow");
            }
            tokio::time::sleep(FULL_RETRY).await;
        }
    }

    /// Tries a send once; a socket whose queue is full has its transport closed.
    pub fn send_now<T: Serialize + ?Sized>(&self, socket: &Socket, packet: &Packet<'_, T>) {
        if self.try_send(socket, packet, &mut None) == Err(NotSent::Full) {
            self.cut(socket.id, "slow");
        }
    }

    /// Tries a send once, and never mind.
    pub fn send_if_room<T: Serialize + ?Sized>(&self, socket: &Socket, packet: &Packet<'_, T>) {
        let _full = self.try_send(socket, packet, &mut None);
    }

    /// Tries a send once. `frame` keeps the packet's frame for further tries, and for other sockets.
    pub(super) fn try_send<T: Serialize + ?Sized>(
        &self,
        socket: &Socket,
        packet: &Packet<'_, T>,
        frame: &mut Option<Bytes>,
    ) -> Result<(), NotSent> {
        if !socket.connected() {
            return Err(NotSent::Gone);
        }
        let Some(conn) = self.transports.direct(socket) else {
            return reply::by_engine(socket, packet);
        };
        if frame.is_none() {
            *frame = packet.frame();
        }
        conn.send(frame.as_ref().ok_or(NotSent::Gone)?, &self.tracker)
    }

    /// Sends frames to a member directly; `None` when it can be reached by the engine only.
    pub(super) fn send_direct(&self, peer: &Peer, frames: &Bytes) -> Option<Result<(), NotSent>> {
        let conn = match peer.direct.get() {
            Some(conn) => conn,
            None => {
                let conn = self.transports.direct(&peer.socket)?;
                peer.direct.get_or_init(|| conn)
            }
        };
        if !peer.socket.connected() {
            return Some(Err(NotSent::Gone));
        }
        Some(conn.send(frames, &self.tracker))
    }
}
