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

/// fred's words for a redirection that it was told not to follow.
const REDIRECTED: &str = "Too many redirections.";
/// fred's words for a call that it would have to send a second time.
const RESENT: &str = "Too many failed write attempts.";
/// fred's words for a call that found no connection.
const UNROUTED: &str = "Failed to route command.";

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
            // Routing and Cluster: no server took the call, or one answered that it is not the one to ask.
            ErrorKind::Backpressure | ErrorKind::Routing | ErrorKind::Cluster => Self::Unavailable,
            ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Tls | ErrorKind::Protocol => {
                Self::Uncertain(error.details().to_owned())
            }
            // A call under way on a connection that fred closed, because its server is no primary any more.
            _ if error.details() == RESENT => Self::Uncertain(error.details().to_owned()),
            _ if error.details() == UNROUTED => Self::Unavailable,
            _ if REFUSED_FOR_NOW.iter().any(|prefix| error.details().starts_with(prefix)) => Self::Unavailable,
            _ => Self::Refused(error.details().to_owned()),
        }
    }
}

impl RedisError {
    /// One word for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Uncertain(_) => "uncertain",
            Self::Refused(_) => "refused",
            Self::Unexpected(_) => "unexpected",
        }
    }
}

/// Whether a cluster node answered that another one owns the keys.
pub(super) fn is_redirection(error: &Error) -> bool {
    *error.kind() == ErrorKind::Routing && error.details() == REDIRECTED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_happened_is_uncertain() {
        let read = |kind, details: &'static str| RedisError::from(Error::new(kind, details));
        for (kind, details) in [
            (
                ErrorKind::Unknown,
                "READONLY You can't write against a read only replica.",
            ),
            (ErrorKind::Cluster, "CLUSTERDOWN The cluster is down"),
            (
                ErrorKind::Unknown,
                "TRYAGAIN Multiple keys request during rehashing of slot",
            ),
            (ErrorKind::Routing, REDIRECTED),
            (ErrorKind::Unknown, UNROUTED),
        ] {
            assert!(matches!(read(kind, details), RedisError::Unavailable), "{details}");
        }
        for (kind, details) in [
            (ErrorKind::IO, "Connection closed."),
            (ErrorKind::Timeout, "Request timed out."),
            (ErrorKind::Unknown, RESENT),
        ] {
            assert!(matches!(read(kind, details), RedisError::Uncertain(_)), "{details}");
        }
        let refused = read(ErrorKind::InvalidArgument, "WRONGTYPE Operation against a key");
        assert!(matches!(refused, RedisError::Refused(_)));
    }
}
