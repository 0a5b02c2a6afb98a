//! What a run has to say: the limits that were missed, a table for people, JSON for scripts.

use serde_json::{Value, json};

use super::attack::tally::Report as Attacked;
use super::meter::{Phase, Wait, Window, median};
use super::options::Options;
use super::scenario::Outcome;

/// Violations and findings printed of each flood.
const PRINTED: usize = 10;
/// What Redis may hold more of it at the end: messages of the innocent, blocks, counters.
const REDIS_MAX: i64 = 256 * 1024 * 1024;

impl Outcome {
    fn of(&self, phase: Phase) -> impl Iterator<Item = &Window> {
        self.windows.iter().filter(move |window| window.phase == phase)
    }

    /// The median of the rounds' p99 in ms.
    fn p99(&self, phase: Phase, wait: Wait) -> f64 {
        median(self.of(phase).map(|window| window.p99(wait)).collect())
    }

    fn cpu(&self, phase: Phase) -> f64 {
        median(self.of(phase).map(|window| window.node_cpu).collect())
    }

    fn slowest_entry(&self, phase: Phase) -> f64 {
        self.of(phase).map(|window| window.max(Wait::Entry)).fold(0.0, f64::max)
    }

    /// How many times as long the innocent waited as under the same flood of the bare listener.
    fn ratio(&self, wait: Wait) -> f64 {
        self.p99(Phase::Node, wait) / self.p99(Phase::Listener, wait).max(0.001)
    }

    /// Growth of the node at its peak, in MiB.
    fn peak(&self) -> u64 {
        self.after.peak.saturating_sub(self.before.rss) / 1024
    }

    /// Growth that is left, in MiB.
    fn left(&self) -> u64 {
        self.after.rss.saturating_sub(self.before.rss) / 1024
    }

    /// Every limit that was missed, in words.
    pub fn complaints(&self, options: &Options) -> Vec<String> {
        let mut all = Vec::new();
        if self.kind.judges_ratio() {
            for (wait, name) in [(Wait::Ack, "ack"), (Wait::Delivery, "delivery")] {
                let ratio = self.ratio(wait);
                if ratio >= options.max_ratio {
                    all.push(format!("{name} p99 is {ratio:.2} times that of the bare listener"));
                }
            }
        }
        if self.peak() > options.max_peak {
            all.push(format!("the node grew by {} MiB at its peak", self.peak()));
        }
        if self.left() > options.max_left {
            all.push(format!("{} MiB were left after the flood", self.left()));
        }
        if self.redis_growth > REDIS_MAX {
            all.push(format!("Redis grew by {} MiB", self.redis_growth / 1024 / 1024));
        }
        let violations = self.report.violations.iter().map(ToString::to_string);
        all.extend(violations.take(PRINTED));
        let more = self.report.total_violations.saturating_sub(PRINTED as u64);
        if more > 0 {
            all.push(format!("… and {more} violations more"));
        }
        all.extend(self.findings.iter().take(PRINTED).cloned());
        let more = self.findings.len().saturating_sub(PRINTED);
        if more > 0 {
            all.push(format!("… and {more} findings more"));
        }
        all
    }
}

/// A flood, for people.
pub fn print(outcome: &Outcome, options: &Options) {
    let complaints = outcome.complaints(options);
    let counts = &outcome.report.counts;
    println!(
        "{}: sent {}, acked {}, delivered {} of {}; {} newcomers got in, {} of their tries were refused; unnoticed again \
         within {:.0} s",
        outcome.kind,
        counts.sent,
        counts.acked,
        counts.delivered,
        counts.expected,
        outcome.newcomers.0,
        outcome.newcomers.1,
        outcome.recovered.as_secs_f64()
    );
    println!(
        "{}: the attacker at the node: {}",
        outcome.kind,
        words(&outcome.at_node)
    );
    for complaint in &complaints {
        println!("{}: MISSED {complaint}", outcome.kind);
    }
    println!(
        "{}: {}\n",
        outcome.kind,
        if complaints.is_empty() { "held" } else { "FAILED" }
    );
}

/// All floods, for people.
pub fn print_table(outcomes: &[Outcome], options: &Options) {
    println!(
        "{:<11} {:>30}  {:>30}  {:>13} {:>16} {:>9}  verdict\n{:<11} {:>8} {:>9} {:>5} {:>5}  {:>8} {:>9} {:>5} {:>5}  {:>6} {:>6} {:>5} {:>5} {:>5} {:>8}",
        "flood",
        "ack p99 in ms",
        "delivery p99 in ms",
        "entry in ms",
        "node MiB",
        "node cpu",
        "",
        "calm",
        "listener",
        "node",
        "ratio",
        "calm",
        "listener",
        "node",
        "ratio",
        "calm",
        "flood",
        "before",
        "peak",
        "left",
        "in flood"
    );
    for outcome in outcomes {
        let triple = |wait| {
            format!(
                "{:>8.1} {:>9.1} {:>5.1} {:>5.2}",
                outcome.p99(Phase::Calm, wait),
                outcome.p99(Phase::Listener, wait),
                outcome.p99(Phase::Node, wait),
                outcome.ratio(wait)
            )
        };
        println!(
            "{:<11} {}  {}  {:>6.0} {:>6.0} {:>5} {:>+5} {:>+5} {:>6.0} %  {}",
            outcome.kind,
            triple(Wait::Ack),
            triple(Wait::Delivery),
            outcome.slowest_entry(Phase::Calm),
            outcome.slowest_entry(Phase::Node),
            outcome.before.rss / 1024,
            outcome.peak(),
            outcome.left(),
            outcome.cpu(Phase::Node) * 100.0,
            if outcome.complaints(options).is_empty() {
                "held"
            } else {
                "FAILED"
            }
        );
    }
}

