//! Why a handshake is refused, and how a client is told.

use std::time::Duration;

use crate::guard::Entry;
use crate::redis::RedisError;

/// When to come back after an outage of the auth service.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Why a handshake is refused: the text for old clients and the code for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A block, and how long it still lasts; without a time a login that was ended, or what would be a block if its rule
    /// were not only watched.
    Banned(Option<Duration>),
    /// A refresh token of another user, and the block for it.
    InvalidRefreshToken(Option<Duration>),
    /// A refresh token that does not hold, and the block for it.
    RefreshFailed(Option<Duration>),
    /// Too many of them; when to come back.
    Limited(Duration),
    /// Something that is needed is away.
    Unavailable,
}

impl Refusal {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Banned(_) => "you're banned",
            Self::InvalidRefreshToken(_) => "Invalid refresh token",
            Self::RefreshFailed(_) => "Token refresh failed",
            Self::Limited(_) => "too many connections",
            Self::Unavailable => "auth_unavailable",
        }
    }

    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "auth_unavailable",
            Self::Limited(_) => "rate_limited",
            Self::Banned(_) | Self::InvalidRefreshToken(_) | Self::RefreshFailed(_) => "blocked",
        }
    }

    fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Unavailable => Some(RETRY_AFTER),
            Self::Limited(wait) => Some(wait),
            Self::Banned(left) | Self::InvalidRefreshToken(left) | Self::RefreshFailed(left) => left,
        }
    }

    /// The one string that the library can send in `connect_error`.
    pub(super) fn message(self, proto2: bool) -> String {
        if !proto2 {
            return self.text().to_owned();
        }
        let mut message = serde_json::json!({"code": self.code(), "message": self.text()});
        if let Some(after) = self.retry_after() {
            message["retryAfterMs"] = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into();
        }
        message.to_string()
    }
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        tracing::debug!(%error, "handshake refused: Redis cannot be asked");
        Self::Unavailable
    }
}

/// What the guard says of a socket, as a refusal where it is one.
pub(super) fn admitted(entry: Entry) -> Result<(), Refusal> {
    match entry {
        Entry::Admitted => Ok(()),
        Entry::Banned(left) => Err(Refusal::Banned(Some(left))),
        Entry::Limited(_, wait) => Err(Refusal::Limited(wait)),
    }
}
