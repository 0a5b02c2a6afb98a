//! Why questions end without a reply: what the room is told, and what operators keep.

use super::words;
use crate::redis::{Purse, Question};

/// Why a question ends without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Too many wait; asking again may help.
    Refused(&'static str),
    /// It failed: operators keep it, and may have it tried again.
    Failed {
        /// One word for it.
        code: &'static str,
        /// Whether asking again may help.
        retryable: bool,
    },
    /// Somebody's tokens of the day are used up.
    OverBudget(Purse),
    /// It was taken back, or there is nothing to answer.
    Cancelled,
}

impl Why {
    /// A failure.
    pub fn failed(code: &'static str, retryable: bool) -> Self {
        Self::Failed { code, retryable }
    }

    /// One word for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Refused(code) | Self::Failed { code, .. } => code,
            Self::OverBudget(_) => "budget",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the question is kept for operators.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Failed { .. })
    }

    /// Name and JSON of the event that tells the room.
    pub fn event(self, question: &Question) -> (&'static str, String) {
        match self {
            Self::Refused(code) => words::error(question, code, true),
            Self::Failed { code, retryable } => words::error(question, code, retryable),
            Self::OverBudget(purse) => words::over_budget(question, purse),
            Self::Cancelled => words::cancelled(question),
        }
    }
}
