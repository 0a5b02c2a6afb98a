//! What a load test found, for people.

use std::fmt::Write as _;

use super::result::RunResult;
use crate::fleet::tally::Totals;

impl RunResult {
    /// For people.
    pub fn table(&self) -> String {
        let (totals, verdict) = (
            self.points.last().map_or_else(Totals::default, |point| point.totals),
            self.verdict,
        );
        let mut text = format!(
            "{}: {} sockets on {} nodes, {} s\n  messages  sent {}, acked {}; copies {} of {}, lost {}, twice {}, out of order {}\n",
            self.name,
            self.scenario.sockets(),
            self.scenario.nodes,
            self.scenario.lasts,
            totals.sent,
            totals.acked,
            verdict.expected.saturating_sub(verdict.lost),
            verdict.expected,
            verdict.lost,
            verdict.doubled,
            verdict.disordered
        );
        let lines = [
            ("ack", self.ack),
            ("delivery", self.delivery),
            ("connect", self.connect),
            ("1st delta", self.first_delta),
        ];
        for (what, times) in lines.iter().filter(|(_, times)| times.count > 0) {
            // Writing to a string cannot fail.
            let _written = writeln!(
                text,
                "  {what:<9} p50 {:.1} ms, p90 {:.1}, p95 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} ({})",
                times.p50, times.p90, times.p95, times.p99, times.p999, times.max, times.count
            );
        }
        let _written = if self.measured {
            writeln!(
                text,
                "  memory    {:.0} MiB before, {:.0} with all in, {:.0} at the end: {:.1} KiB a socket",
                self.base_mib,
                self.joined_mib,
                self.memory_mib(),
                self.per_socket_kib()
            )
        } else {
            writeln!(text, "  memory    not measured")
        };
        if totals.asked > 0 {
            let _written = writeln!(text, "  model     {} asked, {} replied", totals.asked, totals.replied);
        }
        if totals.left > 0 {
            let _written = writeln!(text, "  churn     {} left and came back", totals.left);
        }
        for (flood, attack) in self.scenario.floods.iter().zip(&self.attacks) {
            let _written = writeln!(
                text,
                "  attackers {:?}: {} acts, {} connects, {} throttled, {} forbidden, {} cut, {} without an answer",
                flood.kind, attack.events, attack.tries, attack.throttled, attack.forbidden, attack.cut, attack.failed
            );
        }
        if self.slow_readers > 0 {
            let _written = writeln!(
                text,
                "  slow      {} readers, {} times let go by a node, {} away at the end",
                self.slow_readers, totals.slow_dropped, self.slow_away
            );
        }
        let complaints = self.complaints();
        for complaint in &complaints {
            let _written = writeln!(text, "  FAILED    {complaint}");
        }
        if complaints.is_empty() {
            text.push_str("  every promise and every limit was kept\n");
        }
        text
    }
}
