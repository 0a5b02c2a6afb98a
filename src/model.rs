//! Leaf types that every layer speaks: ids, positions, room events, identities. No IO.

mod ban;
mod event;
mod id;
mod identity;
mod position;
mod scope;

pub use ban::{Ban, Origin};
pub use event::{EventKind, RoomEvent};
pub use id::{InvalidId, RoomId, UserId};
pub use identity::{ClientAddress, Identity};
pub use position::{Cursor, Epoch, Position, Seq};
pub use scope::Scope;

/// Milliseconds since the Unix epoch, the unit of every timestamp on the wire.
pub type UnixMs = u64;

/// The current wall clock in Unix milliseconds; 0 when the clock is set before 1970.
pub fn unix_ms() -> UnixMs {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
