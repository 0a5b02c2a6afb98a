//! The verdict: violations that a person can find, and how much was looked at.

use std::fmt;

/// Violations kept in full; beyond that a run is so broken that only their number matters.
const KEPT: usize = 10_000;

/// Violations printed.
const PRINTED: usize = 50;

/// A place in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The epoch.
    pub epoch: String,
    /// The place in the room.
    pub seq: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.epoch, self.seq)
    }
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what the fields are")]
pub enum Violation {
    /// An acked message is not in the log.
    #[error("room {room}: {key:?} of writer {writer}, acked at {at}, is not in the log")]
    AckLost {
        room: String,
        writer: String,
        key: String,
        at: Place,
    },
    /// An acked message is in the log, but elsewhere or under another id.
    #[error("room {room}: {key:?} of writer {writer} was acked at {acked} but stands at {found} (or has another id)")]
    AckMisplaced {
        room: String,
        writer: String,
        key: String,
        acked: Place,
        found: Place,
    },
    /// A message of the log never came to the archive, or with another place.
    #[error("room {room}: {key:?} at {at} is not in the archive")]
    NotArchived { room: String, key: String, at: Place },
    /// The archive shows a message twice.
    #[error("room {room}: the archive has {key:?} at {first} and at {second}")]
    ArchivedTwice {
        room: String,
        key: String,
        first: Place,
        second: Place,
    },
    /// A reader saw a tail that is lost and went on in the new epoch without being told.
    #[error("room {room}: reader {reader} saw {lost}, which is lost, and went on at {at} without being told")]
    LossHidden {
        room: String,
        reader: String,
        lost: Place,
        at: Place,
    },
    /// Two acks of one message disagree.
    #[error("room {room}: {key:?} was acked at {first} and at {second} (or with two ids)")]
    AckContradiction {
        room: String,
        key: String,
        first: Place,
        second: Place,
    },
    /// An answer about a message nobody sent.
    #[error("room {room}: writer {writer} got an answer about {key:?}, which was never sent")]
    AckAlien { room: String, writer: String, key: String },
    /// A message stands at two places.
    #[error("room {room}: {key:?} is stored at {first} and at {second}")]
    StoredTwice {
        room: String,
        key: String,
        first: Place,
        second: Place,
    },
    /// A refused message was stored all the same.
    #[error("room {room}: {key:?} of writer {writer} was refused but stands at {at}")]
    RefusedStored {
        room: String,
        writer: String,
        key: String,
        at: Place,
    },
    /// The log skips places, repeats them or runs backwards.
    #[error("room {room}: the log goes from {after} to {found}")]
    LogBroken { room: String, after: Place, found: Place },
    /// Something was stored or delivered that nobody sent.
    #[error("room {room}: {key:?} at {at} was never sent (seen by {seen_by})")]
    Alien {
        room: String,
        key: String,
        at: Place,
        seen_by: String,
    },
    /// One place holds different events for different observers.
    #[error("room {room}: {at} holds {expected:?} but reader {reader} saw {found:?}")]
    Conflict {
        room: String,
        reader: String,
        at: Place,
        expected: String,
        found: String,
    },
    /// A delivery has no place in the log.
    #[error("room {room}: reader {reader} saw {at}, which is not in the log")]
    NotInLog { room: String, reader: String, at: Place },
    /// The messages of one writer changed their order.
    #[error("room {room}: {key:?} of writer {writer} stands at {at}, behind {later_key:?}, which was sent later")]
    WriterOrder {
        room: String,
        writer: String,
        key: String,
        at: Place,
        later_key: String,
    },
    /// Server time does not rise along the room.
    #[error("room {room}: ts {ts} at {at} is not above {before} of an earlier place")]
    TimeNotRising {
        room: String,
        at: Place,
        ts: u64,
        before: u64,
    },
    /// Readers disagree about the order of epochs.
    #[error("room {room}: readers saw the epochs in contradicting orders: {epochs}")]
    EpochOrder { room: String, epochs: String },
    /// A reader missed events and was not told.
    #[error("room {room}: reader {reader} missed {count} from {from} to {to}")]
    Gap {
        room: String,
        reader: String,
        from: Place,
        to: Place,
        count: u64,
    },
    /// A reader stayed to the end and did not get the last events.
    #[error("room {room}: reader {reader} never got the last {count}, from {from} to {to}")]
    TailMissing {
        room: String,
        reader: String,
        from: Place,
        to: Place,
        count: u64,
    },
    /// A reader got an event after later ones.
    #[error("room {room}: reader {reader} got {at} after {later}")]
    Disorder {
        room: String,
        reader: String,
        at: Place,
        later: Place,
    },
    /// A reader got an event again without a reason.
    #[error("room {room}: reader {reader} got {at} twice")]
    Duplicate { room: String, reader: String, at: Place },
}

