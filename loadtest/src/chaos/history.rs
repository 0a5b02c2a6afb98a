//! What all members of a run share: the checker that records them, and where each of them stands.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::checker::{Checker, Mode};

/// Findings kept; a broken deployment would repeat itself for an hour.
const FINDINGS_MAX: usize = 200;

/// A room as the writers and the probes see it.
#[derive(Debug)]
pub struct RoomState {
    /// Its id.
    pub name: String,
    /// The newest probe that was acked here.
    pub acked_probe: AtomicU64,
    /// Whether its writers write as much as they can, to fill the buffers of slow readers.
    pub loud: AtomicBool,
}

/// Where one member stands.
#[derive(Debug)]
pub struct MemberState {
    /// Its name in the report.
    pub name: String,
    /// Index of its room.
    pub room: usize,
    /// The newest probe it saw.
    pub seen_probe: AtomicU64,
    /// The newest place it saw.
    pub top_seq: AtomicU64,
    /// The id of its present socket; empty while it has none.
    sid: Mutex<String>,
    /// Whether it is in its room.
    pub joined: AtomicBool,
    /// Nothing of it is still to be acked, and nothing will come.
    pub idle: AtomicBool,
    /// Ms since the start until which we kept it from reading ourselves; `u64::MAX` while we do.
    held: AtomicU64,
}

impl MemberState {
    /// The id of its present socket; empty while it has none.
    pub fn sid(&self) -> String {
        self.sid.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes its present socket.
    pub fn set_sid(&self, sid: &str) {
        sid.clone_into(&mut self.sid.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The end of a member's connection.
#[derive(Clone, Copy, Debug)]
pub struct Gone {
    /// When it ended, since the start of the run.
    pub lost_at: Duration,
    /// Whether the member left because it was told to, at the moment it was given.
    pub left: bool,
}

/// An end and the connection after it.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    /// The end.
    pub gone: Gone,
    /// When the member was connected again, since the start of the run.
    pub back_at: Duration,
}

/// What happened, for the summary.
#[derive(Debug, Default)]
pub struct Tally {
    /// Messages acked for the first time.
    pub acked: AtomicU64,
    /// Messages sent again.
    pub resent: AtomicU64,
    /// Acks that named an earlier try.
    pub deduplicated: AtomicU64,
    /// Events received, repeats included.
    pub received: AtomicU64,
    /// Connections made after the first.
    pub reconnects: AtomicU64,
    /// Attempts to connect that failed.
    pub refused: AtomicU64,
    /// `sync:lost` received.
    pub sync_lost: AtomicU64,
}

/// The shared record of a run.
#[derive(Debug)]
pub struct History {
    /// Rooms by index.
    pub rooms: Vec<RoomState>,
    /// Members by index.
    pub members: Vec<MemberState>,
    /// Sums.
    pub tally: Tally,
    /// Set when writers are to finish what they have begun.
    pub closing: AtomicBool,
    probe: AtomicU64,
    checker: Mutex<Checker>,
    findings: Mutex<Vec<(u64, String)>>,
    returns: Mutex<Vec<Return>>,
    start: Instant,
}

impl History {
    /// Rooms `room-0`…, member *i* in room *i* mod `rooms`.
    pub fn new(rooms: usize, names: Vec<String>) -> Self {
        let members = names.into_iter().enumerate().map(|(index, name)| MemberState {
            name,
            room: index % rooms,
            seen_probe: AtomicU64::new(0),
            top_seq: AtomicU64::new(0),
            sid: Mutex::default(),
            joined: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            held: AtomicU64::new(0),
        });
        let rooms = (0..rooms).map(|index| RoomState {
            name: format!("room-{index}"),
            acked_probe: AtomicU64::new(0),
            loud: AtomicBool::new(false),
        });
        Self {
            rooms: rooms.collect(),
            members: members.collect(),
            tally: Tally::default(),
            closing: AtomicBool::new(false),
            probe: AtomicU64::new(0),
            // A legacy reader may get again, once after a reconnect, what it has.
            checker: Mutex::new(Checker::new(Mode::Legacy)),
            findings: Mutex::default(),
            returns: Mutex::default(),
            start: Instant::now(),
        }
    }

    /// The checker, to feed.
    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every writer to carry a new probe from now on, and names it.
    pub fn new_probe(&self) -> u64 {
        self.probe.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The newest probe.
    pub fn probe(&self) -> u64 {
        self.probe.load(Ordering::Relaxed)
    }

    /// Notes something that must not happen and that the checker cannot see.
    pub fn find(&self, finding: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < FINDINGS_MAX {
            findings.push((unix_ms(), finding));
        }
    }

    /// Everything found so far, with its time in Unix ms.
    pub fn findings(&self) -> Vec<(u64, String)> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that a member is connected again.
    pub fn note_return(&self, gone: Gone) {
        let back_at = self.elapsed();
        let mut returns = self.returns.lock().unwrap_or_else(PoisonError::into_inner);
        returns.push(Return { gone, back_at });
    }

    /// Those whose connection ended after this time of the run.
    pub fn returns_since(&self, since: Duration) -> Vec<Return> {
        let returns = self.returns.lock().unwrap_or_else(PoisonError::into_inner);
        let since = returns.iter().filter(|one| one.gone.lost_at >= since);
        since.copied().collect()
    }

    /// Notes that we keep a member from reading, or no longer.
    pub fn hold(&self, member: usize, held: bool) {
        let until = if held { u64::MAX } else { self.elapsed_ms() };
        self.members[member].held.store(until, Ordering::Relaxed);
    }

    /// How long a member has been left alone; `None` while we keep it from reading.
    pub fn free_for(&self, member: usize) -> Option<Duration> {
        match self.members[member].held.load(Ordering::Relaxed) {
            u64::MAX => None,
            until => Some(Duration::from_millis(self.elapsed_ms().saturating_sub(until))),
        }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Now, as the server's `ts` counts.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
