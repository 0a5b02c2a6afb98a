//! A page of one run, or of several beside each other: charts over time and the figures; one file without anything from elsewhere.

use std::fmt::Write as _;

use super::result::{Point, RunResult};
use super::scenario::Scenario;

/// Size of a chart, px.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 170.0;
/// Room for the labels of the axes, px.
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 22.0;
/// Points drawn of one line: more than a chart has pixels nobody sees.
const POINTS_MAX: usize = 560;
/// Colours of the lines, that differ for everybody and on light and dark ground.
const COLOURS: [&str; 6] = ["#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#64748b"];

const STYLE: &str = "
:root { color-scheme: light dark; --ground: #fff; --ink: #1f2937; --faint: #6b7280; --line: #e5e7eb; --card: #f9fafb; }
@media (prefers-color-scheme: dark) { :root { --ground: #111827; --ink: #e5e7eb; --faint: #9ca3af; --line: #374151; --card: #1f2937; } }
body { margin: 0 auto; max-width: 1220px; padding: 28px; font: 15px/1.45 system-ui, sans-serif; background: var(--ground); color: var(--ink); }
h1 { font-size: 24px; margin: 0 0 4px; } h2 { font-size: 15px; margin: 0 0 6px; }
p { margin: 0 0 14px; color: var(--faint); }
.good, .bad { display: inline-block; padding: 3px 12px; border-radius: 99px; color: #fff; font-weight: 600; }
.good { background: #059669; } .bad { background: #dc2626; }
ul { margin: 8px 0 18px; padding-left: 20px; color: #dc2626; }
table { border-collapse: collapse; width: 100%; margin: 16px 0 24px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); } th:first-child, td:first-child { text-align: left; }
th { color: var(--faint); font-weight: 500; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 18px; }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px 8px; }
svg { width: 100%; height: auto; } svg text { fill: var(--faint); font-size: 11px; } .grid { stroke: var(--line); }
.key { font-size: 12px; color: var(--faint); } .key i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin: 0 5px 0 12px; }
";

/// A line of a chart.
struct Line {
    name: String,
    values: Vec<f64>,
}

/// The page.
pub fn page(results: &[RunResult]) -> String {
    let names: Vec<&str> = results.iter().map(|result| result.name.as_str()).collect();
    let title = escape(&names.join(" and "));
    let mut text = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
    );
    // Writing to a string cannot fail.
    for result in results {
        let scenario = &result.scenario;
        let _written = write!(
            text,
            "<p>{}: {} sockets in {} rooms on {} nodes for {} s, {}; {}</p>",
            escape(&scenario.about),
            scenario.sockets(),
            scenario.all_rooms(),
            scenario.nodes,
            scenario.lasts,
            escape(&talk(scenario)),
            escape(&result.machine)
        );
        let complaints = result.complaints();
        if complaints.is_empty() {
            text.push_str("<span class=good>every promise and every limit was kept</span>");
        } else {
            text.push_str("<span class=bad>failed</span><ul>");
            for complaint in &complaints {
                let _written = write!(text, "<li>{}", escape(complaint));
            }
            text.push_str("</ul>");
        }
    }
    text.push_str(&table(results));
    text.push_str("<div class=charts>");
    let several = results.len() > 1;
    let lines = |name: &str, figure: fn(&[Point], usize) -> f64| -> Vec<Line> {
        let line = |(index, result): (usize, &RunResult)| Line {
            name: match (several, name.is_empty()) {
                (true, true) => format!("{} ({})", result.name, index + 1),
                (true, false) => format!("{name}, {} ({})", result.name, index + 1),
                (false, _) => name.to_owned(),
            },
            values: (0..result.points.len()).map(|at| figure(&result.points, at)).collect(),
        };
        results.iter().enumerate().map(line).collect()
    };
    let measured = |lines: Vec<Line>| {
        let own = |(mut line, result): (Line, &RunResult)| {
            if !result.measured {
                // A line at 0 would say that it was nothing. The place stays, so that colours do.
                line.values.clear();
                line.name.push_str(" not measured");
            }
            line
        };
        lines.into_iter().zip(results).map(own).collect::<Vec<_>>()
    };
    let two = |first: Vec<Line>, second: Vec<Line>| first.into_iter().chain(second).collect::<Vec<_>>();
    let mut charts = vec![
        (
            "From due to delivered, ms",
            two(
                lines("p50", |points, at| points[at].delivery.p50),
                lines("p99", |points, at| points[at].delivery.p99),
            ),
        ),
        (
            "From due to acked, ms",
            two(
                lines("p50", |points, at| points[at].ack.p50),
                lines("p99", |points, at| points[at].ack.p99),
            ),
        ),
        (
            "Messages a second",
            two(
                lines("sent", |points, at| rate(points, at, |point| point.totals.sent)),
                lines("acked", |points, at| rate(points, at, |point| point.totals.acked)),
            ),
        ),
        (
            "Deliveries a second",
            lines("", |points, at| rate(points, at, |point| point.totals.received)),
        ),
        (
            "Sockets in their rooms",
            lines("", |points, at| points[at].totals.joined as f64),
        ),
        (
            "Refused or failed, a second",
            lines("", |points, at| rate(points, at, |point| point.totals.refused)),
        ),
        (
            "Cores that the nodes use",
            measured(lines("", |points, at| points[at].cores)),
        ),
        (
            "Memory of the nodes, MiB",
            measured(lines("", |points, at| points[at].memory_mib)),
        ),
    ];
    if results.iter().any(|result| result.scenario.asks()) {
        charts.push((
            "From due to the first piece of a reply, ms",
            two(
                lines("p50", |points, at| points[at].first_delta.p50),
                lines("p95", |points, at| points[at].first_delta.p95),
            ),
        ));
    }
    for (title, lines) in &charts {
        text.push_str(&chart(title, lines));
    }
    text.push_str("</div></html>\n");
    text
}

/// What a second added.
fn rate(points: &[Point], at: usize, count: fn(&Point) -> u64) -> f64 {
    let before = at.checked_sub(1).map_or(0, |before| count(&points[before]));
    count(&points[at]).saturating_sub(before) as f64
}

fn table(results: &[RunResult]) -> String {
    let mut text = String::from(
        "<table><tr><th><th>ack p50<th>p99<th>p99.9<th>max ms<th>delivery p50<th>p99<th>p99.9<th>max ms<th>connect p99 ms<th>copies<th>lost<th>twice<th>disordered<th>KiB a socket",
    );
    for result in results {
        let (ack, delivery, verdict) = (result.ack, result.delivery, result.verdict);
        let _written = write!(
            text,
            "<tr><td>{}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.1}<td>{:.0}<td>{}<td>{}<td>{}<td>{}<td>{}",
            escape(&result.name),
            ack.p50,
            ack.p99,
            ack.p999,
            ack.max,
            delivery.p50,
            delivery.p99,
            delivery.p999,
            delivery.max,
            result.connect.p99,
            verdict.expected,
            verdict.lost,
            verdict.doubled,
            verdict.disordered,
            if result.measured {
                format!("{:.1}", result.per_socket_kib())
            } else {
                "not measured".to_owned()
            }
        );
    }
    text + "</table>"
}

fn chart(title: &str, lines: &[Line]) -> String {
    let most = lines
        .iter()
        .flat_map(|line| &line.values)
        .fold(0.0_f64, |most, value| most.max(*value));
    let top = round_up(most);
    let seconds = lines.iter().map(|line| line.values.len()).max().unwrap_or(0).max(2) - 1;
    let x = |at: usize| LEFT + at as f64 / seconds as f64 * (WIDTH - LEFT - 6.0);
    let y = |value: f64| 6.0 + (1.0 - value / top) * (HEIGHT - BOTTOM - 6.0);
    let mut svg = String::new();
    for quarter in 0..=4 {
        let value = top * f64::from(quarter) / 4.0;
        let at = y(value);
        let _written = write!(
            svg,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={at:.1} y2={at:.1} /><text x={:.0} y={:.1} text-anchor=end>{}</text>",
            LEFT - 6.0,
            at + 4.0,
            short(value)
        );
    }
    for quarter in 0..=4 {
        let at = seconds * quarter / 4;
        let anchor = if quarter == 4 { "end" } else { "middle" };
        let _written = write!(
            svg,
            "<text x={:.1} y={HEIGHT} text-anchor={anchor}>{at} s</text>",
            x(at)
        );
    }
    let mut key = String::new();
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let step = line.values.len().div_ceil(POINTS_MAX).max(1);
        let mut points = String::new();
        // The highest of each step: a peak must not disappear.
        for (index, chunk) in line.values.chunks(step).enumerate() {
            let value = chunk.iter().fold(0.0_f64, |most, value| most.max(*value));
            let _written = write!(points, "{:.1},{:.1} ", x(index * step), y(value));
        }
        let _written = write!(
            svg,
            "<polyline fill=none stroke=\"{colour}\" stroke-width=1.8 points=\"{points}\" />"
        );
        if !line.name.is_empty() {
            let _written = write!(key, "<i style=\"background:{colour}\"></i>{}", escape(&line.name));
        }
    }
    format!(
        "<div class=chart><h2>{title}</h2><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\">{svg}</svg><div class=key>{key}</div></div>"
    )
}

/// The end of an axis: 1, 2 or 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value >= 1e6 => format!("{:.1}M", value / 1e6),
        _ if value >= 1e4 => format!("{:.1}k", value / 1e3),
        _ if value >= 10.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

/// What is said in the rooms.
fn talk(scenario: &Scenario) -> String {
    let groups = scenario.groups();
    let talk = groups.iter().map(|group| {
        let name = if group.name.is_empty() {
            String::new()
        } else {
            format!("{}: ", group.name)
        };
        let most = group.rates.iter().fold(group.rate, |most, (_, rate)| most.max(*rate));
        let most = if group.rates.is_empty() {
            format!("{most}")
        } else {
            format!("up to {most}")
        };
        format!("{name}{most} messages a second of {} bytes", group.bytes)
    });
    talk.collect::<Vec<_>>().join(", ")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Scenario;

    #[test]
    fn what_was_not_measured_has_no_line() {
        let text = "about: x\nrooms: 1\nmembers: 2\nconnects_per_second: 10\nlasts: 2\n";
        let scenario: Scenario = serde_saphyr::from_str(text).unwrap();
        let mut result = RunResult::new("x", &scenario, String::new(), None);
        result.points = vec![Point::default(); 3];
        let drawn = |result: &RunResult| {
            let page = page(std::slice::from_ref(result));
            let cores = page.split("Cores that the nodes use").nth(1).unwrap().to_owned();
            (
                cores.split("points=\"").nth(1).unwrap().starts_with('"'),
                page.matches("not measured").count(),
            )
        };
        assert_eq!(drawn(&result), (true, 3));
        result.measured = true;
        assert_eq!(drawn(&result), (false, 0));
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 1.2, 7.0, 1234.0].map(round_up);
        for (end, expected) in ends.iter().zip([1.0, 0.5, 1.0, 2.0, 10.0, 2000.0]) {
            assert!((end - expected).abs() < 1e-9, "{end} {expected}");
        }
        assert_eq!(
            [0.0, 0.5, 12.0, 12_000.0, 2e6].map(short),
            ["0", "0.50", "12", "12.0k", "2.0M"]
        );
    }

    #[test]
    fn names_cannot_add_markup() {
        assert_eq!(escape("<b>&"), "&lt;b&gt;&amp;");
        let drawn = chart(
            "x",
            &[Line {
                name: "<i>".to_owned(),
                values: vec![1.0, 2.0],
            }],
        );
        assert!(drawn.contains("&lt;i&gt;") && drawn.contains("<polyline"), "{drawn}");
    }
}
