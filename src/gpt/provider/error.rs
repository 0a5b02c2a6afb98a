//! What can go wrong when a model is asked.

use std::time::Duration;

/// A reply that did not come, or not to its end; its text holds neither key nor prompt nor what the endpoint wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No endpoint answers as it should.
    #[error("the model is unavailable: {problem}")]
    Unavailable {
        /// What was seen, in fixed words.
        problem: String,
        /// When an endpoint will be asked again.
        retry_after: Option<Duration>,
    },
    /// The endpoint asks to wait.
    #[error("the model's endpoint asks to wait")]
    RateLimited {
        /// How long, where it said so.
        retry_after: Option<Duration>,
    },
    /// The endpoint does not accept the key, or the account behind it.
    #[error("the endpoint refuses the key or the account (status {0}); check GPT_API_KEY")]
    Unauthorized(u16),
    /// The prompt has more tokens than the model can hold.
    #[error("the prompt is too long for the model; lower GPT_CONTEXT_TOKENS")]
    ContextTooLong,
    /// What came is no stream of a reply, or broke off.
    #[error("the reply cannot be read: {0}")]
    BadStream(&'static str),
    /// No token in time.
    #[error("the model is too slow: no {0}")]
    Timeout(&'static str),
    /// The reply is longer than `GPT_MAX_REPLY_BYTES`.
    #[error("the reply is too large")]
    TooLarge,
    /// The endpoint will not answer this prompt.
    #[error("the endpoint refuses the prompt: {0}")]
    Refused(String),
}

impl ProviderError {
    pub(super) fn unavailable(problem: impl Into<String>) -> Self {
        Self::Unavailable {
            problem: problem.into(),
            retry_after: None,
        }
    }

    /// The code of this error for clients, logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "provider_unavailable",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthorized(_) => "unauthorized",
            Self::ContextTooLong => "context_too_long",
            Self::BadStream(_) => "bad_stream",
            Self::Timeout(_) => "timeout",
            Self::TooLarge => "too_large",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether the same prompt may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::RateLimited { .. } | Self::BadStream(_) | Self::Timeout(_)
        )
    }

    /// How long to wait at least, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } | Self::RateLimited { retry_after } => *retry_after,
            _ => None,
        }
    }

    /// Whether the prompt is at fault, not the endpoint.
    pub(super) fn is_of_the_prompt(&self) -> bool {
        matches!(self, Self::ContextTooLong | Self::Refused(_))
    }

    /// Of two failures the one that says when to come back: retryable before final, soon before late, first before second.
    pub(super) fn more_promising(self, other: Self) -> Self {
        let rank = |error: &Self| (!error.retryable(), error.retry_after().unwrap_or_default());
        if rank(&other) < rank(&self) { other } else { self }
    }
}
