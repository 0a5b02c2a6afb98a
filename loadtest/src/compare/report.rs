//! What a comparison has to say: medians with their spread, ratios, and whether a target is met.

use std::fmt::Write as _;

use clap::ValueEnum as _;
use serde::{Deserialize, Serialize};

use super::peer::Peer;
use super::row::{Finding, Row};

/// What roomcast is to reach in a row: a ratio to a peer's figure, or a figure.
#[derive(Clone, Copy, Debug)]
enum Target {
    Ratio(Peer, f64),
    Figure(Peer, f64),
}

/// A target and whether it is met.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) is_met: bool,
}

/// The targets of `docs/compare.md`.
fn targets(row: Row) -> &'static [Target] {
    use Target::{Figure, Ratio};
    match row {
        Row::Rooms100 => &[Ratio(Peer::Node, 0.45), Ratio(Peer::Stock, 0.8)],
        Row::Hot => &[Ratio(Peer::Floor, 1.0)],
        Row::Rooms3 | Row::Rooms3Of2 | Row::Rooms3Of3 => &[Ratio(Peer::Node, 0.3), Ratio(Peer::Stock, 0.7)],
        Row::Ack => &[Figure(Peer::Roomcast, 10.0), Figure(Peer::RoomcastFsync, 25.0)],
        Row::Connect => &[Figure(Peer::Roomcast, 0.33)],
        Row::Idle => &[Figure(Peer::Roomcast, 16.0)],
    }
}

/// Everything that was found, as it is written to a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// The machine, for readers: cores and kernel.
    pub machine: String,
    /// Seconds that each load lasted.
    pub seconds: u64,
    /// One for each row, peer and round.
    pub findings: Vec<Finding>,
}

impl Comparison {
    /// The figures of a row and a peer, ascending.
    pub(super) fn values(&self, row: Row, peer: Peer) -> Vec<f64> {
        let of = self
            .findings
            .iter()
            .filter(|found| found.row == row && found.peer == peer);
        let mut values: Vec<f64> = of.map(|found| found.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    pub(super) fn median(&self, row: Row, peer: Peer) -> Option<f64> {
        let values = self.values(row, peer);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    /// Whether roomcast lost, doubled or disordered anything.
    pub fn is_clean(&self) -> bool {
        let ours = |found: &&Finding| matches!(found.peer, Peer::Roomcast | Peer::RoomcastFsync);
        self.findings.iter().filter(ours).all(|found| found.verdict.is_clean())
    }

    /// For people, as Markdown.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for row in Row::value_variants() {
            let peers: Vec<Peer> = Peer::value_variants()
                .iter()
                .copied()
                .filter(|peer| !self.values(*row, *peer).is_empty())
                .collect();
            if peers.is_empty() {
                continue;
            }
            // Writing to a string cannot fail.
            let _written = writeln!(text, "### `{row}`: {}\n", row.unit());
            text.push_str("| | median | least to most | roomcast's ratio to it | of Redis | ack p50 / p99 ms | delivery p50 / p99 ms | lost, doubled, disordered | never joined |\n|---|---|---|---|---|---|---|---|---|\n");
            for peer in peers {
                text.push_str(&self.line(*row, peer));
            }
            text.push('\n');
            for judged in self.judged(*row) {
                let met = if judged.is_met { "met" } else { "**missed**" };
                let _written = writeln!(text, "* {}: {met}", judged.what);
            }
            text.push('\n');
        }
        text
    }

    fn line(&self, row: Row, peer: Peer) -> String {
        let values = self.values(row, peer);
        let median = self.median(row, peer).unwrap_or_default();
        let ratio = self.median(row, Peer::Roomcast).filter(|_| peer != Peer::Roomcast);
        let of = self
            .findings
            .iter()
            .filter(|found| found.row == row && found.peer == peer);
        let middle = |figure: fn(&Finding) -> f64| {
            let mut figures: Vec<f64> = of.clone().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or_default()
        };
        let sum = |count: fn(&Finding) -> u64| of.clone().map(count).sum::<u64>();
        format!(
            "| {peer} | {median:.2} | {:.2} to {:.2} | {} | {:.2} | {:.1} / {:.1} | {:.1} / {:.1} | {}, {}, {} of {} | {} |\n",
            values[0],
            values[values.len() - 1],
            ratio.map_or_else(String::new, |ours| format!("{:.2}", ours / median)),
            middle(|found| found.redis.unwrap_or_default()),
            middle(|found| found.ack.p50),
            middle(|found| found.ack.p99),
            middle(|found| found.delivery.p50),
            middle(|found| found.delivery.p99),
            sum(|found| found.verdict.lost),
            sum(|found| found.verdict.doubled),
            sum(|found| found.verdict.disordered),
            sum(|found| found.verdict.expected),
            sum(|found| found.not_joined),
        )
    }

    /// Which targets of a row are met, as far as it was measured.
    pub(super) fn judged(&self, row: Row) -> Vec<Judged> {
        targets(row)
            .iter()
            .filter_map(|target| self.judge(row, *target))
            .collect()
    }

    fn judge(&self, row: Row, target: Target) -> Option<Judged> {
        let (what, value, limit) = match target {
            Target::Ratio(peer, limit) => {
                let ratio = self.median(row, Peer::Roomcast)? / self.median(row, peer)?;
                (format!("{ratio:.2} × {peer}"), ratio, limit)
            }
            Target::Figure(peer, limit) => {
                let median = self.median(row, peer)?;
                (format!("{peer} {median:.2}"), median, limit)
            }
        };
        Some(Judged {
            what: format!("{what}; target at most {limit}"),
            is_met: value <= limit,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fleet::Verdict;
    use crate::fleet::tally::Percentiles;

    fn found(peer: Peer, value: f64, lost: u64) -> Finding {
        Finding {
            row: Row::Rooms100,
            peer,
            value,
            redis: Some(1.0),
            base_mib: 80.0,
            ack: Percentiles::default(),
            delivery: Percentiles::default(),
            verdict: Verdict {
                expected: 100,
                lost,
                ..Verdict::default()
            },
            not_joined: 0,
            refusals: BTreeMap::new(),
        }
    }

    #[test]
    fn medians_are_held_against_the_targets() {
        let findings = vec![
            found(Peer::Roomcast, 9.0, 0),
            found(Peer::Roomcast, 11.0, 0),
            found(Peer::Roomcast, 10.0, 0),
            found(Peer::Node, 25.0, 7),
            found(Peer::Stock, 10.0, 0),
        ];
        let mut comparison = Comparison {
            findings,
            ..Comparison::default()
        };
        let table = comparison.table();
        assert!(table.contains("| roomcast | 10.00 | 9.00 to 11.00 |  |"), "{table}");
        assert!(table.contains("| node | 25.00 | 25.00 to 25.00 | 0.40 |") && table.contains("| 7, 0, 0 of 100 |"));
        assert!(table.contains("0.40 × node; target at most 0.45: met"), "{table}");
        assert!(
            table.contains("1.00 × stock; target at most 0.8: **missed**"),
            "{table}"
        );
        let page = comparison.page();
        assert!(page.contains("roomcast is 0.40 of it") && page.contains("class=\"missed\">✗ 1.00 × stock"));
        assert!(!page.contains("<h2>hot"), "a row that was not measured");
        assert!(comparison.is_clean());
        comparison.findings.push(found(Peer::Roomcast, 9.0, 1));
        assert!(!comparison.is_clean());
    }
}
