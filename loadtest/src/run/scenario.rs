//! What a load test does and what it demands, as a file says it.

use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attack::Flood;
use super::group::{Group, SlowReaders, away, bytes, yes};
use crate::harness::HarnessError;
use crate::questions::model::Pace;

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
    #[serde(default)]
    pub rooms: u32,
    /// Members of each room, spread over the nodes.
    #[serde(default)]
    pub members: u32,
    /// Rooms of several kinds; what they say is not said of the whole.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Sockets that connect in a second, all together.
    pub connects_per_second: f64,
    /// Messages a second in all rooms together; 0: nobody writes.
    #[serde(default)]
    pub rate: f64,
    /// The same over time, instead of `rate`: `[second of the talk, messages a second]`, with straight lines between.
    #[serde(default)]
    pub rates: Vec<(f64, f64)>,
    /// Bytes of a message's text.
    #[serde(default = "bytes")]
    pub bytes: usize,
    /// Whether messages are due at random (Poisson) instead of evenly.
    #[serde(default = "yes")]
    pub poisson: bool,
    /// Share of the messages that are questions to the model.
    #[serde(default)]
    pub questions: f64,
    /// How the model replies.
    #[serde(default)]
    pub model: Model,
    /// Members that leave in a second, all together; they come back.
    #[serde(default)]
    pub churn: f64,
    /// Seconds for which who leaves is away.
    #[serde(default = "away")]
    pub away: f64,
    /// Seconds of talk before anything counts.
    #[serde(default)]
    pub warm_up: u64,
    /// Seconds that count.
    pub lasts: u64,
    /// Share of the sockets whose connections are broken half-way, all at once; they come back at `connects_per_second`.
    #[serde(default)]
    pub cut: f64,
    /// Members that read slowly.
    pub slow_readers: Option<SlowReaders>,
    /// Attackers, as long as the others talk; then every socket has an address of its own, and the guard watches all.
    #[serde(default)]
    pub floods: Vec<Flood>,
    /// What it demands beside that every acked message comes once and in order.
    #[serde(default)]
    pub limits: Limits,
}

/// How the scripted model replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Model {
    /// Words of a reply.
    pub words: u32,
    /// The pause before each, ms.
    pub pause_ms: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            words: 20,
            pause_ms: 20,
        }
    }
}

