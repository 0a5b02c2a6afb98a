//! What can go wrong on the way to Redis.

use fred::error::{Error, ErrorKind};

/// Answers of a server that cannot do it now and has done nothing: starting, failing over, full or busy.
const REFUSED_FOR_NOW: [&str; 9] = [
    "LOADING",
    "READONLY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "NOREPLICAS",
    "OOM",
    "BUSY",
    "MISCONF",
    "TRYAGAIN",
];

/// A failed call of Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The call was not sent: it has had no effect.
    #[error("Redis is not reachable")]
    Unavailable,
    /// The call may have been sent and its answer was lost: it may have had its effect.
    #[error("Redis did not answer: {0}")]
    Uncertain(String),
    /// Redis answered with an error: the call had no effect.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// Redis answered something that was not expected.
    #[error("unexpected answer of Redis: {0}")]
    Unexpected(&'static str),
}

impl From<Error> for RedisError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Backpressure => Self::Unavailable,
            ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Tls => {
                Self::Uncertain(error.details().to_owned())
            }
            _ if REFUSED_FOR_NOW.iter().any(|prefix| error.details().starts_with(prefix)) => Self::Unavailable,
            _ => Self::Refused(error.details().to_owned()),
        }
    }
}
