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
use serde_json::value::RawValue;

pub use error::ChatError;
pub use history::{Previous, Wanted};
pub use messages::{check_identity, compose_delete, compose_edit, compose_message};
pub use rooms::{RoomListError, UserRooms};
pub use sync::{SYNC_MAX_ROOMS, SyncRequest, SyncedRoom};

use crate::config::Config;
use crate::model::{RoomId, Seq, UnixMs, UserId};
use crate::redis::{PostLimits, Redis};
use crate::telemetry::Metrics;
use crate::upstream::{RoomInfo, Upstream};

/// How long the answer of a room check counts, so that joins do not storm the room service.
const CHECK_TTL: Duration = Duration::from_secs(5);
/// How long the newest archived messages of a room count: joins do not storm the archive either.
const ARCHIVED_TTL: Duration = Duration::from_secs(2);
/// Bytes of them that are remembered at once.
const ARCHIVED_MAX: u64 = 32 * 1024 * 1024;
/// What remembering one takes beside its text.
const ENTRY_BYTES: usize = 64;
/// Room list calls under way at once.
const LIST_CALLS: usize = 64;
/// Room checks remembered at once.
const CHECKS_MAX: u64 = 10_000;

/// Room, before which time, and the log's floor at that moment.
type ArchivedKey = (RoomId, Option<UnixMs>, Seq);
type ArchivedPage = Arc<Vec<Box<RawValue>>>;

fn weigh_page(_: &ArchivedKey, page: &ArchivedPage) -> u32 {
    let bytes = page.iter().map(|message| message.get().len() + ENTRY_BYTES);
    u32::try_from(bytes.sum::<usize>() + ENTRY_BYTES).unwrap_or(u32::MAX)
}

/// The use cases and what they need.
pub struct Chat {
    redis: Redis,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    limits: PostLimits,
    /// Longest message text, bytes.
    max_text: usize,
    checks: moka::future::Cache<(RoomId, Option<String>), Arc<RoomInfo>>,
    archived: moka::future::Cache<ArchivedKey, ArchivedPage>,
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
            archived: moka::future::Cache::builder()
                .max_capacity(ARCHIVED_MAX)
                .weigher(weigh_page)
                .time_to_live(ARCHIVED_TTL)
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
