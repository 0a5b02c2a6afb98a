//! What a load test does and what it demands, as a file says it.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::harness::HarnessError;

/// A load test.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for.
    pub about: String,
    /// Chat nodes that are started.
    #[serde(default = "one")]
    pub nodes: u16,
    /// Rooms.
    pub rooms: u32,
    /// Members of each room, spread over the nodes.
    pub members: u32,
    /// Sockets that connect in a second, all together.
    pub connects_per_second: f64,
    /// Messages a second in all rooms together; 0: nobody writes.
    #[serde(default)]
    pub rate: f64,
    /// Instead of `rate`: the rate at some seconds of the talk, as `[second, messages a second]`; between them it goes evenly from
    /// one to the next.
    #[serde(default)]
    pub rates: Vec<(u64, f64)>,
    /// Bytes of a message's text.
    #[serde(default = "bytes")]
    pub bytes: usize,
    /// Whether messages are due at random (Poisson) instead of evenly.
    #[serde(default = "yes")]
    pub poisson: bool,
    /// Seconds of talk before anything counts.
    #[serde(default)]
    pub warm_up: u64,
    /// Seconds that count.
    pub lasts: u64,
    /// Share of the sockets whose connections are broken half-way, all at once; they come back at `connects_per_second`.
    #[serde(default)]
    pub cut: f64,
    /// Sockets a second that leave while there is talk, and come back at once.
    #[serde(default)]
    pub churn: f64,
    /// Members that read slowly, and write nothing: the node may make nobody else wait for them.
    #[serde(default)]
    pub slow: Option<Slow>,
    /// What it demands beside that every acked message comes once and in order.
    #[serde(default)]
    pub limits: Limits,
}

/// Members that read slowly.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// How many of each room.
    pub members: u32,
    /// How fast each reads, bytes a second.
    pub bytes_per_second: u32,
}

/// What a run may not exceed; what is not named has no limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// From when a message was due to its ack.
    pub ack_p99_ms: Option<f64>,
    /// From the same moment to a member.
    pub delivery_p99_ms: Option<f64>,
    /// From dialling to the answer to `join`.
    pub connect_p99_ms: Option<f64>,
    /// Messages, joins and connections that were refused or failed.
    #[serde(default)]
    pub refused: u64,
    /// Resident memory that all nodes together may gain between the end of the first tenth and the end, MiB.
    pub memory_growth_mib: Option<f64>,
    /// Resident memory of all nodes at the end, for each socket, KiB.
    pub memory_per_socket_kib: Option<f64>,
}

/// What a scenario may say, as JSON Schema (2020-12), for editors and those who make scenarios.
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(Scenario);
    schema.insert("title".to_owned(), "A load test of roomcast-load".into());
    // A value of texts and numbers.
    format!("{:#}\n", schema.as_value())
}

fn one() -> u16 {
    1
}

fn bytes() -> usize {
    80
}

fn yes() -> bool {
    true
}

/// Sockets of a run: beyond it the tokens alone are a gigabyte.
const SOCKETS_MAX: u64 = 1_000_000;

