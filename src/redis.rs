//! Everything that is said to Redis; the only user of fred.

mod active;
mod adapter;
mod address;
mod archive;
mod blocks;
mod bus;
mod client;
mod connection;
mod control;
mod durability;
mod error;
mod fitness;
mod keys;
mod log;
mod membership;
mod primaries;
mod script;
mod sentinel;
mod sharded;

pub use adapter::{Adapter, AdapterLink};
pub use archive::ArchiveEntry;
pub use blocks::Block;
pub use bus::{Bus, BusItem, BusMetrics, Silence};
pub use client::Redis;
pub use control::Act;
pub use durability::Replid;
pub use error::RedisError;
pub use keys::Keys;
pub use log::{After, Authority, Draft, LogKeep, LogPage, PageLimit, PostLimits, Posted, Receipt, Take};
pub use membership::{NODE_TTL, OwnedSocket, USER_ROOMS_TTL};
