//! What the attacker did and what it was told.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counted while it lasts.
#[derive(Debug, Default)]
pub struct Tally {
    /// Connections begun.
    pub tries: AtomicU64,
    /// Without an answer: no TCP connection, cut before it, or too late.
    pub failed: AtomicU64,
    /// 101 or 200.
    pub accepted: AtomicU64,
    /// 403, or a refused CONNECT.
    pub forbidden: AtomicU64,
    /// 429.
    pub throttled: AtomicU64,
    /// 503.
    pub unavailable: AtomicU64,
    /// Any other answer.
    pub other: AtomicU64,
    /// Cut after they were accepted.
    pub cut: AtomicU64,
    /// Events written.
    pub events: AtomicU64,
    /// Bytes written beside the heads.
    pub bytes: AtomicU64,
    /// Accepted and not closed by the other side, now.
    pub open: AtomicU64,
    /// The most that were open at a time.
    pub open_max: AtomicU64,
}

/// The same as the attacker prints it, by the same names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub tries: u64,
    pub failed: u64,
    pub accepted: u64,
    pub forbidden: u64,
    pub throttled: u64,
    pub unavailable: u64,
    pub other: u64,
    pub cut: u64,
    pub events: u64,
    pub bytes: u64,
    pub open_max: u64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    /// Sorts an answer by its status; true when the door is open.
    pub fn answered(&self, status: Option<u16>) -> bool {
        count(match status {
            None => &self.failed,
            Some(101 | 200) => &self.accepted,
            Some(403) => &self.forbidden,
            Some(429) => &self.throttled,
            Some(503) => &self.unavailable,
            Some(_) => &self.other,
        });
        matches!(status, Some(101 | 200))
    }

    /// One is open, until [`closed`](Self::closed).
    pub fn opened(&self) {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_max.fetch_max(open, Ordering::Relaxed);
    }

    /// The other side closed one that was open.
    pub fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        count(&self.cut);
    }

    /// As it is printed.
    pub fn report(&self) -> Report {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Report {
            tries: of(&self.tries),
            failed: of(&self.failed),
            accepted: of(&self.accepted),
            forbidden: of(&self.forbidden),
            throttled: of(&self.throttled),
            unavailable: of(&self.unavailable),
            other: of(&self.other),
            cut: of(&self.cut),
            events: of(&self.events),
            bytes: of(&self.bytes),
            open_max: of(&self.open_max),
        }
    }
}

impl Report {
    /// Adds another round.
    pub fn add(&mut self, other: &Self) {
        self.tries += other.tries;
        self.failed += other.failed;
        self.accepted += other.accepted;
        self.forbidden += other.forbidden;
        self.throttled += other.throttled;
        self.unavailable += other.unavailable;
        self.other += other.other;
        self.cut += other.cut;
        self.events += other.events;
        self.bytes += other.bytes;
        self.open_max = self.open_max.max(other.open_max);
    }
}
