//! What a fleet counts: totals, latencies, and a line for each second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies beyond this count as this much, µs.
const LATENCY_MAX: u64 = 120_000_000;
/// Histograms that members share, so that they do not wait for one another.
const SHARDS: usize = 8;

/// Unix time that never goes back, µs.
#[derive(Debug)]
pub struct Clock {
    began: Instant,
    base: u64,
}

impl Default for Clock {
    fn default() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            began: Instant::now(),
            base: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl Clock {
    /// Now, µs.
    pub fn now(&self) -> u64 {
        self.base + u64::try_from(self.began.elapsed().as_micros()).unwrap_or(0)
    }
}

/// A histogram of latencies in µs, with three digits.
pub fn histogram() -> Histogram<u64> {
    // The bounds are constants that fit.
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// Latencies that many record at once.
#[derive(Debug)]
pub struct Latencies {
    shards: Vec<Mutex<Histogram<u64>>>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(histogram())).collect(),
        }
    }
}

impl Latencies {
    /// Records one; `who` spreads the writers.
    pub fn record(&self, who: u32, micros: u64) {
        lock(&self.shards[who as usize % SHARDS]).saturating_record(micros.max(1));
    }

    /// Takes what was recorded since it was taken last.
    pub fn take(&self) -> Histogram<u64> {
        let mut all = histogram();
        for shard in &self.shards {
            let mut shard = lock(shard);
            // Bounds are the same.
            let _same = all.add(&*shard);
            shard.reset();
        }
        all
    }
}

/// What a fleet counts.
#[derive(Debug, Default)]
pub struct Tally {
    /// The one clock of the fleet.
    pub clock: Clock,
    /// Messages written to sockets.
    pub sent: AtomicU64,
    /// Messages acked as stored.
    pub acked: AtomicU64,
    /// Messages and their copies that members received.
    pub received: AtomicU64,
    /// Messages that came again.
    pub doubled: AtomicU64,
    /// Messages that came after a later one of their sender.
    pub disordered: AtomicU64,
    /// Sockets that are in their rooms.
    pub joined: AtomicU64,
    /// Connections that ended although nobody here ended them.
    pub dropped: AtomicU64,
    /// Questions to the model that were asked.
    pub asked: AtomicU64,
    /// Replies that their askers received.
    pub replied: AtomicU64,
    /// Members that left on purpose, to come back.
    pub left: AtomicU64,
    /// Connections of slow readers that the server ended.
    pub slow_dropped: AtomicU64,
    /// From the moment that a message was meant to go to its ack.
    pub ack: Latencies,
    /// From the same moment to a member.
    pub delivery: Latencies,
    /// From dialling to the answer to `join`.
    pub connect: Latencies,
    /// From the moment that a question was meant to go to the first piece of its reply.
    pub first_delta: Latencies,
    refusals: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// Counts something that was refused or failed, by a code or a short text.
    pub fn refused(&self, why: &str) {
        // However odd the errors are, they do not fill the memory.
        const KINDS_MAX: usize = 100;
        let mut refusals = lock(&self.refusals);
        let known = refusals.contains_key(why) || refusals.len() < KINDS_MAX;
        *refusals
            .entry(if known { why } else { "other" }.to_owned())
            .or_default() += 1;
    }

    /// What was refused, by reason.
    pub fn refusals(&self) -> BTreeMap<String, u64> {
        lock(&self.refusals).clone()
    }

    /// The totals now.
    pub fn totals(&self) -> Totals {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            sent: get(&self.sent),
            acked: get(&self.acked),
            received: get(&self.received),
            doubled: get(&self.doubled),
            disordered: get(&self.disordered),
            joined: get(&self.joined),
            dropped: get(&self.dropped),
            slow_dropped: get(&self.slow_dropped),
            left: get(&self.left),
            asked: get(&self.asked),
            replied: get(&self.replied),
            refused: lock(&self.refusals).values().sum(),
        }
    }
}

/// The totals of a tally at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in `Tally`")]
pub struct Totals {
    pub sent: u64,
    pub acked: u64,
    pub received: u64,
    pub doubled: u64,
    pub disordered: u64,
    pub joined: u64,
    pub dropped: u64,
    #[serde(default)]
    pub slow_dropped: u64,
    #[serde(default)]
    pub left: u64,
    #[serde(default)]
    pub asked: u64,
    #[serde(default)]
    pub replied: u64,
    pub refused: u64,
}

impl std::iter::Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            sent: sum.sent + one.sent,
            acked: sum.acked + one.acked,
            received: sum.received + one.received,
            doubled: sum.doubled + one.doubled,
            disordered: sum.disordered + one.disordered,
            joined: sum.joined + one.joined,
            dropped: sum.dropped + one.dropped,
            slow_dropped: sum.slow_dropped + one.slow_dropped,
            left: sum.left + one.left,
            asked: sum.asked + one.asked,
            replied: sum.replied + one.replied,
            refused: sum.refused + one.refused,
        })
    }
}

/// Percentiles of a histogram, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    #[serde(default)]
    pub p95: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Percentiles {
    /// Those of recorded µs.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile: f64| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_all_shards_are_taken_once() {
        let latencies = Latencies::default();
        for who in 0..20 {
            latencies.record(who, u64::from(who + 1) * 1000);
        }
        let taken = Percentiles::of(&latencies.take());
        assert_eq!(taken.count, 20);
        assert!(
            (9.9..10.2).contains(&taken.p50) && (19.9..20.1).contains(&taken.max),
            "{taken:?}"
        );
        assert_eq!(Percentiles::of(&latencies.take()), Percentiles::default());
    }

    #[test]
    fn odd_errors_do_not_grow_without_bound() {
        let tally = Tally::default();
        for number in 0..1000 {
            tally.refused(&format!("error {number}"));
        }
        assert_eq!(tally.refusals().len(), 101);
        assert_eq!(tally.totals().refused, 1000);
    }
}
