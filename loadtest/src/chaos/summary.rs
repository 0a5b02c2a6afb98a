//! What a run has to say: a line while it happens, a table and a verdict at the end, or JSON.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::asker::Answers;
use super::history::History;
use super::options::Options;
use crate::checker::{Report, Violation};
use crate::deployment::logs::Logs;

/// How long before and after a fault a violation is blamed on it.
const BLAME_MS: u64 = 10_000;
/// Replication is behind by less than this, and no gap between faults is shorter.
const LOST_BEFORE_MS: u64 = 500;
/// Violations printed; the JSON has all that the checker keeps.
const PRINTED: usize = 50;

/// A fault as it went.
#[derive(Clone, Debug)]
pub struct FaultRecord {
    /// Its number, from 1.
    pub number: usize,
    /// What, and beside what.
    pub what: String,
    /// What was hit.
    pub target: String,
    /// When it began, since the start.
    pub at: Duration,
    /// The same in Unix ms.
    pub at_ms: u64,
    /// From its beginning to its healing.
    pub lasted: Duration,
    /// From the healing to the probe that everybody saw.
    pub converged: Duration,
    /// Who had not converged in time.
    pub late: Vec<String>,
}

impl FaultRecord {
    fn is_near(&self, ms: u64) -> bool {
        let end = self.at_ms + (self.lasted + self.converged).as_millis() as u64;
        (self.at_ms.saturating_sub(BLAME_MS)..=end + BLAME_MS).contains(&ms)
    }
}

/// Everything the verdict is made of.
#[derive(Debug)]
pub struct Outcome {
    /// The faults in their order.
    pub faults: Vec<FaultRecord>,
    /// The checker's verdict.
    pub report: Report,
    /// What became of the questions to the model.
    pub answers: Answers,
    /// What the checker cannot see, with its time in Unix ms.
    pub findings: Vec<(u64, String)>,
    /// The logs, to tell when something was.
    pub logs: Logs,
    /// How long it all took.
    pub took: Duration,
}

impl Outcome {
    /// Whether nothing at all is to be complained of.
    pub fn is_clean(&self) -> bool {
        self.report.is_clean() && self.findings.is_empty() && self.faults.iter().all(|fault| fault.late.is_empty())
    }

    /// Acked messages that this fault took with it: those written after it began and before the next one did.
    fn lost_with(&self, fault: &FaultRecord) -> usize {
        let next = self.faults.get(fault.number).map_or(u64::MAX, |next| next.at_ms);
        // What was acked just before a crash is lost by the crash.
        let from = fault.at_ms.saturating_sub(LOST_BEFORE_MS);
        let until = next.saturating_sub(LOST_BEFORE_MS);
        self.report
            .lost_at
            .iter()
            .filter(|at| (from..until).contains(at))
            .count()
    }

    fn blame(&self, ms: Option<u64>) -> Vec<&FaultRecord> {
        let Some(ms) = ms else { return Vec::new() };
        self.faults.iter().filter(|fault| fault.is_near(ms)).collect()
    }

    fn time_of(&self, violation: &Violation) -> Option<u64> {
        violation
            .place()
            .and_then(|place| self.logs.time_of(violation.room(), place.seq))
    }

