//! Why something did not happen, worded so that a failed test explains itself.

use std::fmt;
use std::time::Duration;

/// Why a connection was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered a request of the handshake with something else than success.
    #[error("HTTP {status}: {body}")]
    Http {
        /// The status code.
        status: u16,
        /// The body as text.
        body: String,
        /// Every header, names in lower case.
        headers: Vec<(String, String)>,
    },
    /// The server refused the namespace (`connect_error` in the official client).
    #[error("refused: {message}")]
    Refused {
        /// The only text the server can send.
        message: String,
    },
    /// No TCP connection, a broken handshake, or an end before the server answered CONNECT.
    #[error("transport: {0}")]
    Transport(String),
    /// The server let the time pass.
    #[error("no answer in time")]
    Timeout,
}

/// Why an event was not sent or not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum EmitError {
    /// The connection is gone; what was enqueued but not written is lost with it.
    #[error("the connection is closed")]
    Closed,
    /// The server has not read for so long that our own queue is full.
    #[error("the queue of unsent frames is full")]
    Full,
    /// No acknowledgement in time.
    #[error("no acknowledgement in time")]
    Timeout,
    /// The payload is not JSON.
    #[error("cannot encode: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The server disconnected the socket (`41`); official clients do not come back by themselves.
    #[error("disconnected by the server")]
    ServerDisconnect,
    /// The server closed the Engine.IO session (packet `1`).
    #[error("engine closed by the server")]
    EngineClose,
    /// The transport ended or failed; official clients reconnect.
    #[error("transport closed: {0}")]
    TransportClose(String),
    /// No ping within pingInterval + pingTimeout.
    #[error("no ping in time")]
    PingTimeout,
    /// [`kill`](super::Client::kill) was called.
    #[error("killed by us")]
    KilledByUs,
    /// [`disconnect`](super::Client::disconnect) was called.
    #[error("disconnected by us")]
    DisconnectedByUs,
}

/// An expectation that was not met, and what arrived instead.
#[derive(Clone, thiserror::Error)]
pub struct ExpectError {
    pub(super) wanted: String,
    pub(super) waited: Duration,
    pub(super) waiting: Vec<String>,
    pub(super) taken: Vec<(String, usize)>,
    pub(super) closed: Option<CloseReason>,
}

impl fmt::Display for ExpectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} within {:?}; ", self.wanted, self.waited)?;
        match self.waiting.as_slice() {
            [] => f.write_str("nothing is waiting")?,
            some => write!(f, "waiting: {}", some.join(", "))?,
        }
        if !self.taken.is_empty() {
            f.write_str("; taken before:")?;
            for (name, count) in &self.taken {
                write!(f, " {name}×{count}")?;
            }
        }
        match &self.closed {
            Some(reason) => write!(f, "; {reason}"),
            None => f.write_str("; still connected"),
        }
    }
}

// `unwrap()` in a test prints Debug, and the sentence is what one wants to read there.
impl fmt::Debug for ExpectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
