//! What a rollout has to say: when whose connection ended, and what is to be complained of.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::How;
use crate::chaos::history::Return;
use crate::checker::Report;

/// Bars of a histogram.
const BARS: usize = 15;
/// Length of the longest bar, characters.
const BAR_LENGTH: usize = 50;
/// Reconnects of the fullest bar, as a multiple of an even spread over the window, that are no crowd; chance allows small
/// numbers more.
const CROWD: f64 = 2.0;
const CHANCE: f64 = 3.0;
/// Fewer reconnects say nothing about their spread.
const FEW: usize = 60;
/// Clients wait for up to 1.5 s, and 3 s more when the first attempt fails.
const BACK_MAX: Duration = Duration::from_secs(8);
/// Violations printed.
const PRINTED: usize = 50;

/// One node that went and came back.
#[derive(Clone, Debug)]
pub struct Round {
    /// Which.
    pub node: usize,
    /// How it went.
    pub how: How,
    /// When it was told, or killed, since the start of the run.
    pub at: Duration,
    /// How long it took to end.
    pub took: Duration,
    /// Those whose connection ended, and when they were back.
    pub returns: Vec<Return>,
    /// Attempts to connect that failed meanwhile.
    pub refused: u64,
    /// Until everybody had seen a probe of every room, from when the node was back.
    pub converged: Duration,
    /// Sockets of each node afterwards.
    pub sockets: Vec<u64>,
    /// The window in which connections were to end, from `at`.
    pub window: (Duration, Duration),
}

impl Round {
    /// Reconnects in equal parts of the time from `from` to `to` after the node was told.
    fn histogram(&self, from: Duration, to: Duration) -> Vec<usize> {
        let mut bars = vec![0; BARS];
        for one in &self.returns {
            let back = one.back_at.saturating_sub(self.at).saturating_sub(from);
            let place = back.as_secs_f64() / (to - from).as_secs_f64().max(f64::MIN_POSITIVE) * BARS as f64;
            bars[(place as usize).min(BARS - 1)] += 1;
        }
        bars
    }

    /// From the first to after the last reconnect, the window of the drain included.
    fn range(&self) -> (Duration, Duration) {
        let last = self.returns.iter().map(|one| one.back_at.saturating_sub(self.at)).max();
        let end = self.window.1.max(last.unwrap_or_default());
        (self.window.0, end + Duration::from_millis(1))
    }

    fn left(&self) -> usize {
        self.returns.iter().filter(|one| one.gone.left).count()
    }

    /// The fullest bar as a multiple of an even spread over the window.
    fn crowding(&self) -> f64 {
        let (from, to) = self.range();
        let most = self.histogram(from, to).into_iter().max().unwrap_or_default();
        let bar = (to - from).as_secs_f64() / BARS as f64;
        let window = (self.window.1 - self.window.0).as_secs_f64();
        most as f64 * window / (bar * self.returns.len().max(1) as f64)
    }

    fn longest_absence(&self) -> Duration {
        let absences = self
            .returns
            .iter()
            .map(|one| one.back_at.saturating_sub(one.gone.lost_at));
        absences.max().unwrap_or_default()
    }

    /// What a drain must not do, beside losing messages. A crash may crowd, refuse and take its time.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.how == How::Drain {
            let crowding = self.crowding();
            let even = self.returns.len() as f64 / BARS as f64;
            if self.returns.len() >= FEW && crowding > CROWD + CHANCE / even.sqrt() {
                complaints.push(format!(
                    "node-{}: the reconnects are not spread: {crowding:.1} times the mean at once",
                    self.node
                ));
            }
            if self.refused > 0 {
                complaints.push(format!(
                    "node-{}: {} attempts to connect failed, though the load balancer had the time to notice",
                    self.node, self.refused
                ));
            }
            let absence = self.longest_absence();
            if absence > BACK_MAX {
                complaints.push(format!("node-{}: a client was away for {absence:.1?}", self.node));
            }
        }
        complaints
    }

    fn print(&self) {
        let (from, to) = self.range();
        println!(
            "\nnode-{} ({}): ended after {:.1} s; {} reconnects, {} of them told by server:drain, {} refused; the longest absence {:.2} s; converged {:.2} s after its return; sockets now {:?}",
            self.node,
            self.how,
            self.took.as_secs_f64(),
            self.returns.len(),
            self.left(),
            self.refused,
            self.longest_absence().as_secs_f64(),
            self.converged.as_secs_f64(),
            self.sockets,
        );
        let bars = self.histogram(from, to);
        let most = bars.iter().max().copied().unwrap_or_default().max(1);
        let width = (to - from).as_secs_f64() / BARS as f64;
        for (index, count) in bars.iter().enumerate() {
            let begin = from.as_secs_f64() + index as f64 * width;
            let bar = "#".repeat(count * BAR_LENGTH / most);
            println!("{begin:>6.1} s {count:>6} {bar}");
        }
        if self.how == How::Drain {
            println!("         at most {:.2} times an even spread", self.crowding());
        }
    }

    fn json(&self) -> Value {
        let (from, to) = self.range();
        json!({
            "node": self.node, "how": self.how.to_string(), "tookMs": self.took.as_millis() as u64,
            "reconnects": self.returns.len(), "left": self.left(), "refused": self.refused,
            "longestAbsenceMs": self.longest_absence().as_millis() as u64,
            "convergedMs": self.converged.as_millis() as u64, "sockets": self.sockets, "crowding": self.crowding(),
            "histogram": { "fromMs": from.as_millis() as u64, "toMs": to.as_millis() as u64, "counts": self.histogram(from, to) },
        })
    }
}

