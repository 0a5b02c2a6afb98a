//! Judges a finished run: given what was sent, acked, logged and received, it names every broken promise.
//!
//! Pure logic without IO. Steps of one reader in one room must be fed in the order in which they happened, and so must
//! the `sent` of one writer in one room; otherwise the order of calls does not matter.

use std::collections::{BTreeMap, HashMap};

mod judge;
mod names;
mod report;
mod truth;
mod view;

use names::{Name, Names};
pub use report::{Counts, Place, Report, Violation};

/// How strictly duplicates are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An event may come again, once after each [`reconnected`](Checker::reconnected); nowhere else.
    Legacy,
    /// No event may come twice.
    Strict,
}

/// What a failover may take with it; only where the log shows a new epoch that begins at or below the lost place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LostTail {
    /// Nothing.
    #[default]
    Never,
    /// What was delivered but never acked.
    Unacked,
    /// Acked messages too; they are counted.
    Acked,
}

/// An event at its place in a room, as the log or a delivery shows it.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The epoch, opaque text.
    pub epoch: &'a str,
    /// The place in the room.
    pub seq: u64,
    /// The server's id of the message.
    pub id: &'a str,
    /// What the writer wrote, unique in the room; `None` for the server's own events, which nobody sent.
    pub key: Option<&'a str>,
}

/// What an acknowledgement promised.
#[derive(Clone, Copy, Debug)]
pub struct Receipt<'a> {
    /// The server's id of the message.
    pub id: &'a str,
    /// The epoch, opaque text.
    pub epoch: &'a str,
    /// The place in the room.
    pub seq: u64,
    /// Server time in Unix ms.
    pub ts: u64,
}

/// Collects the history of a run; [`finish`](Checker::finish) judges it.
#[derive(Debug)]
pub struct Checker {
    mode: Mode,
    lost_tail: LostTail,
    names: Names,
    rooms: BTreeMap<Name, Room>,
    counts: Counts,
}

/// Everything fed about one room. As large as the run itself; a reader's step takes 32 bytes.
#[derive(Debug, Default)]
struct Room {
    sent: HashMap<Name, Sent>,
    log: Option<Vec<Item>>,
    archive: Option<Vec<Item>>,
    readers: BTreeMap<Name, Vec<Step>>,
    /// Acks of one key that named different places.
    contradictions: Vec<(Name, Ack, Ack)>,
    /// Outcomes reported for keys that were never sent.
    strays: Vec<(Name, Name)>,
}

#[derive(Debug)]
struct Sent {
    writer: Name,
    /// Position among everything sent to the room.
    order: usize,
    /// More than one: a resend, whose place says nothing about the order of sending.
    tries: u32,
    /// How much had been sent to the room when its ack was first fed: all of that writer's later ones stand behind it.
    settled: Option<usize>,
    outcome: Outcome,
}

/// Ordered by what it proves: an ack outweighs a doubt, a doubt outweighs a refusal.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Unanswered,
    Refused,
    Uncertain,
    Acked(Ack),
}

#[derive(Clone, Copy, Debug)]
struct Ack {
    at: Spot,
    id: Name,
    ts: u64,
}

/// A place with its epoch interned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spot {
    epoch: Name,
    seq: u64,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    at: Spot,
    id: Name,
    key: Option<Name>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Joined(Option<Spot>),
    Received(Item),
    Reconnected,
    Recovered(bool),
    TailLost,
    Left,
}

impl Checker {
    /// An empty history.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            lost_tail: LostTail::default(),
            names: Names::default(),
            rooms: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// Sets what a failover may take with it; nothing by default.
    pub fn allow_lost_tail(&mut self, lost_tail: LostTail) {
        self.lost_tail = lost_tail;
    }

    /// A writer sent a message; again with the same key when it is resent.
    pub fn sent(&mut self, writer: &str, room: &str, key: &str) {
        let (writer, key) = (self.names.intern(writer), self.names.intern(key));
        let room = self.room(room);
        let order = room.sent.len();
        let sent = room.sent.entry(key).or_insert(Sent {
            writer,
            order,
            tries: 0,
            settled: None,
            outcome: Outcome::Unanswered,
        });
        sent.tries += 1;
    }

    /// The server promised to keep it.
    pub fn acked(&mut self, writer: &str, room: &str, key: &str, receipt: Receipt<'_>) {
        let at = Spot {
            epoch: self.names.intern(receipt.epoch),
            seq: receipt.seq,
        };
        let ack = Ack {
            at,
            id: self.names.intern(receipt.id),
            ts: receipt.ts,
        };
        self.settle(writer, room, key, Outcome::Acked(ack));
    }

