//! What all clients of a flood share: the clock, the meter, the checker, what was sent and came, and what is wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::meter::Meter;
use crate::checker::{Checker, Mode};

/// Findings kept; a broken node would repeat itself.
const FINDINGS_MAX: usize = 200;

/// The record of one flood.
#[derive(Debug)]
pub struct Ledger {
    /// When it began; messages carry when they were meant to be sent, counted from here.
    pub start: Instant,
    /// How long everybody waited.
    pub meter: Meter,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Messages whose ack came, or will not come any more.
    pub settled: AtomicU64,
    /// Deliveries.
    pub received: AtomicU64,
    /// Newcomers that got in.
    pub entered: AtomicU64,
    /// Tries of newcomers that were refused.
    pub refused_entries: AtomicU64,
    checker: Mutex<Checker>,
    findings: Mutex<Vec<String>>,
}

impl Ledger {
    /// Empty, and begins now.
    pub fn new() -> Result<Self, hdrhistogram::CreationError> {
        Ok(Self {
            start: Instant::now(),
            meter: Meter::new()?,
            sent: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            received: AtomicU64::new(0),
            entered: AtomicU64::new(0),
            refused_entries: AtomicU64::new(0),
            checker: Mutex::new(Checker::new(Mode::Strict)),
            findings: Mutex::default(),
        })
    }

    /// The checker, for a moment.
    pub fn checker(&self) -> MutexGuard<'_, Checker> {
        self.checker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong that the checker cannot see.
    pub fn find(&self, what: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.len() < FINDINGS_MAX {
            findings.push(format!("{:.1} s: {what}", self.start.elapsed().as_secs_f64()));
        }
    }

    /// Everything found so far.
    pub fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that wait for their ack.
    pub fn under_way(&self) -> u64 {
        let settled = self.settled.load(Ordering::Relaxed);
        self.sent.load(Ordering::Relaxed).saturating_sub(settled)
    }

    /// As it travels in a message.
    pub fn to_us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
    }

    /// Back from a message.
    pub fn moment(&self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }
}
