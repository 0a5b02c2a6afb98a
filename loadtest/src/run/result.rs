//! What a load test found: a point for each second, the totals, and what is to be complained of.

use std::collections::BTreeMap;
use std::time::Instant;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::part::{Outcome, Second, gather};
use super::scenario::Scenario;
use crate::fleet::Verdict;
use crate::fleet::tally::{Percentiles, Totals, histogram};
use crate::flood::attack::tally::Report;
use crate::flood::proc::Used;

/// One second of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Point {
    /// Totals of all parts at its end.
    pub totals: Totals,
    /// Acks of this second.
    pub ack: Percentiles,
    /// Deliveries of this second.
    pub delivery: Percentiles,
    /// First pieces of replies of this second.
    #[serde(default)]
    pub first_delta: Percentiles,
    /// Cores that the nodes used.
    pub cores: f64,
    /// Resident memory of the nodes, MiB.
    pub memory_mib: f64,
}

/// What a run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunResult {
    /// The scenario's name.
    pub name: String,
    /// The scenario.
    pub scenario: Scenario,
    /// Cores and kernel.
    pub machine: String,
    /// A point for each second, from the first connect on.
    pub points: Vec<Point>,
    /// The point at which all were in their rooms.
    pub begun_at: usize,
    /// Whether CPU and memory of the nodes were measured; else they stand as 0.
    #[serde(default = "yes")]
    pub measured: bool,
    /// Resident memory of the nodes before the clients came, MiB.
    pub base_mib: f64,
    /// Resident memory of the nodes when all were in their rooms, MiB.
    pub joined_mib: f64,
    /// Acks after the warm-up.
    pub ack: Percentiles,
    /// Deliveries after the warm-up.
    pub delivery: Percentiles,
    /// Connects.
    pub connect: Percentiles,
    /// First pieces of replies, after the warm-up.
    #[serde(default)]
    pub first_delta: Percentiles,
    /// What became of the messages.
    pub verdict: Verdict,
    /// What was refused, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Members that read slowly.
    #[serde(default)]
    pub slow_readers: u64,
    /// Those of them that were not back in their rooms at the end.
    #[serde(default)]
    pub slow_away: u64,
    /// What the attackers of each flood did, and what they were told.
    #[serde(default)]
    pub attacks: Vec<Report>,
    /// Processes that ended by themselves.
    pub ended: Vec<String>,
    #[serde(skip)]
    live: Live,
}

fn yes() -> bool {
    true
}

/// Latencies of a whole run: connects, and what came after the warm-up.
pub(super) struct SoFar {
    pub(super) ack: Percentiles,
    pub(super) delivery: Percentiles,
    pub(super) connect: Percentiles,
    pub(super) first_delta: Percentiles,
}

/// What is gathered while it runs.
#[derive(Clone, Debug)]
struct Live {
    totals: BTreeMap<usize, Totals>,
    ack: Histogram<u64>,
    delivery: Histogram<u64>,
    connect: Histogram<u64>,
    first_delta: Histogram<u64>,
    /// Of the second under way, all parts.
    second: Second,
    /// Processor time at the last sample, and when that was taken: pages of metrics may be slow.
    cpu: f64,
    sampled: Instant,
    /// Seconds since everybody was in.
    since: Option<u64>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            totals: BTreeMap::new(),
            ack: histogram(),
            delivery: histogram(),
            connect: histogram(),
            first_delta: histogram(),
            second: Second::default(),
            cpu: 0.0,
            sampled: Instant::now(),
            since: None,
        }
    }
}

impl RunResult {
    pub(super) fn new(name: &str, scenario: &Scenario, machine: String, used: Option<Used>) -> Self {
        let Used { cpu, mib: base_mib } = used.unwrap_or_default();
        Self {
            measured: used.is_some(),
            name: name.to_owned(),
            scenario: scenario.clone(),
            machine,
            points: Vec::new(),
            begun_at: 0,
            base_mib,
            joined_mib: base_mib,
            ack: Percentiles::default(),
            delivery: Percentiles::default(),
            connect: Percentiles::default(),
            first_delta: Percentiles::default(),
            verdict: Verdict::default(),
            refusals: BTreeMap::new(),
            slow_readers: 0,
            slow_away: 0,
            attacks: Vec::new(),
            ended: Vec::new(),
            live: Live { cpu, ..Live::default() },
        }
    }