    /// For people.
    pub fn print(&self, seed: u64, history: &History) {
        println!(
            "\n{:>4} {:>8}  {:<42} {:<26} {:>9} {:>10} {:>6}",
            "", "at", "fault", "target", "lasted", "converged", "lost"
        );
        for fault in &self.faults {
            println!(
                "{:>4} {:>8}  {:<42} {:<26} {:>7.1} s {:>8.2} s {:>6}{}",
                fault.number,
                clock(fault.at),
                fault.what,
                fault.target,
                fault.lasted.as_secs_f64(),
                fault.converged.as_secs_f64(),
                self.lost_with(fault),
                if fault.late.is_empty() { "" } else { "  LATE" }
            );
        }
        let tally = &history.tally;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.report.counts;
        let slowest = self
            .faults
            .iter()
            .map(|fault| fault.converged)
            .max()
            .unwrap_or_default();
        println!(
            "\n{} faults in {}, slowest convergence {:.2} s; {} resends ({} had been stored), {} reconnects, {} sync:lost",
            self.faults.len(),
            clock(self.took),
            slowest.as_secs_f64(),
            count(&tally.resent),
            count(&tally.deduplicated),
            count(&tally.reconnects),
            count(&tally.sync_lost),
        );
        println!(
            "sent {}, acked {}, in the logs {}, in the archive {}; delivered {} of {} owed to {} readers, {} told unrecovered",
            counts.sent,
            counts.acked,
            counts.logged,
            counts.archived,
            counts.delivered,
            counts.expected,
            counts.readers,
            counts.told_unrecovered
        );
        let answers = &self.answers;
        println!(
            "questions {}: {} with a reply, {} with an error",
            answers.asked, answers.replies, answers.errors
        );
        if counts.lost_acked + counts.lost_seen > 0 {
            println!(
                "lost with a failover, announced by a new epoch: {} acked messages, {} deliveries",
                counts.lost_acked, counts.lost_seen
            );
        }
        for violation in self.report.violations.iter().take(PRINTED) {
            println!("VIOLATION {violation}{}", blamed(&self.blame(self.time_of(violation))));
        }
        let more = self.report.total_violations.saturating_sub(PRINTED as u64);
        if more > 0 {
            println!("… and {more} violations more");
        }
        for (ms, finding) in self.findings.iter().take(PRINTED) {
            println!("VIOLATION {finding}{}", blamed(&self.blame(Some(*ms))));
        }
        for fault in &self.faults {
            for late in &fault.late {
                println!("VIOLATION {late} 10 s after the healing of {}", short(fault));
            }
        }
        let verdict = match (self.is_clean(), counts.lost_acked) {
            (false, _) => "FAILED".to_owned(),
            (true, 0) => "nothing lost, doubled or reordered".to_owned(),
            (true, lost) => {
                format!("nothing lost, doubled or reordered but {lost} acked messages that new epochs announced")
            }
        };
        println!("seed {seed}: {verdict}");
    }

    /// For scripts.
    pub fn json(&self, seed: u64, options: &Options, history: &History, dir: Option<&Path>) -> Value {
        let counts = &self.report.counts;
        let faults = self.faults.iter().map(|fault| {
            json!({
                "number": fault.number, "fault": fault.what, "target": fault.target, "atMs": fault.at.as_millis() as u64,
                "unixMs": fault.at_ms, "lastedMs": fault.lasted.as_millis() as u64,
                "convergedMs": fault.converged.as_millis() as u64, "late": fault.late, "lost": self.lost_with(fault),
            })
        });
        let violations = self.report.violations.iter().map(|violation| {
            let time = self.time_of(violation);
            let near: Vec<_> = self.blame(time).iter().map(|fault| fault.number).collect();
            json!({ "text": violation.to_string(), "room": violation.room(), "unixMs": time, "faults": near })
        });
        let findings = self.findings.iter().map(|(ms, finding)| {
            let near: Vec<_> = self.blame(Some(*ms)).iter().map(|fault| fault.number).collect();
            json!({ "text": finding, "unixMs": ms, "faults": near })
        });
        json!({
            "clean": self.is_clean(),
            "seed": seed,
            "topology": options.topology.to_string(),
            "durability": options.durability.to_string(),
            "tookMs": self.took.as_millis() as u64,
            "sent": counts.sent, "acked": counts.acked, "logged": counts.logged, "archived": counts.archived,
            "expected": counts.expected, "delivered": counts.delivered, "toldUnrecovered": counts.told_unrecovered,
            "lostAcked": counts.lost_acked, "lostSeen": counts.lost_seen,
            "questions": self.answers.asked, "replies": self.answers.replies, "errors": self.answers.errors,
            "reconnects": history.tally.reconnects.load(Ordering::Relaxed),
            "resent": history.tally.resent.load(Ordering::Relaxed),
            "totalViolations": self.report.total_violations,
            "faults": faults.collect::<Vec<_>>(),
            "violations": violations.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
            "folder": dir.map(|dir| dir.display().to_string()),
        })
    }
}

/// Minutes and seconds.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

fn short(fault: &FaultRecord) -> String {
    format!(
        "#{} {} of {} at {}",
        fault.number,
        fault.what,
        fault.target,
        clock(fault.at)
    )
}

fn blamed(faults: &[&FaultRecord]) -> String {
    if faults.is_empty() {
        return String::new();
    }
    let names: Vec<_> = faults.iter().map(|fault| short(fault)).collect();
    format!("\n          around: {}", names.join("; "))
}
