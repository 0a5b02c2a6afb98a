//! The picture of a run that is under way, for terminals of 60 columns and 15 lines or more.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{LineGauge, Sparkline, Widget};

use super::result::{Point, RunResult};
use crate::fleet::tally::Percentiles;

/// Seconds of a sparkline.
const SECONDS: usize = 60;
/// Columns of what a line is called.
const NAME: u16 = 10;
/// Columns behind a sparkline.
const BEHIND: u16 = 14;
/// Lines of a sparkline: more say no more.
const SPARK_MAX: u16 = 4;

/// What a run is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its nodes start.
    Starting,
    /// Its sockets come.
    Connecting,
    /// It has talked, warming up included, for so long.
    Talk(Duration),
    /// It stops what it has started.
    Ending,
}

/// How a run stands.
pub(super) struct View<'a> {
    pub(super) result: &'a RunResult,
    pub(super) stage: Stage,
    /// Since the beginning.
    pub(super) passed: Duration,
}

impl Widget for View<'_> {
    fn render(self, area: Rect, buffer: &mut Buffer) {
        let mut rest = area;
        self.title(next(&mut rest, 1), buffer);
        self.progress(next(&mut rest, 1), buffer);
        let asks = self.result.scenario.asks();
        let lines = [self.messages(asks), self.latencies(asks), self.faults()].concat();
        if rest.height as usize >= lines.len() + 4 {
            next(&mut rest, 1);
        }
        for line in lines {
            line.render(next(&mut rest, 1), buffer);
        }
        self.sparks(rest, buffer);
    }
}

