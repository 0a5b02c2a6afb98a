//! What a client received: parsed for tests, or raw and timed for load.

use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Name of the local event that reports something unreadable: a malformed packet, another namespace, a binary frame.
pub const UNREADABLE: &str = "client:unreadable";

/// An event as it came, its arguments not yet parsed.
#[derive(Clone, Debug)]
pub struct Event {
    /// The tag of the client that received it, so that many clients can share one channel.
    pub client: u64,
    /// The event's name.
    pub name: String,
    /// The answer the server wants, if any; see [`Client::reply`](super::Client::reply).
    pub ack: Option<u64>,
    /// When the frame was read.
    pub at: Instant,
    pub(super) array: Box<str>,
}

impl Event {
    /// All arguments; fails on JSON a `Value` cannot hold, such as nesting beyond 128 levels.
    pub fn args(&self) -> Result<Vec<Value>, serde_json::Error> {
        let mut all: Vec<Value> = serde_json::from_str(&self.array)?;
        all.drain(..1);
        Ok(all)
    }

    /// Parses only argument `index`; a missing one reads as `null`.
    pub fn arg<'a, T: Deserialize<'a>>(&'a self, index: usize) -> Result<T, serde_json::Error> {
        let all: Vec<&RawValue> = serde_json::from_str(&self.array)?;
        serde_json::from_str(all.get(index + 1).map_or("null", |raw| raw.get()))
    }

    /// The JSON array on the wire, name first.
    pub fn raw(&self) -> &str {
        &self.array
    }
}

/// An event taken from the mailbox.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The event's name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<Value>,
    /// The answer the server wants, if any; see [`Client::reply`](super::Client::reply).
    pub ack: Option<u64>,
    /// When the frame was read.
    pub at: Instant,
}
