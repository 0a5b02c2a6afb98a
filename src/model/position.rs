//! Places in a room's log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::UnixMs;

/// The number of an event within its room; rises by one per event.
pub type Seq = u64;

/// A span of a room's log that one Redis primary wrote without a restart or failover.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// The epoch as text, opaque to clients.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was opened, Unix ms, by the clock of the server that opened it: its text ends in that time in microseconds.
    pub fn opened_ms(&self) -> Option<UnixMs> {
        let (_, micros) = self.0.rsplit_once('-')?;
        micros.parse::<u64>().ok().map(|micros| micros / 1000)
    }
}

impl From<&str> for Epoch {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The stream id of an event, `<ts>-<seq>`: also the event's message id when it is a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Server time, Unix ms, strictly rising within the room.
    pub ts: UnixMs,
    /// The event's number.
    pub seq: Seq,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ts, self.seq)
    }
}

/// Text that is not of the form `<ts>-<seq>`.
#[derive(Debug, thiserror::Error)]
#[error("not a position of the form <ts>-<seq>")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let (ts, seq) = text.split_once('-').ok_or(NotAPosition)?;
        Ok(Self {
            ts: ts.parse().map_err(|_| NotAPosition)?,
            seq: seq.parse().map_err(|_| NotAPosition)?,
        })
    }
}

/// Where a client says it stands in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    /// It has everything up to this server time, Unix ms.
    Time(UnixMs),
    /// It has this message and what came before it.
    Message(String),
    /// Protocol 2: it has this event of this epoch.
    Event {
        /// The epoch in which `seq` was received.
        epoch: Epoch,
        /// The newest event received.
        seq: Seq,
        /// The event's server time, which makes the lookup exact.
        ts: Option<UnixMs>,
    },
}