impl View<'_> {
    fn title(&self, area: Rect, buffer: &mut Buffer) {
        let (result, seconds) = (self.result, self.passed.as_secs());
        let title = format!(
            "{}: {} sockets on {}",
            result.name,
            result.scenario.sockets(),
            count(u64::from(result.scenario.nodes), "node")
        );
        let [left, right] = halves(area, area.width.saturating_sub(8));
        Line::from(title.bold()).render(left, buffer);
        let clock = format!("{}:{:02}", seconds / 60, seconds % 60);
        Line::from(clock).right_aligned().render(right, buffer);
    }

    fn progress(&self, area: Rect, buffer: &mut Buffer) {
        let scenario = &self.result.scenario;
        let (ratio, label) = match self.stage {
            Stage::Starting => (0.0, "starting".to_owned()),
            Stage::Connecting => {
                let (joined, all) = (self.last().totals.joined, scenario.sockets());
                let label = format!("connecting {joined} of {all}");
                (joined as f64 / f64::from(all.max(1)), label)
            }
            Stage::Talk(passed) => {
                let (warm_up, lasts) = (scenario.warm_up as f64, scenario.lasts as f64);
                let (what, passed, all) = match passed.as_secs_f64() - warm_up {
                    before if before < 0.0 => ("warm-up", before + warm_up, warm_up),
                    since => ("talk", since, lasts),
                };
                match all - passed {
                    left if left > 0.0 => (passed / all, format!("{what}, {} s left", left.ceil())),
                    _ => (1.0, "draining: what is under way may arrive".to_owned()),
                }
            }
            Stage::Ending => (1.0, "ending".to_owned()),
        };
        LineGauge::default()
            .ratio(ratio.clamp(0.0, 1.0))
            .label(format!("{label} "))
            .filled_symbol("█")
            .unfilled_symbol("░")
            .filled_style(Style::new().fg(Color::Green))
            .render(area, buffer);
    }

    fn last(&self) -> Point {
        self.result.points.last().cloned().unwrap_or_default()
    }

    fn messages(&self, asks: bool) -> Vec<Line<'static>> {
        let points = &self.result.points;
        let now = self.last().totals;
        let before = points.iter().rev().nth(1).map(|point| point.totals).unwrap_or_default();
        let mut columns = vec![
            ("sent", now.sent, before.sent),
            ("acked", now.acked, before.acked),
            ("received", now.received, before.received),
        ];
        if asks {
            columns.push(("asked", now.asked, before.asked));
            columns.push(("replied", now.replied, before.replied));
        }
        let row = |name: &str, cell: &dyn Fn(&(&str, u64, u64)) -> String| {
            let cells: String = columns.iter().map(|column| format!("{:>10}", cell(column))).collect();
            format!("{name:<10}{cells}")
        };
        vec![
            heading(row("messages", &|(name, ..)| (*name).to_owned())),
            row("a second", &|(_, now, before)| now.saturating_sub(*before).to_string()).into(),
            row("in all", &|(_, now, _)| now.to_string()).into(),
        ]
    }

    fn latencies(&self, asks: bool) -> Vec<Line<'static>> {
        let (last, far, limits) = (self.last(), self.result.so_far(), &self.result.scenario.limits);
        let nothing = Percentiles::default();
        let mut rows = vec![
            ("ack", last.ack, far.ack, limits.ack_p99_ms),
            ("delivery", last.delivery, far.delivery, limits.delivery_p99_ms),
            ("connect", nothing, far.connect, limits.connect_p99_ms),
        ];
        if asks {
            // Its limit is of another percentile.
            rows.push(("1st delta", last.first_delta, far.first_delta, None));
        }
        let head = format!(
            "{:<10}{:>10}{:>10}{:>10}{:>10}{:>9}",
            "ms", "p50", "p99", "all p50", "all p99", "limit"
        );
        let mut lines = vec![heading(head)];
        for (name, last, far, limit) in rows {
            let at = |of: &Percentiles, value: f64| match of.count {
                0 => "-".to_owned(),
                _ => format!("{value:.1}"),
            };
            let start = format!(
                "{name:<10}{:>10}{:>10}{:>10}",
                at(&last, last.p50),
                at(&last, last.p99),
                at(&far, far.p50)
            );
            let missed = limit.is_some_and(|limit| far.p99 > limit);
            let limit = limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
            let end = Span::styled(format!("{:>10}{limit:>9}", at(&far, far.p99)), alarm(missed));
            lines.push(Line::from(vec![Span::raw(start), end]));
        }
        lines
    }

    fn faults(&self) -> Vec<Line<'static>> {
        let (last, result) = (self.last(), self.result);
        let totals = last.totals;
        let is_much = totals.refused > result.scenario.limits.refused;
        let mut faults = vec![Span::styled(format!("{} refused", totals.refused), alarm(is_much))];
        let counts = [
            ("cut off", totals.dropped),
            ("twice", totals.doubled),
            ("out of order", totals.disordered),
        ];
        for (what, count) in counts {
            faults.push(Span::raw(", "));
            faults.push(Span::styled(format!("{count} {what}"), alarm(count > 0)));
        }
        let mut nodes = if result.measured {
            format!("nodes: {:.2} cores, {:.0} MiB", last.cores, last.memory_mib)
        } else {
            "nodes: not measured".to_owned()
        };
        for (what, count) in [("left", totals.left), ("slow let go", totals.slow_dropped)] {
            if count > 0 {
                nodes = format!("{nodes}; {count} {what}");
            }
        }
        vec![Line::from(faults), Line::from(nodes)]
    }

    fn sparks(&self, area: Rect, buffer: &mut Buffer) {
        let mut rest = area;
        let bars = area.width.saturating_sub(NAME + BEHIND).min(SECONDS as u16);
        heading(format!("p99 in each of the last {bars} s")).render(next(&mut rest, 1), buffer);
        let height = (rest.height / 2).clamp(1, SPARK_MAX);
        let points = &self.result.points;
        let points = &points[points.len().saturating_sub(bars.into())..];
        for (name, of) in [
            ("ack", (|point| point.ack) as fn(&Point) -> Percentiles),
            ("delivery", |point| point.delivery),
        ] {
            let times: Vec<f64> = points.iter().map(|point| of(point).p99).collect();
            let most = times.iter().copied().fold(0.0, f64::max);
            let line = next(&mut rest, height);
            let [name_area, line] = halves(line, NAME);
            let [bars, behind] = halves(line, bars);
            Line::from(name).render(name_area, buffer);
            let tenths: Vec<u64> = times.iter().map(|time| (time * 10.0) as u64).collect();
            Sparkline::default()
                .data(tenths)
                .style(Style::new().fg(Color::Cyan))
                .render(bars, buffer);
            Line::from(format!(" max {most:.1}")).render(behind, buffer);
        }
    }
}

fn heading(text: String) -> Line<'static> {
    Line::from(text.dim())
}

fn alarm(is_due: bool) -> Style {
    match is_due {
        true => Style::new().fg(Color::Red).bold(),
        false => Style::new(),
    }
}

fn count(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Takes so many lines, or those that are left.
fn next(rest: &mut Rect, lines: u16) -> Rect {
    let taken = Rect {
        height: lines.min(rest.height),
        ..*rest
    };
    rest.y += taken.height;
    rest.height -= taken.height;
    taken
}

/// The first so many columns, and the others.
fn halves(area: Rect, columns: u16) -> [Rect; 2] {
    let width = columns.min(area.width);
    let right = Rect {
        x: area.x + width,
        width: area.width - width,
        ..area
    };
    [Rect { width, ..area }, right]
}

#[cfg(test)]
mod tests;