    /// No answer, or one that leaves it open: it may be in the log, at most once.
    pub fn uncertain(&mut self, writer: &str, room: &str, key: &str) {
        self.settle(writer, room, key, Outcome::Uncertain);
    }

    /// The server said no: it must not be in the log.
    pub fn refused(&mut self, writer: &str, room: &str, key: &str) {
        self.settle(writer, room, key, Outcome::Refused);
    }

    /// The room's log in its own order, read after the run; may be given in consecutive pieces, and begin late (trimmed).
    pub fn log<'a>(&mut self, room: &str, entries: impl IntoIterator<Item = Entry<'a>>) {
        let items: Vec<_> = entries.into_iter().map(|entry| self.item(&entry)).collect();
        self.room(room).log.get_or_insert_default().extend(items);
    }

    /// What the archive holds of a room, read after the run, in any order; may be given in pieces.
    pub fn archive<'a>(&mut self, room: &str, entries: impl IntoIterator<Item = Entry<'a>>) {
        let items: Vec<_> = entries.into_iter().map(|entry| self.item(&entry)).collect();
        self.room(room).archive.get_or_insert_default().extend(items);
    }

    /// A reader received an event, live or replayed.
    pub fn received(&mut self, reader: &str, room: &str, entry: Entry<'_>) {
        let item = self.item(&entry);
        self.step(reader, room, Step::Received(item));
    }

    /// A reader joined and must see everything after `from` (epoch, seq); `None`: from its first event on.
    ///
    /// `("", 0)` means from the beginning. A reader without `from` that receives nothing cannot be judged
    /// ([`Counts::unanchored`]).
    pub fn joined(&mut self, reader: &str, room: &str, from: Option<(&str, u64)>) {
        let from = from.map(|(epoch, seq)| Spot {
            epoch: self.names.intern(epoch),
            seq,
        });
        self.step(reader, room, Step::Joined(from));
    }

    /// A reader lost its connection and has a new one; its obligation goes on.
    pub fn reconnected(&mut self, reader: &str, room: &str) {
        self.step(reader, room, Step::Reconnected);
    }

    /// What the server said about continuity: after `false` the view starts anew at the next event.
    pub fn recovered(&mut self, reader: &str, room: &str, recovered: bool) {
        self.step(reader, room, Step::Recovered(recovered));
    }

    /// A reader was told that what it saw last may be gone; what it is owed does not change.
    pub fn tail_lost(&mut self, reader: &str, room: &str) {
        self.step(reader, room, Step::TailLost);
    }

    /// A reader left, or was cut for good: nothing after this is owed to it.
    pub fn left(&mut self, reader: &str, room: &str) {
        self.step(reader, room, Step::Left);
    }

    /// Judges everything fed so far.
    pub fn finish(&self) -> Report {
        judge::judge(self)
    }

    fn room(&mut self, room: &str) -> &mut Room {
        let room = self.names.intern(room);
        self.rooms.entry(room).or_default()
    }

    fn item(&mut self, entry: &Entry<'_>) -> Item {
        let at = Spot {
            epoch: self.names.intern(entry.epoch),
            seq: entry.seq,
        };
        Item {
            at,
            id: self.names.intern(entry.id),
            key: entry.key.map(|key| self.names.intern(key)),
        }
    }

    fn step(&mut self, reader: &str, room: &str, step: Step) {
        let reader = self.names.intern(reader);
        self.room(room).readers.entry(reader).or_default().push(step);
    }

    fn settle(&mut self, writer: &str, room: &str, key: &str, outcome: Outcome) {
        let (writer, key) = (self.names.intern(writer), self.names.intern(key));
        match outcome {
            Outcome::Acked(_) => self.counts.acks += 1,
            Outcome::Refused => self.counts.refusals += 1,
            _ => {}
        }
        let room = self.room(room);
        let so_far = room.sent.len();
        let Some(sent) = room.sent.get_mut(&key) else {
            room.strays.push((writer, key));
            return;
        };
        if let (Outcome::Acked(old), Outcome::Acked(new)) = (sent.outcome, outcome)
            && (old.at != new.at || old.id != new.id)
        {
            room.contradictions.push((key, old, new));
        }
        if matches!(outcome, Outcome::Acked(_)) {
            sent.settled.get_or_insert(so_far);
        }
        if sent.outcome.weight() < outcome.weight() {
            sent.outcome = outcome;
        }
    }
}

impl Outcome {
    fn weight(self) -> u8 {
        match self {
            Self::Unanswered => 0,
            Self::Refused => 1,
            Self::Uncertain => 2,
            Self::Acked(_) => 3,
        }
    }
}

#[cfg(test)]
mod tests;
