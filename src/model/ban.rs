//! A ban: who is kept out, why, by whom and until when.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Scope, UnixMs, unix_ms};

/// Who decided on a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A rule of the guard: its length follows the ladder.
    Auto,
    /// An operator.
    Admin,
}

impl Origin {
    /// The word in Redis and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Admin => "admin",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Whom it keeps out.
    pub scope: Scope,
    /// Why: a rule's name, or an operator's words.
    pub reason: String,
    /// Who decided on it.
    pub origin: Origin,
    /// The node, or the operator, that set it.
    pub actor: String,
    /// When it began, Unix ms of the Redis server.
    pub since: UnixMs,
    /// When it ends, Unix ms of the Redis server.
    pub until: UnixMs,
    /// Its step of the ladder, from 1; 0 for a ban of fixed length before any of the ladder.
    pub level: u32,
}

impl Ban {
    /// The reason as clients learn it: a rule's name. An operator's words are for operators.
    pub fn code(&self) -> &str {
        match self.origin {
            Origin::Auto => &self.reason,
            Origin::Admin => "banned",
        }
    }

    /// How long it still lasts by this clock.
    pub fn left_at(&self, now: UnixMs) -> Duration {
        Duration::from_millis(self.until.saturating_sub(now))
    }

    /// How long it still lasts by this machine's clock.
    pub fn left(&self) -> Duration {
        self.left_at(unix_ms())
    }
}
