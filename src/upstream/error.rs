//! What can go wrong when a service is called.

/// A call that gave no answer to work with; its text never holds tokens, bodies or addresses of users.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// The service refused, in a way the contract names for this call.
    #[error("refused with status {status}: {reason}")]
    Refused {
        /// The HTTP status; 200 where the body says no.
        status: u16,
        /// One word for what was refused.
        reason: &'static str,
    },
    /// The service is away, or answers what the contract does not know.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The client itself cannot be set up.
    #[error("cannot call services: {0}")]
    Setup(String),
}

impl UpstreamError {
    /// The code of this error in logs and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Setup(_) => "internal",
        }
    }

    /// Whether the same call may succeed later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