/// How much was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rooms with any history.
    pub rooms: u64,
    /// Pairs of reader and room.
    pub readers: u64,
    /// Different messages sent.
    pub sent: u64,
    /// Different messages acked in the end.
    pub acked: u64,
    /// Different messages refused in the end.
    pub refused: u64,
    /// Different messages whose fate was left open, unanswered ones included.
    pub uncertain: u64,
    /// Open ones that turned out to be stored.
    pub uncertain_stored: u64,
    /// Acked messages that a failover took with it, announced by a new epoch.
    pub lost_acked: u64,
    /// Deliveries of something that a failover took with it, announced by a new epoch.
    pub lost_seen: u64,
    /// Archive entries given.
    pub archived: u64,
    /// Acks received, repeats included.
    pub acks: u64,
    /// Refusals received, repeats included.
    pub refusals: u64,
    /// Log entries given.
    pub logged: u64,
    /// Acks and deliveries older than the beginning of a trimmed log.
    pub unverifiable: u64,
    /// Deliveries fed, duplicates included.
    pub deliveries: u64,
    /// Deliveries of something the reader had already.
    pub duplicates: u64,
    /// Different events owed to readers.
    pub expected: u64,
    /// Of these, the ones that came.
    pub delivered: u64,
    /// Reconnects of readers.
    pub reconnects: u64,
    /// Times a reader was told that it cannot catch up.
    pub told_unrecovered: u64,
    /// Readers that joined anywhere and saw nothing: not judged.
    pub unanchored: u64,
}

/// The verdict on a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first ten thousand violations.
    pub violations: Vec<Violation>,
    /// How many there are in all.
    pub total_violations: u64,
    /// How much was looked at.
    pub counts: Counts,
    /// Server times of the acked messages that a failover took with it.
    pub lost_at: Vec<u64>,
}

impl Report {
    /// True when no promise was broken; look at the counts too, an empty run is clean.
    pub fn is_clean(&self) -> bool {
        self.total_violations == 0
    }

    /// Delivered of expected, 1 where nothing was owed.
    pub fn delivered_ratio(&self) -> f64 {
        if self.counts.expected == 0 {
            1.0
        } else {
            self.counts.delivered as f64 / self.counts.expected as f64
        }
    }

    /// The kept violations of a kind.
    pub fn count(&self, kind: impl Fn(&Violation) -> bool) -> usize {
        self.violations.iter().filter(|violation| kind(violation)).count()
    }

    pub(super) fn add(&mut self, violation: Violation) {
        self.total_violations += 1;
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        }
    }
}

impl Violation {
    /// The room it is about.
    pub fn room(&self) -> &str {
        match self {
            Self::AckLost { room, .. }
            | Self::AckMisplaced { room, .. }
            | Self::NotArchived { room, .. }
            | Self::ArchivedTwice { room, .. }
            | Self::LossHidden { room, .. }
            | Self::AckContradiction { room, .. }
            | Self::AckAlien { room, .. }
            | Self::StoredTwice { room, .. }
            | Self::RefusedStored { room, .. }
            | Self::LogBroken { room, .. }
            | Self::Alien { room, .. }
            | Self::Conflict { room, .. }
            | Self::NotInLog { room, .. }
            | Self::WriterOrder { room, .. }
            | Self::TimeNotRising { room, .. }
            | Self::EpochOrder { room, .. }
            | Self::Gap { room, .. }
            | Self::TailMissing { room, .. }
            | Self::Disorder { room, .. }
            | Self::Duplicate { room, .. } => room,
        }
    }

    /// The first place it is about, where it has one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::AckLost { at, .. }
            | Self::NotArchived { at, .. }
            | Self::LossHidden { at, .. }
            | Self::RefusedStored { at, .. }
            | Self::Alien { at, .. }
            | Self::Conflict { at, .. }
            | Self::NotInLog { at, .. }
            | Self::WriterOrder { at, .. }
            | Self::TimeNotRising { at, .. }
            | Self::Disorder { at, .. }
            | Self::Duplicate { at, .. } => Some(at),
            Self::AckMisplaced { acked: at, .. }
            | Self::AckContradiction { first: at, .. }
            | Self::ArchivedTwice { first: at, .. }
            | Self::StoredTwice { first: at, .. }
            | Self::LogBroken { after: at, .. }
            | Self::Gap { from: at, .. }
            | Self::TailMissing { from: at, .. } => Some(at),
            Self::AckAlien { .. } | Self::EpochOrder { .. } => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = &self.counts;
        writeln!(
            f,
            "{} rooms, {} readers: sent {}, acked {}, refused {}, uncertain {} (stored {}), logged {}",
            c.rooms, c.readers, c.sent, c.acked, c.refused, c.uncertain, c.uncertain_stored, c.logged
        )?;
        writeln!(
            f,
            "delivered {} of {} expected ({:.4} %), {} deliveries, {} duplicates, {} reconnects, {} told unrecovered",
            c.delivered,
            c.expected,
            self.delivered_ratio() * 100.0,
            c.deliveries,
            c.duplicates,
            c.reconnects,
            c.told_unrecovered
        )?;
        if c.unverifiable + c.unanchored > 0 {
            writeln!(
                f,
                "not judged: {} before the log begins, {} readers without a start",
                c.unverifiable, c.unanchored
            )?;
        }
        if c.lost_acked + c.lost_seen > 0 {
            writeln!(
                f,
                "lost with a failover and announced: {} acked messages, {} deliveries",
                c.lost_acked, c.lost_seen
            )?;
        }
        write!(f, "{} violations", self.total_violations)?;
        for violation in self.violations.iter().take(PRINTED) {
            write!(f, "\n  {violation}")?;
        }
        let more = self.total_violations.saturating_sub(PRINTED as u64);
        if more > 0 {
            write!(f, "\n  … and {more} more")
        } else {
            Ok(())
        }
    }
}
