//! Why an event of a client was not done, in the contract's codes.

use std::time::Duration;

use crate::redis::RedisError;
use crate::upstream::UpstreamError;

/// When a client may try again after an outage: long enough for a restart, short enough to feel like a hiccup.
const OUTAGE_RETRY: Duration = Duration::from_secs(2);

/// A refusal or failure, as the client gets it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChatError {
    /// The payload is not what the event needs.
    #[error("{0}")]
    BadPayload(String),
    /// A text or payload is too long.
    #[error("{0}")]
    TooLarge(String),
    /// More rooms in one request than are answered.
    #[error("at most {0} rooms in one request")]
    TooManyRooms(usize),
    /// A field names somebody else.
    #[error("`{0}` is not yours")]
    NotYou(&'static str),
    /// The caller does not belong to the room.
    #[error("you are not a member of this room")]
    NotMember,
    /// The room service says that the request is forged: the caller is blocked.
    #[error("you're banned")]
    Forged,
    /// The caller belongs to the room and has not joined it.
    #[error("join the room first")]
    NotJoined,
    /// Somebody else wrote the message.
    #[error("only the author may do this")]
    NotAuthor,
    /// There is no such message.
    #[error("there is no such message")]
    NotFound,
    /// Too many requests.
    #[error("too many requests")]
    RateLimited(Duration),
    /// The caller is blocked.
    #[error("{0}")]
    Blocked(String),
    /// Something that is needed is away; nothing was done.
    #[error("{0} is not available right now")]
    Unavailable(&'static str),
    /// It may have been done or not.
    #[error("it is not known whether this was done; send it again with the same cid")]
    Uncertain,
    /// The `cid` stands for other content.
    #[error("this cid was used for another message")]
    CidConflict,
    /// The room was deleted.
    #[error("the room was deleted")]
    RoomGone,
    /// The access token has ended.
    #[error("the access token has expired")]
    AuthExpired,
    /// The caller's token cannot be checked.
    #[error("the login cannot be checked right now")]
    AuthUnavailable,
    /// Our fault.
    #[error("internal error")]
    Internal,
}

impl ChatError {
    /// The code of the contract.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadPayload(_) | Self::NotYou(_) => "bad_payload",
            Self::TooLarge(_) => "too_large",
            Self::TooManyRooms(_) => "too_many_rooms",
            Self::NotMember => "not_member",
            Self::NotJoined => "not_joined",
            Self::NotAuthor => "not_author",
            Self::NotFound => "not_found",
            Self::RateLimited(_) => "rate_limited",
            Self::Blocked(_) | Self::Forged => "blocked",
            Self::Unavailable(_) => "unavailable",
            Self::Uncertain => "uncertain",
            Self::CidConflict => "cid_conflict",
            Self::RoomGone => "room_gone",
            Self::AuthExpired => "auth_expired",
            Self::AuthUnavailable => "auth_unavailable",
            Self::Internal => "internal",
        }
    }

    /// When trying again makes sense.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(after) => Some(*after),
            Self::Unavailable(_) | Self::Uncertain | Self::AuthUnavailable => Some(OUTAGE_RETRY),
            _ => None,
        }
    }

    /// Whether an honest client would not have caused it: it counts as a strike.
    pub fn is_strike(&self) -> bool {
        matches!(self, Self::NotMember | Self::NotYou(_))
    }

    /// Whether the same request may succeed later.
    pub fn retryable(&self) -> bool {
        self.retry_after().is_some()
    }
}

impl ChatError {
    /// The error of a post: one that was not answered may have been stored.
    pub fn from_post(error: RedisError) -> Self {
        match error {
            RedisError::Uncertain(reason) => {
                tracing::warn!(reason, "post without an answer");
                Self::Uncertain
            }
            // The script ran: only its answer is strange.
            RedisError::Unexpected(what) => {
                tracing::error!(what, "post with an unreadable answer");
                Self::Uncertain
            }
            error => error.into(),
        }
    }
}

impl From<RedisError> for ChatError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Unavailable => Self::Unavailable("the message store"),
            // What was only read, or can be repeated, is simply not available; see `from_post` for what is not.
            RedisError::Uncertain(reason) => {
                tracing::warn!(reason, "Redis call without an answer");
                Self::Unavailable("the message store")
            }
            error @ (RedisError::Refused(_) | RedisError::Unexpected(_)) => {
                tracing::error!(%error, "Redis call failed");
                Self::Internal
            }
        }
    }
}

impl From<UpstreamError> for ChatError {
    fn from(error: UpstreamError) -> Self {
        tracing::warn!(%error, "service call failed");
        Self::Unavailable("the room service")
    }
}

impl From<std::sync::Arc<UpstreamError>> for ChatError {
    fn from(error: std::sync::Arc<UpstreamError>) -> Self {
        tracing::warn!(%error, "service call failed");
        Self::Unavailable("the room service")
    }
}