/// Everything the verdict is made of.
#[derive(Debug)]
pub struct Outcome {
    /// Sockets in all.
    pub sockets: u32,
    /// The nodes as they went.
    pub rounds: Vec<Round>,
    /// The checker's verdict.
    pub report: Report,
    /// What the checker cannot see.
    pub findings: Vec<String>,
    /// How long it all took.
    pub took: Duration,
}

impl Outcome {
    /// Whether nothing at all is to be complained of.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.findings.is_empty() && self.complaints().is_empty()
    }

    fn complaints(&self) -> Vec<String> {
        self.rounds.iter().flat_map(Round::complaints).collect()
    }

    /// For people.
    pub fn print(&self) {
        self.rounds.iter().for_each(Round::print);
        let counts = &self.report.counts;
        println!(
            "\nsent {}, acked {}, in the logs {}, in the archive {}; delivered {} of {} owed to {} readers, {} told unrecovered",
            counts.sent,
            counts.acked,
            counts.logged,
            counts.archived,
            counts.delivered,
            counts.expected,
            counts.readers,
            counts.told_unrecovered
        );
        for violation in self.report.violations.iter().take(PRINTED) {
            println!("VIOLATION {violation}");
        }
        for complaint in self.findings.iter().chain(&self.complaints()).take(PRINTED) {
            println!("VIOLATION {complaint}");
        }
        let verdict = if self.is_clean() {
            "no acked message lost, doubled or reordered, no client told to stay away"
        } else {
            "FAILED"
        };
        println!(
            "rollout of {} nodes under {} sockets in {:.0} s: {verdict}",
            self.rounds.len(),
            self.sockets,
            self.took.as_secs_f64()
        );
    }

    /// For scripts.
    pub fn json(&self) -> Value {
        let counts = &self.report.counts;
        let violations = self.report.violations.iter().map(ToString::to_string);
        json!({
            "clean": self.is_clean(), "sockets": self.sockets, "tookMs": self.took.as_millis() as u64,
            "sent": counts.sent, "acked": counts.acked, "logged": counts.logged, "archived": counts.archived,
            "expected": counts.expected, "delivered": counts.delivered, "toldUnrecovered": counts.told_unrecovered,
            "rounds": self.rounds.iter().map(Round::json).collect::<Vec<_>>(),
            "totalViolations": self.report.total_violations,
            "violations": violations.chain(self.findings.iter().cloned()).chain(self.complaints()).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::history::Gone;

    fn round(backs_ms: impl Iterator<Item = u64>) -> Round {
        let returned = |back| Return {
            gone: Gone {
                lost_at: Duration::from_millis(back),
                left: true,
            },
            back_at: Duration::from_millis(back + 5),
        };
        Round {
            node: 0,
            how: How::Drain,
            at: Duration::ZERO,
            took: Duration::from_secs(12),
            returns: backs_ms.map(returned).collect(),
            refused: 0,
            converged: Duration::ZERO,
            sockets: Vec::new(),
            window: (Duration::from_secs(2), Duration::from_secs(12)),
        }
    }

    #[test]
    fn an_even_spread_is_fine_and_a_crowd_is_not() {
        let even = round((0..1000).map(|n| 2000 + n * 10));
        assert!((0.9..1.2).contains(&even.crowding()), "{}", even.crowding());
        assert_eq!(even.complaints(), Vec::<String>::new());
        let crowd = round((0..1000).map(|n| 2000 + n));
        assert!(
            crowd.crowding() > 5.0 && crowd.complaints().len() == 1,
            "{}",
            crowd.crowding()
        );
        let tail = round((0..1000).map(|n| if n < 800 { 2000 + n * 12 } else { 11_900 }));
        assert_eq!(tail.complaints().len(), 1, "all that remained at once");
    }

    #[test]
    fn whoever_is_refused_or_long_away_is_complained_of() {
        let mut refused = round((0..10).map(|n| 2000 + n * 1000));
        refused.refused = 1;
        refused.returns[3].back_at += Duration::from_secs(20);
        assert_eq!(refused.complaints().len(), 2);
        refused.how = How::Kill;
        assert!(refused.complaints().is_empty(), "a crash takes by surprise");
    }
}
