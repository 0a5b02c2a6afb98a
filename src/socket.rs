//! The Socket.IO side: handshake, events, replies and the delivery of room events.

mod connect;
mod control;
mod deliver;
mod events;
mod frame;
mod inbox;
mod leave;
mod line;
mod protocol;
mod reply;
mod session;
mod transport;
mod waiting;

use std::sync::Arc;

use dashmap::DashMap;
use socketioxide::socket::Sid;
use tokio_util::task::TaskTracker;

pub use connect::{ConnectMiddleware, Connected};
pub use control::{cut, follow_control};
pub use deliver::Deliver;
pub use events::{Event, weight};
pub use frame::{Packet, push_event};
pub use inbox::{Inbox, Incoming, Job};
pub use leave::Departure;
pub use protocol::Stored;
pub use session::{ClientInfo, NodeName, Session};
pub use transport::{Conn, Transports};
pub use waiting::{SessionPlace, Waiting};

use crate::auth::Auth;
use crate::chat::Chat;
use crate::config::AppMatch;
use crate::guard::Guard;
use crate::redis::{Adapter, Bus, Redis};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Sampler;

/// A socket of the node's namespace.
pub type Socket = Arc<socketioxide::socket::Socket<Adapter>>;

/// A connected socket and what is known about it.
#[derive(Clone)]
pub struct Live {
    /// What is known.
    pub session: Arc<Session>,
    /// The socket.
    pub socket: Socket,
}

/// What handshakes and events need; one per node.
pub struct App {
    /// The use cases.
    pub chat: Arc<Chat>,
    /// Tokens.
    pub auth: Auth,
    /// Blocks and limits.
    pub guard: Guard,
    /// Redis, for membership.
    pub redis: Redis,
    /// The room bus.
    pub bus: Bus,
    /// The delivery of room events.
    pub deliver: Arc<Deliver>,
    /// Connections under the sockets.
    pub transports: Arc<Transports>,
    /// The connected sockets.
    pub sockets: DashMap<Sid, Live>,
    /// This node's current name in Redis.
    pub node: NodeName,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Which events are traced.
    pub sampler: Sampler,
    /// Every task of a socket.
    pub tracker: TaskTracker,
    /// What a client's `userAgent` must look like.
    pub app_match: AppMatch,
    /// Rooms up to which `syncRooms` answers as `syncRoomsResponse`.
    pub sync_parallel_max: usize,
    /// The prefix that asks for a reply of the model.
    pub mention: String,
    /// Sockets that are gone and could not be removed from Redis yet.
    pub orphans: DashMap<String, crate::redis::OwnedSocket>,
    /// Whether the node plays dead: for tests of what a crash leaves behind.
    pub crashed: std::sync::atomic::AtomicBool,
    /// Messages per user since the last flush.
    pub message_counts: DashMap<crate::model::UserId, u32>,
}

impl App {
    /// Closes every socket's transport at once: clients come back by themselves, here or elsewhere.
    pub fn cut_all(&self, reason: &'static str) {
        for live in self.live() {
            self.close(&live, reason);
        }
    }

    /// The sockets connected at this moment.
    pub fn live(&self) -> Vec<Live> {
        self.sockets.iter().map(|live| live.value().clone()).collect()
    }
}
