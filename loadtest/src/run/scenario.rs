//! What a load test does and what it demands, as a file says it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::harness::HarnessError;

/// A load test.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
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
    /// Members that read slowly.
    pub slow_readers: Option<SlowReaders>,
    /// What it demands beside that every acked message comes once and in order.
    #[serde(default)]
    pub limits: Limits,
}

/// Members that read slowly or not at all. They do not write, and their latencies do not count.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlowReaders {
    /// Their share of each room, at most half.
    pub share: f64,
    /// Bytes that each reads in a second; 0: nothing.
    pub bytes_per_second: u64,
    /// Seconds from the beginning of the talk until they read as others do [default: until the talk is over].
    pub seconds: Option<u64>,
}

impl SlowReaders {
    fn check(self) -> Result<(), String> {
        if !(0.0..=0.5).contains(&self.share) {
            return Err("slow_readers.share: use a share from 0 (nobody) to 0.5 (half)".to_owned());
        }
        Ok(())
    }

    /// Whether a member reads slowly: they are spread evenly over places that are counted room after room.
    fn has(self, place: u64) -> bool {
        let before = |place: u64| (place as f64 * self.share) as u64;
        before(place + 1) > before(place)
    }
}

/// What a run may not exceed; what is not named has no limit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
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
        if !(0.0..=1.0).contains(&self.cut) {
            return Err("cut: use a share from 0 (nobody) to 1 (everybody)".to_owned());
        }
        if let Some(slow) = self.slow_readers {
            slow.check()?;
        }
        if self.lasts == 0 {
            return Err("lasts: use seconds, at least 1".to_owned());
        }
        if self.bytes > 4096 {
            return Err("bytes: use at most 4096".to_owned());
        }
        Ok(())
    }

    /// Bytes a second that a user reads, where it reads slowly.
    pub fn slow(&self, user: u32) -> Option<u64> {
        let slow = self.slow_readers?;
        let (room, member) = (user % self.rooms, user / self.rooms);
        let place = u64::from(room) * u64::from(self.members) + u64::from(member);
        slow.has(place).then_some(slow.bytes_per_second)
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
        for file in std::fs::read_dir(folder).unwrap() {
            Scenario::read(&file.unwrap().path()).unwrap();
            count += 1;
        }
        assert!(count >= 6, "{count}");
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
            ("limits: {ack_p99: 3}\n", "ack_p99"),
            ("bytes: 100000\n", "bytes"),
            (
                "slow_readers: {share: 0.8, bytes_per_second: 1}\n",
                "slow_readers.share",
            ),
        ] {
            let error = read(&format!("{good}{more}")).unwrap_err();
            assert!(error.contains("scenario.yaml") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn slow_readers_are_spread_over_the_rooms() {
        let text = "about: x\nrooms: 7\nmembers: 10\nconnects_per_second: 10\nlasts: 1\nslow_readers: {share: 0.15, bytes_per_second: 9}\n";
        let scenario: Scenario = serde_saphyr::from_str(text).unwrap();
        let mut rooms = [0; 7];
        for user in (0..70).filter(|user| scenario.slow(*user) == Some(9)) {
            rooms[user as usize % 7] += 1;
        }
        assert!(rooms.iter().all(|slow| (1..=2).contains(slow)), "{rooms:?}");
        assert_eq!(rooms.iter().sum::<u32>(), 10);
    }
}
