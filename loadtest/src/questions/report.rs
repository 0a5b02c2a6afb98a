//! What a run of questions has to say.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::ledger::{Ledger, Violation};
use super::model::Model;
use crate::deployment::child::Process;
use crate::deployment::{Deployment, Worker};
use crate::flood::proc::cpu_seconds;

/// Violations printed.
const PRINTED: usize = 50;

/// Processor time, seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    redis: f64,
    workers: f64,
    nodes: f64,
}

impl Cost {
    /// What was used until now.
    pub fn now(deployment: &Deployment, workers: &[Worker]) -> Self {
        let of = |process: &Process| process.pid().and_then(|pid| cpu_seconds(pid).ok()).unwrap_or_default();
        let redis = deployment.redis.servers.iter().map(|server| of(&server.process));
        Self {
            redis: redis.sum(),
            workers: workers
                .iter()
                .chain(&deployment.workers)
                .map(|worker| of(&worker.process))
                .sum(),
            nodes: deployment.nodes.iter().map(|node| of(&node.process)).sum(),
        }
    }

    /// What was used since `earlier`; of processes that were started anew only what they used since.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            redis: self.redis - earlier.redis,
            workers: self.workers - earlier.workers,
            nodes: self.nodes - earlier.nodes,
        }
    }
}

/// The verdict and the figures.
#[derive(Debug)]
pub struct Report {
    questions: usize,
    ends: BTreeMap<String, usize>,
    violations: Vec<Violation>,
    took: Duration,
    cost: Cost,
    faults: u32,
    taken_over: Vec<Duration>,
    first_piece: Vec<Duration>,
    whole: Vec<Duration>,
}

impl Report {
    /// Judges what all members saw.
    pub fn new(ledgers: &[Ledger], model: Option<&Model>, took: Duration, cost: Cost, faults: u32) -> Self {
        let mut report = Self {
            questions: 0,
            ends: BTreeMap::new(),
            violations: ledgers.iter().flat_map(Ledger::judge).collect(),
            took,
            cost,
            faults,
            taken_over: Vec::new(),
            first_piece: Vec::new(),
            whole: Vec::new(),
        };
        for question in ledgers.iter().flat_map(|ledger| ledger.questions.values()) {
            report.questions += 1;
            for (_, at) in &question.replies {
                *report.ends.entry("ok".to_owned()).or_default() += 1;
                report.whole.push(*at - question.asked);
            }
            for code in &question.errors {
                *report.ends.entry(code.clone()).or_default() += 1;
            }
            report.taken_over.extend(question.taken_over);
            // A later generation's first word is another one.
            let first = question.first_piece.filter(|(_, generation)| *generation == 1);
            let begun = model.and_then(|model| model.begun(&question.key));
            if let (Some((told, _)), Some(begun), None) = (first, begun, question.taken_over) {
                report.first_piece.push(told.saturating_duration_since(begun));
            }
        }
        for times in [&mut report.taken_over, &mut report.first_piece, &mut report.whole] {
            times.sort();
        }
        report
    }

    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// For scripts.
    pub fn json(&self, seed: u64) -> Value {
        let spread = |times: &[Duration]| {
            json!({
                "count": times.len(), "p50Ms": ms(times, 0.5), "p95Ms": ms(times, 0.95), "p99Ms": ms(times, 0.99),
                "maxMs": ms(times, 1.0),
            })
        };
        json!({
            "seed": seed, "clean": self.is_clean(), "questions": self.questions, "faults": self.faults,
            "seconds": self.took.as_secs_f64(), "ends": self.ends,
            "firstPiece": spread(&self.first_piece), "reply": spread(&self.whole), "takenOver": spread(&self.taken_over),
            "cpuSeconds": { "redis": self.cost.redis, "workers": self.cost.workers, "nodes": self.cost.nodes },
            "violations": self.violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn print(&self, seed: u64) {
        let (count, seconds) = (self.questions as f64, self.took.as_secs_f64());
        println!(
            "{} questions in {seconds:.1} s, {:.0}/s; {} faults; ends: {:?}",
            self.questions,
            count / seconds,
            self.faults,
            self.ends
        );
        for (what, times) in [
            (
                "the first piece in the room, after the model's first word",
                &self.first_piece,
            ),
            ("the reply, after the question's ack", &self.whole),
            ("taken over, after the last sign of the worker before", &self.taken_over),
        ] {
            if times.is_empty() {
                continue;
            }
            println!(
                "{what}: p50 {:.1} ms, p95 {:.1} ms, max {:.1} ms ({})",
                ms(times, 0.5),
                ms(times, 0.95),
                ms(times, 1.0),
                times.len()
            );
        }
        let each = |seconds: f64| seconds * 1e6 / count;
        println!(
            "processor time of a question: Redis {:.0} µs, workers {:.0} µs, nodes {:.0} µs",
            each(self.cost.redis),
            each(self.cost.workers),
            each(self.cost.nodes)
        );
        for violation in self.violations.iter().take(PRINTED) {
            println!("VIOLATION {violation}");
        }
        println!(
            "seed {seed}: {}",
            if self.is_clean() {
                "every question has one end".to_owned()
            } else {
                format!("{} violations", self.violations.len())
            }
        );
    }
}

/// The time below which this share of sorted times is, ms.
fn ms(times: &[Duration], share: f64) -> f64 {
    let at = (times.len().saturating_sub(1) as f64 * share) as usize;
    times.get(at).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}