    /// Everybody is in; the talk begins.
    pub(super) fn begin(&mut self, used: Option<Used>) {
        self.live.since = Some(0);
        self.begun_at = self.points.len();
        self.joined_mib = used.unwrap_or_default().mib;
    }

    fn totals(&self) -> Totals {
        self.live.totals.values().copied().sum()
    }

    /// Adds a second of a part.
    pub(super) fn add(&mut self, part: usize, second: Second) {
        let warm = self.live.since.is_some_and(|since| since > self.scenario.warm_up);
        let live = &mut self.live;
        live.totals.insert(part, second.totals);
        // The bounds of all histograms are the same.
        let _added = live.connect.add(gather(&second.connect));
        if warm {
            let _added = live.ack.add(gather(&second.ack));
            let _added = live.delivery.add(gather(&second.delivery));
            let _added = live.first_delta.add(gather(&second.first_delta));
        }
        live.second.ack.extend(second.ack);
        live.second.delivery.extend(second.delivery);
        live.second.first_delta.extend(second.first_delta);
    }

    /// Ends a second.
    pub(super) fn sample(&mut self, used: Option<Used>) {
        let Used { cpu, mib: memory_mib } = used.unwrap_or_default();
        let second = std::mem::take(&mut self.live.second);
        let now = Instant::now();
        let passed = (now - self.live.sampled).as_secs_f64();
        self.points.push(Point {
            totals: self.totals(),
            ack: Percentiles::of(&gather(&second.ack)),
            delivery: Percentiles::of(&gather(&second.delivery)),
            first_delta: Percentiles::of(&gather(&second.first_delta)),
            // A node that began anew has used less; the run says so by itself.
            cores: (cpu - self.live.cpu).max(0.0) / passed,
            memory_mib,
        });
        (self.live.cpu, self.live.sampled) = (cpu, now);
        self.live.since = self.live.since.map(|since| since + 1);
    }

