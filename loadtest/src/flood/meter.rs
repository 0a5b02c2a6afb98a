//! How long innocent clients waited, by what happened when they meant to send.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::{CreationError, Histogram};

/// Longer waits are counted as this one.
const LONGEST_US: u64 = 120_000_000;

/// What happens meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Calm,
    /// The bare listener is flooded.
    Listener,
    /// The node is flooded.
    Node,
    /// A flooding is over; what it left is waited for.
    Rest,
}

impl Phase {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Listener => "listener",
            Self::Node => "node",
            Self::Rest => "rest",
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The ack of one's message.
    Ack,
    /// Somebody's message.
    Delivery,
    /// Connecting and joining.
    Entry,
}

/// One measured stretch of time.
#[derive(Clone, Debug)]
pub struct Window {
    /// What happened in it.
    pub phase: Phase,
    /// Share of one core that the node used.
    pub node_cpu: f64,
    from: Instant,
    to: Instant,
    waits: [Histogram<u64>; 3],
}

impl Window {
    /// Ms below which 99 of 100 waits are.
    pub fn p99(&self, wait: Wait) -> f64 {
        self.waits[wait as usize].value_at_quantile(0.99) as f64 / 1000.0
    }

    /// The longest wait in ms.
    pub fn max(&self, wait: Wait) -> f64 {
        self.waits[wait as usize].max() as f64 / 1000.0
    }

    /// How many waits.
    pub fn count(&self, wait: Wait) -> u64 {
        self.waits[wait as usize].len()
    }
}

/// All windows of a flood.
#[derive(Debug)]
pub struct Meter {
    empty: Histogram<u64>,
    windows: Mutex<Vec<Window>>,
}

impl Meter {
    /// No window yet.
    pub fn new() -> Result<Self, CreationError> {
        Ok(Self {
            empty: Histogram::new_with_bounds(1, LONGEST_US, 3)?,
            windows: Mutex::default(),
        })
    }

    /// Begins a window; everything meant to be sent within `length` from now belongs to it, whenever it is answered.
    pub fn begin(&self, phase: Phase, length: Duration) {
        let empty = self.empty.clone();
        let from = Instant::now();
        self.windows().push(Window {
            phase,
            node_cpu: 0.0,
            from,
            to: from + length,
            waits: [empty.clone(), empty.clone(), empty],
        });
    }

    /// Notes what the node used in the newest window.
    pub fn note_cpu(&self, share: f64) {
        if let Some(window) = self.windows().last_mut() {
            window.node_cpu = share;
        }
    }

    /// A wait that was to begin at `meant` is over.
    pub fn record(&self, wait: Wait, meant: Instant, at: Instant) {
        let mut windows = self.windows();
        let window = windows
            .iter_mut()
            .rev()
            .find(|window| (window.from..window.to).contains(&meant));
        if let Some(window) = window {
            let us = at.saturating_duration_since(meant).as_micros();
            window.waits[wait as usize].saturating_record(u64::try_from(us).unwrap_or(LONGEST_US));
        }
    }

    /// The p99 of acks in ms before any flood.
    pub fn calm_p99(&self) -> f64 {
        let windows = self.windows();
        let calm = windows.iter().find(|window| window.phase == Phase::Calm);
        calm.map_or(0.0, |window| window.p99(Wait::Ack))
    }

    /// Takes the newest window away, which was a look at the rest after a flooding; the p99 of its acks in ms.
    pub fn end_rest(&self) -> f64 {
        let mut windows = self.windows();
        let rest = windows.pop_if(|window| window.phase == Phase::Rest);
        rest.map_or(0.0, |window| window.p99(Wait::Ack))
    }

    /// The windows so far.
    pub fn all(&self) -> Vec<Window> {
        self.windows().clone()
    }

    fn windows(&self) -> MutexGuard<'_, Vec<Window>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The middle one, the mean of the two in the middle; 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_where_it_was_meant_to_begin() {
        let meter = Meter::new().unwrap();
        let before = Instant::now();
        meter.begin(Phase::Calm, Duration::from_secs(1));
        let meant = Instant::now();
        meter.record(Wait::Ack, meant, meant + Duration::from_secs(5));
        meter.record(Wait::Ack, before, meant);
        meter.record(
            Wait::Ack,
            meant + Duration::from_secs(2),
            meant + Duration::from_secs(3),
        );
        let windows = meter.all();
        assert_eq!(windows[0].count(Wait::Ack), 1);
        assert!((windows[0].max(Wait::Ack) - 5000.0).abs() < 10.0);
        assert_eq!(windows[0].count(Wait::Delivery), 0);
    }

    #[test]
    fn one_hiccup_does_not_move_the_median() {
        assert_eq!(median(vec![2.0, 900.0, 1.0]), 2.0);
        assert_eq!(median(vec![4.0, 2.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
