//! What the chat does: use cases that take values and return values. No socketioxide, no HTTP server.

mod error;
pub mod feed;
pub mod fold;
mod history;
mod messages;
pub mod payload;
mod replies;
mod rooms;
mod succession;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;

pub use error::ChatError;
pub use history::{Previous, Wanted};
pub use messages::{check_identity, compose_delete, compose_edit, compose_message};
pub use rooms::{RoomListError, UserRooms};
pub use sync::{SYNC_MAX_ROOMS, SyncRequest, SyncedRoom};

use crate::config::Config;
use crate::model::{RoomId, UserId};
use crate::redis::{PostLimits, Redis};
use crate::telemetry::Metrics;
use crate::upstream::{RoomInfo, Upstream};

/// How long the answer of a room check counts, so that joins do not storm the room service.
const CHECK_TTL: Duration = Duration::from_secs(5);
/// Room list calls under way at once.
const LIST_CALLS: usize = 64;
/// Room checks remembered at once.
const CHECKS_MAX: u64 = 10_000;

/// The use cases and what they need.
pub struct Chat {
    redis: Redis,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    limits: PostLimits,
    /// Longest message text, bytes.
    max_text: usize,
    checks: moka::future::Cache<(RoomId, Option<String>), Arc<RoomInfo>>,
    /// Bounds the room list calls under way: after a restart every user's list is wanted at once.
    list_calls: tokio::sync::Semaphore,
    /// Room lists of connected users; a list lives as long as a socket of its user.
    lists: DashMap<UserId, std::sync::Weak<UserRooms>>,
}

impl Chat {
    /// The use cases over these services.
    pub fn new(config: &Config, redis: Redis, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Self {
        Self {
            redis,
            upstream,
            metrics,
            limits: PostLimits {
                log_max_len: config.log_max_len,
                archive_max_bytes: config.archive_max_bytes,
            },
            max_text: config.max_text,
            checks: moka::future::Cache::builder()
                .max_capacity(CHECKS_MAX)
                .time_to_live(CHECK_TTL)
                .support_invalidation_closures()
                .build(),
            list_calls: tokio::sync::Semaphore::new(LIST_CALLS),
            lists: DashMap::new(),
        }
    }

    /// Longest message text, bytes.
    pub fn max_text(&self) -> usize {
        self.max_text
    }
}