    /// A part is done.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        self.verdict.expected += outcome.verdict.expected;
        self.verdict.lost += outcome.verdict.lost;
        self.verdict.doubled += outcome.verdict.doubled;
        self.verdict.disordered += outcome.verdict.disordered;
        self.verdict.unanswered += outcome.verdict.unanswered;
        self.verdict.unreplied += outcome.verdict.unreplied;
        self.slow_readers += outcome.slow_readers;
        self.slow_away += outcome.slow_away;
        for (why, count) in &outcome.refusals {
            *self.refusals.entry(why.clone()).or_default() += count;
        }
        // What a part said last may have come after the last sample.
        let totals = self.totals();
        if let Some(point) = self.points.last_mut() {
            point.totals = totals;
        }
        let all = self.so_far();
        (self.ack, self.delivery) = (all.ack, all.delivery);
        (self.connect, self.first_delta) = (all.connect, all.first_delta);
    }

    /// Latencies of the whole, as they are at the moment.
    pub(super) fn so_far(&self) -> SoFar {
        SoFar {
            ack: Percentiles::of(&self.live.ack),
            delivery: Percentiles::of(&self.live.delivery),
            connect: Percentiles::of(&self.live.connect),
            first_delta: Percentiles::of(&self.live.first_delta),
        }
    }

    /// How it stands.
    pub(super) fn status(&self) -> String {
        let Some(point) = self.points.last() else {
            return "connecting".to_owned();
        };
        let totals = point.totals;
        let nodes = if self.measured {
            format!("; nodes {:.2} cores, {:.0} MiB", point.cores, point.memory_mib)
        } else {
            String::new()
        };
        format!(
            "{:4} s: {} in, {} sent, {} acked, {} received, {} refused; ack p99 {:.1} ms{nodes}",
            self.points.len(),
            totals.joined,
            totals.sent,
            totals.acked,
            totals.received,
            totals.refused,
            point.ack.p99
        )
    }

    /// Resident memory at the end, MiB.
    pub fn memory_mib(&self) -> f64 {
        self.points.last().map_or(self.base_mib, |point| point.memory_mib)
    }

    /// What the nodes gained between the end of the first tenth and the end, MiB.
    pub fn growth_mib(&self) -> f64 {
        let talk = &self.points[self.begun_at.min(self.points.len())..];
        let first = talk.get(talk.len() / 10).map_or(0.0, |point| point.memory_mib);
        self.memory_mib() - first
    }

    /// What a socket costs in memory, KiB.
    pub fn per_socket_kib(&self) -> f64 {
        (self.memory_mib() - self.base_mib) * 1024.0 / f64::from(self.scenario.sockets())
    }

    /// Broken promises, in words: those hold at any rate.
    pub fn broken_promises(&self) -> Vec<String> {
        let verdict = self.verdict;
        let promises = [
            ("never came", verdict.lost),
            ("came twice", verdict.doubled),
            ("came out of order", verdict.disordered),
            ("have neither ack nor refusal", verdict.unanswered),
            ("asked the model and have neither reply nor error", verdict.unreplied),
        ];
        let broken = promises.iter().filter(|(_, count)| *count > 0);
        let mut broken: Vec<String> = broken.map(|(what, count)| format!("{count} messages {what}")).collect();
        broken.extend(self.ended.iter().cloned());
        broken
    }

    /// Broken promises and missed limits, in words.
    pub fn complaints(&self) -> Vec<String> {
        let limits = &self.scenario.limits;
        let mut complaints = self.broken_promises();
        let joined = self.points.iter().map(|point| point.totals.joined).max().unwrap_or(0);
        if joined < u64::from(self.scenario.sockets()) {
            complaints.push(format!("{joined} of {} sockets joined", self.scenario.sockets()));
        }
        for (flood, attack) in self.scenario.floods.iter().zip(&self.attacks) {
            if attack.cut + attack.forbidden + attack.throttled == 0 {
                complaints.push(format!("nobody stopped the attackers of {:?}", flood.kind));
            }
        }
        if self.slow_away > 0 {
            complaints.push(format!(
                "{} of {} slow readers did not come back",
                self.slow_away, self.slow_readers
            ));
        }
        let refused: u64 = self.refusals.values().sum();
        if refused > limits.refused {
            complaints.push(format!(
                "{refused} refused, limit {}: {:?}",
                limits.refused, self.refusals
            ));
        }
        let measured = [
            ("ack p99, ms", limits.ack_p99_ms, self.ack.p99),
            ("delivery p99, ms", limits.delivery_p99_ms, self.delivery.p99),
            ("connect p99, ms", limits.connect_p99_ms, self.connect.p99),
            ("first delta p95, ms", limits.first_delta_p95_ms, self.first_delta.p95),
            ("growth of memory, MiB", limits.memory_growth_mib, self.growth_mib()),
            (
                "memory of a socket, KiB",
                limits.memory_per_socket_kib,
                self.per_socket_kib(),
            ),
        ];
        let of_memory = limits.memory_growth_mib.is_some() || limits.memory_per_socket_kib.is_some();
        if of_memory && !self.measured {
            complaints
                .push("a limit of memory, which was not measured: name the nodes' pages with --metrics".to_owned());
        }
        for (what, limit, value) in measured {
            if let Some(limit) = limit.filter(|limit| value > *limit) {
                complaints.push(format!("{what}: {value:.1}, limit {limit}"));
            }
        }
        complaints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(limits: &str) -> RunResult {
        let text = format!("about: x\nrooms: 2\nmembers: 3\nconnects_per_second: 10\nlasts: 4\nlimits: {limits}\n");
        let scenario: Scenario = serde_saphyr::from_str(&text).unwrap();
        let mut result = RunResult::new("x", &scenario, String::new(), Some(Used::default()));
        let totals = Totals {
            joined: 6,
            ..Totals::default()
        };
        result.points = [1.0, 2.0, 5.0]
            .map(|memory_mib| Point {
                totals,
                memory_mib,
                ..Point::default()
            })
            .into();
        result
    }

    #[test]
    fn limits_and_promises_are_judged() {
        assert_eq!(result("{}").complaints(), Vec::<String>::new());
        let grown = result("{memory_growth_mib: 3, memory_per_socket_kib: 9000}").complaints();
        assert_eq!(grown, ["growth of memory, MiB: 4.0, limit 3"]);
        let mut attacked = result("{}");
        attacked.scenario.floods = serde_saphyr::from_str("[{kind: garbage, sockets: 1, per_second: 1}]").unwrap();
        attacked.attacks = vec![Report::default()];
        assert_eq!(attacked.complaints(), ["nobody stopped the attackers of Garbage"]);
        attacked.attacks[0].cut = 1;
        assert_eq!(attacked.complaints(), Vec::<String>::new());
        let mut broken = result("{refused: 1}");
        broken.verdict.lost = 2;
        broken.verdict.unreplied = 3;
        broken.refusals.insert("rate_limited".to_owned(), 2);
        broken.points[2].totals.joined = 5;
        (broken.slow_readers, broken.slow_away) = (4, 1);
        let complaints = broken.complaints();
        assert_eq!(complaints[0], "2 messages never came");
        assert_eq!(
            complaints[1],
            "3 messages asked the model and have neither reply nor error"
        );
        assert_eq!(complaints[2], "1 of 4 slow readers did not come back");
        assert!(complaints[3].starts_with("2 refused, limit 1"), "{complaints:?}");
        for point in &mut broken.points {
            point.totals.joined = 5;
        }
        assert!(
            broken.table().contains("FAILED    5 of 6 sockets joined"),
            "{}",
            broken.table()
        );
    }

    #[test]
    fn what_was_not_measured_is_not_judged_as_nothing() {
        let mut result = result("{memory_growth_mib: 3}");
        result.measured = false;
        result.points.iter_mut().for_each(|point| point.memory_mib = 0.0);
        assert!(
            result.complaints()[0].contains("--metrics"),
            "{:?}",
            result.complaints()
        );
        assert!(result.table().contains("not measured"));
    }

    #[test]
    fn parts_and_seconds_add_up() {
        let mut result = result("{}");
        result.points.clear();
        result.begin(None);
        for (part, ack) in [(0, 1000), (1, 3000)] {
            let second = Second {
                totals: Totals {
                    sent: 5,
                    joined: 3,
                    ..Totals::default()
                },
                ack: vec![(ack, 1)],
                ..Second::default()
            };
            result.live.since = Some(1);
            result.add(part, second);
        }
        result.sample(None);
        assert_eq!((result.points[0].totals.sent, result.totals().joined), (10, 6));
        assert_eq!(result.points[0].ack.count, 2);
        let last = Second {
            totals: Totals {
                sent: 7,
                joined: 3,
                ..Totals::default()
            },
            ..Second::default()
        };
        result.add(1, last);
        result.end(&Outcome::default());
        assert_eq!(result.ack.count, 2);
        assert!(result.table().contains("sent 12,"), "{}", result.table());
    }

    #[test]
    fn cores_are_of_the_time_between_two_samples() {
        let mut result = result("{}");
        let used = |cpu| Some(Used { cpu, mib: 1.0 });
        for (cpu, cores) in [(8.0, 2.0), (2.0, 0.0)] {
            result.live.sampled = Instant::now() - std::time::Duration::from_secs(4);
            result.sample(used(cpu));
            let found = result.points.last().unwrap().cores;
            assert!((found - cores).abs() < 0.1, "{found} for {cores}");
        }
    }
}