/// All floods, for scripts.
pub fn json(outcomes: &[Outcome], options: &Options) -> Value {
    let floods: Vec<_> = outcomes.iter().map(|outcome| flood_json(outcome, options)).collect();
    json!({
        "held": outcomes.iter().all(|outcome| outcome.complaints(options).is_empty()),
        "limits": {
            "ratio": options.max_ratio, "peakMiB": options.max_peak, "leftMiB": options.max_left,
            "redisMiB": REDIS_MAX / 1024 / 1024,
        },
        "rounds": options.rounds,
        "seconds": options.seconds,
        "innocents": u32::from(options.rooms) * u32::from(options.members),
        "pace": options.pace,
        "floods": floods,
    })
}

fn flood_json(outcome: &Outcome, options: &Options) -> Value {
    let windows = outcome.windows.iter().map(|window| {
        json!({
            "phase": window.phase.name(),
            "acks": window.count(Wait::Ack), "ackP99Ms": window.p99(Wait::Ack), "ackMaxMs": window.max(Wait::Ack),
            "deliveries": window.count(Wait::Delivery), "deliveryP99Ms": window.p99(Wait::Delivery),
            "deliveryMaxMs": window.max(Wait::Delivery),
            "entries": window.count(Wait::Entry), "entryMaxMs": window.max(Wait::Entry),
            "nodeCpu": window.node_cpu,
        })
    });
    let counts = &outcome.report.counts;
    json!({
        "flood": outcome.kind.to_string(),
        "complaints": outcome.complaints(options),
        "ratioJudged": outcome.kind.judges_ratio(),
        "ackRatio": outcome.ratio(Wait::Ack), "deliveryRatio": outcome.ratio(Wait::Delivery),
        "windows": windows.collect::<Vec<_>>(),
        "nodeRssKiB": { "before": outcome.before.rss, "peak": outcome.after.peak, "after": outcome.after.rss },
        "recoveredMs": outcome.recovered.as_millis() as u64,
        "redisGrowthBytes": outcome.redis_growth,
        "attacker": { "atNode": outcome.at_node, "atListener": outcome.at_listener },
        "newcomers": { "entered": outcome.newcomers.0, "refusedTries": outcome.newcomers.1 },
        "sent": counts.sent, "acked": counts.acked, "expected": counts.expected, "delivered": counts.delivered,
    })
}

fn words(attacked: &Attacked) -> String {
    let Attacked {
        tries,
        failed,
        accepted,
        forbidden,
        throttled,
        unavailable,
        other,
        cut,
        events,
        bytes,
        open_max,
    } = attacked;
    format!(
        "{tries} tries, {accepted} accepted, {forbidden}/{throttled}/{unavailable}/{other} refused with \
         403/429/503/other, {failed} without answer, {cut} cut, {open_max} open at once, {events} events, {} MiB",
        bytes / 1024 / 1024
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use clap::Parser as _;

    use super::super::kind::Kind;
    use super::super::meter::Meter;
    use super::super::proc::Memory;
    use super::*;
    use crate::checker;

    /// The innocent waited for an ack 10 ms while the listener was flooded, and this long while the node was.
    fn outcome(kind: Kind, wait_ms: u64) -> Outcome {
        let meter = Meter::new().unwrap();
        for (phase, ms) in [(Phase::Listener, 10), (Phase::Node, wait_ms)] {
            meter.begin(phase, Duration::from_secs(1));
            let meant = Instant::now();
            for wait in [Wait::Ack, Wait::Delivery] {
                meter.record(wait, meant, meant + Duration::from_millis(ms));
            }
        }
        Outcome {
            kind,
            windows: meter.all(),
            at_node: Attacked::default(),
            at_listener: Attacked::default(),
            before: Memory { rss: 1024, peak: 1024 },
            after: Memory {
                rss: 2048,
                peak: 100 * 1024,
            },
            redis_growth: 0,
            recovered: Duration::ZERO,
            report: checker::Report::default(),
            findings: Vec::new(),
            newcomers: (0, 0),
        }
    }

    #[test]
    fn twice_the_wait_is_missed_and_less_is_held() {
        let options = Options::parse_from(["roomcast-flood"]);
        assert!(outcome(Kind::Idle, 19).complaints(&options).is_empty());
        let missed = outcome(Kind::Idle, 21).complaints(&options);
        assert_eq!(missed.len(), 2, "{missed:?}");
        assert!(missed[0].contains("ack p99 is 2.1"), "{missed:?}");
        assert!(outcome(Kind::Addresses, 21).complaints(&options).is_empty());
    }

    #[test]
    fn memory_and_findings_are_complained_of() {
        let options = Options::parse_from(["roomcast-flood", "--max-peak", "98", "--max-left", "0"]);
        let mut outcome = outcome(Kind::Idle, 10);
        outcome.findings.push("innocent-0.0 lost its connection".to_owned());
        let missed = outcome.complaints(&options);
        assert_eq!(missed.len(), 3, "{missed:?}");
    }
}
