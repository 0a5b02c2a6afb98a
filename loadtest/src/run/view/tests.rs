//! The picture of a run whose seconds were recorded.

use super::*;
use crate::flood::proc::Used;
use crate::run::Scenario;
use crate::run::part::Second;

/// Seconds of a real run: whether all were in, what the clients said, processor time and MiB of the node.
const SECONDS_OF_A_RUN: &str = include_str!("../../../measured/seconds.jsonl");
const SCENARIO: &str =
    "about: x\nrooms: 4\nmembers: 3\nconnects_per_second: 6\nrate: 30\nwarm_up: 1\nlasts: 4\nlimits: {ack_p99_ms: 1}\n";

/// That run after so many of its seconds.
fn after(seconds: usize) -> RunResult {
    let scenario: Scenario = serde_saphyr::from_str(SCENARIO).unwrap();
    let mut result = RunResult::new("tiny", &scenario, String::new(), Some(Used::default()));
    let mut is_begun = false;
    for line in SECONDS_OF_A_RUN.lines().take(seconds) {
        let (is_in, second, (cpu, mib)): (bool, Second, (f64, f64)) = serde_json::from_str(line).unwrap();
        if is_in && !is_begun {
            result.begin(Some(Used { cpu, mib }));
            is_begun = true;
        }
        result.add(0, second);
        result.sample(Some(Used { cpu, mib }));
        // They come faster than they did.
        result.points.last_mut().unwrap().cores = 0.05;
    }
    result
}

fn paint(result: &RunResult, stage: Stage, (columns, lines): (u16, u16)) -> (Buffer, Vec<String>) {
    let mut buffer = Buffer::empty(Rect::new(0, 0, columns, lines));
    let view = View {
        result,
        stage,
        passed: Duration::from_secs(65),
    };
    view.render(buffer.area, &mut buffer);
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
    let text = (0..lines).map(line).collect();
    (buffer, text)
}

#[test]
fn a_small_terminal_shows_all_of_a_real_run() {
    let (buffer, lines) = paint(&after(7), Stage::Talk(Duration::from_millis(4500)), (60, 15));
    let expected = [
        "tiny: 12 sockets on 1 node                              1:05",
        "talk, 1 s left  ██████████████████████████████████████░░░░░░",
        "                                                            ",
        "messages        sent     acked  received                    ",
        "a second          25        25        75                    ",
        "in all           145       145       435                    ",
        "ms               p50       p99   all p50   all p99    limit ",
        "ack              1.7       2.9       1.7       3.0        1 ",
        "delivery         1.9       3.0       1.9       3.6        - ",
        "connect            -         -       4.1      10.5        - ",
        "0 refused, 0 cut off, 0 twice, 0 out of order               ",
        "nodes: 0.05 cores, 35 MiB                                   ",
        "p99 in each of the last 36 s                                ",
        "ack        ▅▃█▄▄▄                              max 5.2      ",
        "delivery   ██▅▃▂▃                              max 7.7      ",
    ];
    assert_eq!(lines, expected);
    let colour = |x, y| buffer[(x, y)].fg;
    assert_eq!(
        (colour(49, 7), colour(49, 8)),
        (Color::Red, Color::Reset),
        "a missed limit"
    );
}

#[test]
fn every_stage_says_how_far_it_is() {
    let talk = |millis| Stage::Talk(Duration::from_millis(millis));
    for (seconds, stage, expected) in [
        (0, Stage::Starting, "starting  ░░░░"),
        (
            1,
            Stage::Connecting,
            "connecting 6 of 12  ████████████████████░░░░░░░░░░░░░░░░░░░░",
        ),
        (2, talk(250), "warm-up, 1 s left  ██████████░░░░"),
        (7, talk(5000), "draining: what is under way may arrive  ████"),
        (7, Stage::Ending, "ending  ████"),
    ] {
        let (_, lines) = paint(&after(seconds), stage, (60, 15));
        assert!(lines[1].starts_with(expected), "{:?} for {expected:?}", lines[1]);
    }
}

#[test]
fn what_goes_wrong_stands_out() {
    let mut result = after(7);
    let totals = &mut result.points.last_mut().unwrap().totals;
    (totals.refused, totals.doubled, totals.left) = (3, 2, 9);
    let (buffer, lines) = paint(&result, Stage::Ending, (60, 15));
    assert!(lines[10].starts_with("3 refused, 0 cut off, 2 twice"), "{}", lines[10]);
    assert!(lines[11].contains("35 MiB; 9 left"), "{}", lines[11]);
    let colours = [0, 11, 22].map(|x| buffer[(x, 10)].fg);
    assert_eq!(colours, [Color::Red, Color::Reset, Color::Red]);
    result.measured = false;
    assert!(paint(&result, Stage::Ending, (60, 15)).1[11].starts_with("nodes: not measured"));
}

#[test]
fn any_size_will_do() {
    for size in [(0, 0), (1, 1), (9, 40), (20, 3), (59, 14), (80, 24), (300, 100)] {
        let (_, lines) = paint(&after(7), Stage::Connecting, size);
        let bars = lines
            .iter()
            .filter(|line| line.contains('█') && line.contains("max"))
            .count();
        assert_eq!(bars > 0, size.0 >= 59 && size.1 >= 14, "{size:?} {lines:#?}");
    }
    let asks = "rooms: 4\nmembers: 3\nquestions: 0.1\n";
    let mut result = after(7);
    result.scenario = serde_saphyr::from_str(&SCENARIO.replace("rooms: 4\nmembers: 3\n", asks)).unwrap();
    let (_, lines) = paint(&result, Stage::Connecting, (60, 15));
    assert!(
        lines[9].starts_with("1st delta") && lines[14].starts_with("delivery "),
        "{lines:#?}"
    );
}
