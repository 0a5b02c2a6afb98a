//! The highest rate at which a scenario keeps its limits: up in steps until one is missed, then in halves between.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::result::RunResult;
use super::scenario::Scenario;
use super::{Means, drive, name_of};
use crate::harness::{HarnessError, Say, run_in_folder};

/// A step is large enough to arrive after few runs, and small enough not to leap far over the knee, where a backlog says little.
const STEP: f64 = 1.3;
/// The answer is as near as this: two runs of one rate differ by as much.
const NEAR: f64 = 1.05;
/// Runs of a search: 20 steps are a factor of 190 up or down, the rest narrows.
const RUNS_MAX: usize = 24;

/// Searches the highest rate at which a scenario keeps its limits, each rate against a deployment of its own or one that runs
/// already.
///
/// Exit code: 0 there is such a rate, 1 there is none or a promise was broken at some rate, 2 it could not run.
#[derive(Clone, Debug, Args)]
pub struct CapacityOptions {
    /// A file as in `loadtest/scenarios/`; it starts from its `rate`
    pub scenario: PathBuf,
    /// Another duration of each run, s
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub lasts: Option<u64>,
    /// By what means
    #[command(flatten)]
    pub means: Means,
}

/// Where a search stands.
#[derive(Clone, Copy, Debug)]
struct Search {
    next: f64,
    /// The highest rate that was kept.
    good: Option<f64>,
    /// The lowest rate that was not.
    bad: Option<f64>,
    runs: usize,
}

impl Search {
    fn new(from: f64) -> Self {
        Self {
            next: from,
            good: None,
            bad: None,
            runs: 0,
        }
    }

    /// The rate to try, unless it is known well enough.
    fn next(&self) -> Option<f64> {
        let is_near = matches!((self.good, self.bad), (Some(good), Some(bad)) if bad / good <= NEAR);
        (self.runs < RUNS_MAX && !is_near).then_some(self.next)
    }

    /// Whether the limits were kept at that rate.
    fn tried(&mut self, rate: f64, kept: bool) {
        self.runs += 1;
        if kept {
            self.good = Some(rate);
        } else {
            self.bad = Some(rate);
        }
        self.next = match (self.good, self.bad) {
            // The middle of a ratio, as the steps are.
            (Some(good), Some(bad)) => (good * bad).sqrt(),
            (Some(good), None) => good * STEP,
            (None, _) => rate / STEP,
        };
    }
}

/// Searches and prints each rate; false when there is none that keeps the limits, or a promise was broken.
pub async fn capacity(options: CapacityOptions) -> Result<bool, HarnessError> {
    let mut scenario = Scenario::read(&options.scenario)?;
    scenario.lasts = options.lasts.unwrap_or(scenario.lasts);
    check(&scenario).map_err(|error| HarnessError::Setup(format!("{}: {error}", options.scenario.display())))?;
    let name = name_of(&options.scenario);
    let say = Say { to_stderr: true };
    run_in_folder(None, "roomcast-load", options.means.keep, say, async |dir| {
        let mut search = Search::new(scenario.rate);
        let mut is_whole = true;
        println!("{}", heading());
        while let Some(rate) = search.next() {
            let scenario = Scenario {
                rate,
                ..scenario.clone()
            };
            let dir = dir.join(format!("run-{}", search.runs));
            std::fs::create_dir(&dir)?;
            let result = drive(&name, &scenario, &options.means, &dir, say).await?;
            println!("{}", row(&result));
            is_whole &= result.broken_promises().is_empty();
            search.tried(rate, result.complaints().is_empty());
        }
        match search.good {
            Some(rate) => println!("{name}: up to {rate:.0} messages a second within its limits"),
            None => println!("{name}: no rate was within its limits"),
        }
        Ok(is_whole && search.good.is_some())
    })
    .await
}

/// Without an end to find there is no search.
fn check(scenario: &Scenario) -> Result<(), &'static str> {
    if scenario.rate <= 0.0 {
        return Err("rate: a search needs one to start from");
    }
    if scenario.limits.ack_p99_ms.is_none() && scenario.limits.delivery_p99_ms.is_none() {
        return Err("limits: a search needs ack_p99_ms or delivery_p99_ms");
    }
    Ok(())
}

fn heading() -> String {
    format!("{:>9} {:>9} {:>9} {:>7}", "rate, 1/s", "ack p99", "delivery", "cores")
}

/// A rate and what became of it, latencies in ms.
fn row(result: &RunResult) -> String {
    let talk = &result.points[result.begun_at.min(result.points.len())..];
    let cores = talk.iter().map(|point| point.cores).sum::<f64>() / talk.len().max(1) as f64;
    let (rate, ack, delivery) = (result.scenario.rate, result.ack.p99, result.delivery.p99);
    let cores = if result.measured {
        format!("{cores:.2}")
    } else {
        "-".to_owned()
    };
    let mut text = format!("{rate:>9.0} {ack:>9.1} {delivery:>9.1} {cores:>7}");
    for complaint in result.complaints() {
        // Writing to a string cannot fail.
        let _written = write!(text, "  {complaint}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(from: f64, knee: f64) -> (Option<f64>, usize) {
        let mut search = Search::new(from);
        while let Some(rate) = search.next() {
            search.tried(rate, rate <= knee);
        }
        (search.good, search.runs)
    }

    #[test]
    fn search_finds_the_knee_from_both_sides() {
        for (from, knee) in [(100.0, 1000.0), (100.0, 100.0), (5000.0, 1000.0), (100.0, 101.0)] {
            let (found, runs) = find(from, knee);
            let found = found.unwrap();
            assert!(found <= knee && found * NEAR >= knee, "{from} {knee}: {found}");
            assert!(runs <= 16, "{from} {knee}: {runs} runs");
        }
    }

    #[test]
    fn search_without_an_end_is_bounded() {
        assert_eq!(find(100.0, f64::INFINITY).1, RUNS_MAX);
        assert_eq!(find(100.0, 0.0), (None, RUNS_MAX));
    }

    #[test]
    fn cores_that_were_not_measured_are_not_told() {
        let text = "about: x\nrooms: 1\nmembers: 2\nconnects_per_second: 10\nrate: 5\nlasts: 1\n";
        let scenario: Scenario = serde_saphyr::from_str(text).unwrap();
        let mut result = RunResult::new("x", &scenario, String::new(), None);
        result.points.push(crate::run::Point::default());
        let cores = |result: &RunResult| row(result).split_whitespace().nth(3).unwrap().to_owned();
        assert_eq!(cores(&result), "-");
        result.measured = true;
        assert_eq!(cores(&result), "0.00");
    }

    #[test]
    fn search_needs_a_rate_and_a_limit() {
        let read = |more: &str| -> Scenario {
            let text = format!("about: x\nrooms: 1\nmembers: 2\nconnects_per_second: 10\nlasts: 1\n{more}");
            serde_saphyr::from_str(&text).unwrap()
        };
        assert!(
            check(&read("limits: {ack_p99_ms: 5}\n"))
                .unwrap_err()
                .starts_with("rate")
        );
        assert!(check(&read("rate: 5\n")).unwrap_err().starts_with("limits"));
        assert_eq!(check(&read("rate: 5\nlimits: {delivery_p99_ms: 5}\n")), Ok(()));
    }
}