impl Scenario {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, HarnessError> {
        let named = |error: &dyn std::fmt::Display| HarnessError::Setup(format!("{}: {error}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
        let scenario: Self = serde_saphyr::from_str(&text).map_err(|error| named(&error))?;
        scenario.check().map_err(|error| named(&error))?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let sockets = u64::from(self.rooms) * u64::from(self.members);
        if sockets == 0 || sockets > SOCKETS_MAX {
            return Err(format!("rooms × members is {sockets}; use 1 to {SOCKETS_MAX} sockets"));
        }
        if !(1..=32).contains(&self.nodes) {
            return Err("nodes: use 1 to 32".to_owned());
        }
        if !self.connects_per_second.is_finite() || self.connects_per_second <= 0.0 {
            return Err("connects_per_second: use a number above 0".to_owned());
        }
        if !self.rate.is_finite() || self.rate < 0.0 {
            return Err("rate: use messages a second, or 0 where nobody writes".to_owned());
        }
        let is_usable = |(_, rate): &(u64, f64)| rate.is_finite() && *rate >= 0.0;
        if !self.rates.is_sorted_by(|one, next| one.0 < next.0) || !self.rates.iter().all(is_usable) {
            return Err("rates: use [second, messages a second], the seconds ascending".to_owned());
        }
        if !self.rates.is_empty() && self.rate > 0.0 {
            return Err("rates: use either `rate` or `rates`".to_owned());
        }
        if !self.churn.is_finite() || self.churn < 0.0 || (self.churn > 0.0 && self.cut > 0.0) {
            return Err("churn: use sockets a second, and not together with `cut`".to_owned());
        }
        if !(0.0..=1.0).contains(&self.cut) {
            return Err("cut: use a share from 0 (nobody) to 1 (everybody)".to_owned());
        }
        if let Some(slow) = self.slow
            && (slow.members >= self.members || slow.bytes_per_second == 0)
        {
            return Err("slow: use fewer than `members`, and at least 1 byte a second".to_owned());
        }
        if self.lasts == 0 {
            return Err("lasts: use seconds, at least 1".to_owned());
        }
        if self.bytes > 4096 {
            return Err("bytes: use at most 4096".to_owned());
        }
        Ok(())
    }

    /// Messages a second at a moment of the talk, s.
    pub fn rate_at(&self, at: f64) -> f64 {
        let Some(next) = self.rates.iter().position(|(second, _)| *second as f64 > at) else {
            return self.rates.last().map_or(self.rate, |(_, rate)| *rate);
        };
        let (to, after) = self.rates[next];
        let Some((from, before)) = next.checked_sub(1).map(|last| self.rates[last]) else {
            return after;
        };
        let share = (at - from as f64) / (to - from) as f64;
        before + (after - before) * share
    }

    /// The most messages a second.
    pub fn peak_rate(&self) -> f64 {
        self.rates.iter().map(|(_, rate)| *rate).fold(self.rate, f64::max)
    }

    /// How fast a user reads, where that is slowly.
    pub fn reads(&self, user: u32) -> Option<u32> {
        let slow = self.slow.filter(|slow| user / self.rooms < slow.members)?;
        Some(slow.bytes_per_second)
    }

    /// Sockets in all.
    pub fn sockets(&self) -> u32 {
        self.rooms * self.members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_that_comes_with_it_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut count = 0;
        let mut files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        for file in files
            .by_ref()
            .filter(|file| file.extension().is_some_and(|end| end == "yaml"))
        {
            Scenario::read(&file).unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(
                text.starts_with("# yaml-language-server: $schema=schema.json\n"),
                "{}",
                file.display()
            );
            count += 1;
        }
        assert!(count >= 6, "{count}");
    }

    #[test]
    fn the_schema_beside_the_scenarios_is_up_to_date() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/schema.json");
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        let hint = "write it anew: roomcast-load schema > loadtest/scenarios/schema.json";
        assert_eq!(written, schema(), "{hint}");
        // Every field is described: it is what an editor shows.
        let schema: serde_json::Value = serde_json::from_str(&written).unwrap();
        let all = [
            &schema["properties"],
            &schema["$defs"]["Limits"]["properties"],
            &schema["$defs"]["Slow"]["properties"],
        ];
        for (name, field) in all.iter().flat_map(|fields| fields.as_object().unwrap()) {
            assert!(field["description"].is_string() || field["$ref"].is_string(), "{name}");
        }
    }

    #[test]
    fn rates_go_evenly_from_one_to_the_next() {
        let with = |more: &str| -> Scenario {
            let text = format!("about: x\nrooms: 1\nmembers: 2\nconnects_per_second: 10\nlasts: 1\n{more}");
            serde_saphyr::from_str(&text).unwrap()
        };
        let day = with("rates: [[10, 20], [20, 100], [30, 0]]\n");
        let at = [0.0, 10.0, 15.0, 20.0, 25.0, 30.0, 99.0].map(|at| day.rate_at(at));
        assert_eq!(at, [20.0, 20.0, 60.0, 100.0, 50.0, 0.0, 0.0]);
        assert_eq!(with("rate: 7\n").rate_at(3.0), 7.0);
    }

    #[test]
    fn a_wrong_scenario_names_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let good = "about: x\nrooms: 2\nmembers: 3\nconnects_per_second: 10\nlasts: 1\n";
        let read = |text: &str| {
            let file = folder.path().join("scenario.yaml");
            std::fs::write(&file, text).unwrap();
            Scenario::read(&file).map_err(|error| error.to_string())
        };
        assert_eq!(read(good).unwrap().sockets(), 6);
        for (more, name) in [
            ("rat: 1\n", "rat"),
            ("rate: -1\n", "rate"),
            ("cut: 2\n", "cut"),
            ("rates: [[9, 1], [5, 1]]\n", "rates"),
            ("rate: 2\nrates: [[0, 1]]\n", "either"),
            ("churn: 1\ncut: 0.5\n", "churn"),
            ("slow: {members: 3, bytes_per_second: 9}\n", "slow"),
            ("limits: {ack_p99: 3}\n", "ack_p99"),
            ("bytes: 100000\n", "bytes"),
        ] {
            let error = read(&format!("{good}{more}")).unwrap_err();
            assert!(error.contains("scenario.yaml") && error.contains(name), "{error}");
        }
    }
}
