//! What things cost, as `growth` has measured them.

use crate::growth::{Found, Growth, Series};

/// How many members the rooms of the series over nodes have.
const SPREAD_MEMBERS: f64 = 3.0;

/// Prices, each from two or more measurements of `growth`.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// A message, its way in and all deliveries on one node: (members, CPU of the node), µs, ascending.
    pub message: Vec<(f64, f64)>,
    /// A message in Redis, its way through the archive included, µs.
    pub redis_message: f64,
    /// What Redis does in a second for one node and one worker that have nothing to do, µs.
    pub redis_second: f64,
    /// Each further node that has members of the room, a message: CPU of nodes and of Redis, µs.
    pub hop: (f64, f64),
    /// A node that nobody is connected to, a second: CPU of the node and of Redis, µs.
    pub node_second: (f64, f64),
    /// A connect and its join: CPU of the node and of Redis, µs.
    pub connect: (f64, f64),
    /// An idle socket, a second: CPU of the node and of Redis, µs.
    pub socket_second: (f64, f64),
    /// An idle socket: memory of the node and of Redis, KiB.
    pub socket_kib: (f64, f64),
    /// A node by itself, KiB.
    pub node_kib: f64,
    /// To archive a message: CPU of a worker, µs.
    pub archive: f64,
}

impl Costs {
    /// What a run of `growth` says; the error names what it lacks.
    pub fn of(growth: &Growth) -> Result<Self, String> {
        let at = |series: Series, grown: u32| -> Result<&Found, String> {
            let found = growth
                .found
                .iter()
                .find(|found| found.series == series && found.grown == grown);
            found.ok_or_else(|| format!("it has no series {series} at {grown}; run `growth` without --only"))
        };
        let [few, many] = growth.resting.as_slice() else {
            return Err("it has no idle sockets of two numbers; run `growth` without --only".to_owned());
        };
        // What a second costs without messages, and what each adds to it.
        let (slow, fast) = (at(Series::Rate, 100)?, at(Series::Rate, 1000)?);
        let of_rate = |figure: fn(&Found) -> f64| {
            let second = |found: &Found| figure(found) * found.messages_per_second;
            let more = fast.messages_per_second - slow.messages_per_second;
            let each = ((second(fast) - second(slow)) / more).max(0.0);
            ((second(slow) - each * slow.messages_per_second).max(0.0), each)
        };
        let (node_base, _) = of_rate(|found| found.node_per_message);
        let (redis_second, redis_message) = of_rate(|found| found.redis_per_message);
        let (_, archive) = of_rate(|found| found.worker_per_message);
        let sizes = growth.found.iter().filter(|found| found.series == Series::RoomSize);
        let mut message: Vec<_> = sizes
            .map(|found| {
                let base = node_base / found.messages_per_second;
                (f64::from(found.grown), (found.node_per_message - base).max(0.0))
            })
            .collect();
        message.sort_by(|one, other| one.0.total_cmp(&other.0));
        if message.len() < 2 {
            return Err(format!(
                "it has no series {}; run `growth` without --only",
                Series::RoomSize
            ));
        }
        let (one, eight) = (at(Series::NodesLocal, 1)?, at(Series::NodesLocal, 8)?);
        let (local, spread) = (at(Series::NodesLocal, 4)?, at(Series::NodesSpread, 4)?);
        // As many nodes, but three with members instead of one.
        let hop = |figure: fn(&Found) -> f64| ((figure(spread) - figure(local)) / (SPREAD_MEMBERS - 1.0)).max(0.0);
        let idle = |figure: fn(&Found) -> f64| {
            let a_second = figure(eight) * eight.messages_per_second - figure(one) * one.messages_per_second;
            (a_second / 7.0).max(0.0)
        };
        let more = f64::from(many.sockets - few.sockets);
        let each = |few: f64, many: f64| ((many - few) / more).max(0.0);
        Ok(Self {
            message,
            redis_message,
            redis_second,
            hop: (
                hop(|found| found.node_per_message),
                hop(|found| found.redis_per_message),
            ),
            node_second: (
                idle(|found| found.node_per_message),
                idle(|found| found.redis_per_message),
            ),
            connect: (
                each(few.node_connects_ms, many.node_connects_ms) * 1e3,
                each(few.redis_connects_ms, many.redis_connects_ms) * 1e3,
            ),
            socket_second: (
                each(few.node_minute_ms, many.node_minute_ms) * 1e3 / 60.0,
                each(few.redis_minute_ms, many.redis_minute_ms) * 1e3 / 60.0,
            ),
            socket_kib: (each(few.node_kib, many.node_kib), each(few.redis_kib, many.redis_kib)),
            node_kib: few.node_kib - each(few.node_kib, many.node_kib) * f64::from(few.sockets),
            archive,
        })
    }

    /// What a message to so many members costs a node, µs: on the straight line between what was measured, and beyond the
    /// ends on the next one.
    pub fn message(&self, members: f64) -> f64 {
        let last = self.message.len() - 2;
        let below = self.message.iter().rposition(|point| point.0 <= members);
        let below = below.unwrap_or(0).min(last);
        let (from, to) = (self.message[below], self.message[below + 1]);
        let share = (members - from.0) / (to.0 - from.0);
        (from.1 + (to.1 - from.1) * share).max(0.0)
    }
}
