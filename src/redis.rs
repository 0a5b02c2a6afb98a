//! Everything that is said to Redis; the only user of fred.

mod active;
mod adapter;
mod address;
mod archive;
mod bans;
mod bus;
mod client;
mod connection;
mod control;
mod durability;
mod error;
mod figures;
mod fitness;
mod inspect;
mod keys;
mod limits;
mod log;
mod membership;
mod posted;
mod primaries;
mod questions;
mod revocations;
mod script;
mod sentinel;
mod sharded;
mod spending;
mod summaries;
mod watched;

pub use adapter::{Adapter, AdapterLink};
pub use archive::{ArchiveEntry, Archived};
pub use bans::{Audit, BanIndex, Term};
pub use bus::{Bus, BusItem, BusMetrics, Silence};
pub use client::Redis;
pub use control::Act;
pub use durability::Replid;
pub use error::RedisError;
pub use figures::QuestionFigures;
pub use inspect::ScopeState;
pub use keys::Keys;
pub use limits::{Admission, AdmitLimits, Counted, LEASE_RENEW, Sanction};
pub use log::codec;
pub use log::{
    After, Answers, Authority, Draft, LogKeep, LogPage, PageLimit, PostLimits, REPLY_SUFFIX, Take, reply_id,
};
pub use membership::{Load, NODE_TTL, OwnedSocket, USER_ROOMS_TTL};
pub use posted::{Posted, Receipt};
pub use questions::{
    Again, Asked, Claim, Ended, Ender, Enqueued, Found, Hold, Holds, Letter, OpenQuestion, Part, Pause, Question,
    QueueCounts, Running, Taken, WorkerSeen,
};
pub use spending::{Budgets, Purse, Spent};
pub use summaries::Summary;

/// A duration as scripts and expiries take it.
fn ms(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A time to wait as scripts return it.
fn from_ms(ms: i64) -> std::time::Duration {
    std::time::Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