impl Model {
    /// As the model takes it.
    pub(super) fn pace(self) -> Pace {
        Pace {
            words: self.words,
            pause: Duration::from_millis(self.pause_ms),
        }
    }
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
    /// From when a question was due to the first piece of its reply; the model's own pause is part of it.
    pub first_delta_p95_ms: Option<f64>,
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

/// Sockets of a run: beyond it the tokens alone are a gigabyte.
const SOCKETS_MAX: u64 = 1_000_000;
/// Floods of a run: each has a block of addresses.
const FLOODS_MAX: usize = 20;
/// Groups of a run: more kinds of rooms nobody tells apart.
const GROUPS_MAX: usize = 100;

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
        let alone = self.whole();
        if !self.groups.is_empty() && alone != Group::default_of_file() {
            return Err("groups: say rooms, members and how they talk of each group, not of the whole".to_owned());
        }
        let groups = self.groups();
        if groups.len() > GROUPS_MAX {
            return Err(format!("groups: use at most {GROUPS_MAX}"));
        }
        for group in &groups {
            let of = |error| match group.name.is_empty() {
                true => error,
                false => format!("group {}: {error}", group.name),
            };
            group.check().map_err(of)?;
        }
        let sockets: u64 = groups.iter().map(|group| u64::from(group.sockets())).sum();
        if sockets > SOCKETS_MAX {
            return Err(format!("rooms × members is {sockets}; use 1 to {SOCKETS_MAX} sockets"));
        }
        if !(1..=32).contains(&self.nodes) {
            return Err("nodes: use 1 to 32".to_owned());
        }
        if !self.connects_per_second.is_finite() || self.connects_per_second <= 0.0 {
            return Err("connects_per_second: use a number above 0".to_owned());
        }
        if !(0.0..=1.0).contains(&self.cut) {
            return Err("cut: use a share from 0 (nobody) to 1 (everybody)".to_owned());
        }
        if !(1..=10_000).contains(&self.model.words) || self.model.pause_ms > 10_000 {
            return Err("model: use 1 to 10000 words and a pause_ms of at most 10000".to_owned());
        }
        if self.floods.len() > FLOODS_MAX {
            return Err(format!("floods: use at most {FLOODS_MAX}"));
        }
        for flood in &self.floods {
            flood.check()?;
        }
        if self.lasts == 0 {
            return Err("lasts: use seconds, at least 1".to_owned());
        }
        Ok(())
    }

    /// The fields that a scenario without groups says of its only one.
    fn whole(&self) -> Group {
        Group {
            name: String::new(),
            rooms: self.rooms,
            members: self.members,
            rate: self.rate,
            rates: self.rates.clone(),
            bytes: self.bytes,
            poisson: self.poisson,
            questions: self.questions,
            churn: self.churn,
            away: self.away,
            slow_readers: self.slow_readers,
        }
    }

    /// The groups; one where none is named.
    pub fn groups(&self) -> Vec<Group> {
        if self.groups.is_empty() {
            return vec![self.whole()];
        }
        self.groups.clone()
    }

    /// Attackers in all.
    pub fn attackers(&self) -> u32 {
        self.floods.iter().map(|flood| flood.sockets).sum()
    }

    /// Whether anybody asks the model.
    pub fn asks(&self) -> bool {
        self.groups().iter().any(|group| group.questions > 0.0)
    }

    /// Sockets in all.
    pub fn sockets(&self) -> u32 {
        self.groups().iter().map(Group::sockets).sum()
    }

    /// Rooms in all.
    pub fn all_rooms(&self) -> u32 {
        self.groups().iter().map(|group| group.rooms).sum()
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
        let kinds = schema["$defs"].as_object().unwrap().values().chain([&schema]);
        // A list of words has none.
        let fields: Vec<_> = kinds
            .filter_map(|kind| kind["properties"].as_object())
            .flatten()
            .collect();
        assert!(fields.len() > 30, "{}", fields.len());
        for (name, field) in fields {
            assert!(field["description"].is_string(), "{name}");
        }
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
        let groups =
            "about: x\nconnects_per_second: 10\nlasts: 1\ngroups:\n  - {name: a, rooms: 2, members: 3, rate: 5}\n";
        let two = read(&format!("{groups}  - {{name: b, rooms: 1, members: 9}}\n")).unwrap();
        assert_eq!((two.sockets(), two.all_rooms()), (15, 3));
        let error = read(&format!("{groups}  - {{name: b, rooms: 0, members: 9}}\n")).unwrap_err();
        assert!(error.contains("group b: rooms"), "{error}");
        for (more, name) in [
            ("rat: 1\n", "rat"),
            ("rate: -1\n", "rate"),
            ("cut: 2\n", "cut"),
            ("limits: {ack_p99: 3}\n", "ack_p99"),
            ("bytes: 100000\n", "bytes"),
            ("rates: [[3, 1], [2, 1]]\n", "rates"),
            ("rate: 1\nrates: [[3, 1]]\n", "instead of rate"),
            ("churn: 1e-9\n", "churn"),
            ("questions: 2\n", "questions"),
            ("floods: [{kind: events, sockets: 0, per_second: 1}]\n", "floods"),
            ("floods: [{kind: rain, sockets: 1, per_second: 1}]\n", "kind"),
            ("model: {words: 0}\n", "model"),
            ("groups: [{name: x, rooms: 1, members: 1}]\n", "groups"),
            (
                "slow_readers: {share: 0.8, bytes_per_second: 1}\n",
                "slow_readers.share",
            ),
        ] {
            let error = read(&format!("{good}{more}")).unwrap_err();
            assert!(error.contains("scenario.yaml") && error.contains(name), "{error}");
        }
    }
}
