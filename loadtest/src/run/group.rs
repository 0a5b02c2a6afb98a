//! Rooms that are alike: how large they are, how their members talk, come and go, and who of them reads slowly.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::Curve;

/// Rooms that are alike.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What it is called.
    #[serde(default)]
    pub name: String,
    /// Rooms.
    pub rooms: u32,
    /// Members of each room, spread over the nodes.
    pub members: u32,
    /// Messages a second in all its rooms together; 0: nobody writes.
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
    /// Members that leave in a second, in all its rooms together; they come back.
    #[serde(default)]
    pub churn: f64,
    /// Seconds for which who leaves is away.
    #[serde(default = "away")]
    pub away: f64,
    /// Members that read slowly.
    pub slow_readers: Option<SlowReaders>,
}

/// Members that read slowly or not at all. They do not write, and their latencies do not count.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SlowReaders {
    /// Their share of each room, at most half.
    pub share: f64,
    /// Bytes that each reads in a second; 0: nothing.
    pub bytes_per_second: u64,
    /// Seconds from the beginning of the talk until they read as others do [default: until the talk is over].
    pub seconds: Option<u64>,
}

pub(super) fn bytes() -> usize {
    80
}

pub(super) fn yes() -> bool {
    true
}

pub(super) fn away() -> f64 {
    5.0
}

/// Longer absences are no test of who comes back: history has an end.
const AWAY_MAX: f64 = 600.0;
/// One leaves in a quarter of an hour, or nobody does.
const CHURN_MIN: f64 = 0.001;

impl Group {
    /// What is left when a file says nothing.
    pub(super) fn default_of_file() -> Self {
        Self {
            bytes: bytes(),
            poisson: yes(),
            away: away(),
            ..Self::default()
        }
    }

    /// Sockets in all.
    pub fn sockets(&self) -> u32 {
        self.rooms.saturating_mul(self.members)
    }

    /// Its messages a second over time.
    pub fn curve(&self) -> Result<Curve, String> {
        if self.rates.is_empty() {
            return Curve::new(vec![(0.0, self.rate)])
                .map_err(|_| "rate: use messages a second, or 0 where nobody writes".to_owned());
        }
        if self.rate != 0.0 {
            return Err("rates: it is instead of rate".to_owned());
        }
        Curve::new(self.rates.clone()).map_err(|error| format!("rates: {error}"))
    }

    /// Bytes a second that a member reads, where it reads slowly: they are spread evenly over places counted room after room.
    pub fn slow(&self, room: u32, member: u32) -> Option<u64> {
        let slow = self.slow_readers?;
        let place = u64::from(room) * u64::from(self.members) + u64::from(member);
        let before = |place: u64| (place as f64 * slow.share) as u64;
        (before(place + 1) > before(place)).then_some(slow.bytes_per_second)
    }

    /// What is wrong with it, by the field.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.rooms == 0 || self.members == 0 {
            return Err("rooms, members: use at least 1".to_owned());
        }
        self.curve()?;
        if self.bytes > 4096 {
            return Err("bytes: use at most 4096".to_owned());
        }
        if !(0.0..=1.0).contains(&self.questions) {
            return Err("questions: use a share from 0 (none) to 1 (all)".to_owned());
        }
        if self.churn != 0.0 && !(CHURN_MIN..=10_000.0).contains(&self.churn) {
            return Err(format!("churn: use 0 or {CHURN_MIN} to 10000 a second"));
        }
        if !(0.0..=AWAY_MAX).contains(&self.away) {
            return Err(format!("away: use 0 to {AWAY_MAX} s"));
        }
        match self.slow_readers {
            Some(slow) if !(0.0..=0.5).contains(&slow.share) => {
                Err("slow_readers.share: use a share from 0 (nobody) to 0.5 (half)".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Where a socket belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its user, of all.
    pub user: u32,
    /// Its group.
    pub group: usize,
    /// Its room, of all.
    pub room: u32,
    /// Its room, of its group.
    pub room_of_group: u32,
    /// Which member of its room.
    pub member: u32,
}

/// The places of all users, group after group; in a group user *i* is in room *i* mod rooms.
pub fn places(groups: &[Group]) -> impl Iterator<Item = Place> {
    let ends = groups.iter().scan((0, 0), |(users, rooms), group| {
        let begin = (*users, *rooms);
        *users += group.sockets();
        *rooms += group.rooms;
        Some((begin, group))
    });
    ends.enumerate().flat_map(|(index, ((users, rooms), group))| {
        (0..group.sockets()).map(move |user| Place {
            user: users + user,
            group: index,
            room: rooms + user % group.rooms,
            room_of_group: user % group.rooms,
            member: user / group.rooms,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_follow_each_other() {
        let group = |rooms, members| Group {
            rooms,
            members,
            ..Group::default()
        };
        let places: Vec<Place> = places(&[group(2, 2), group(3, 1)]).collect();
        let brief: Vec<_> = places
            .iter()
            .map(|place| (place.user, place.group, place.room, place.member))
            .collect();
        let expected = [
            (0, 0, 0, 0),
            (1, 0, 1, 0),
            (2, 0, 0, 1),
            (3, 0, 1, 1),
            (4, 1, 2, 0),
            (5, 1, 3, 0),
            (6, 1, 4, 0),
        ];
        assert_eq!(brief, expected);
        assert_eq!((places[6].room_of_group, places[3].room_of_group), (2, 1));
    }

    #[test]
    fn slow_readers_are_spread_over_the_rooms() {
        let group: Group =
            serde_saphyr::from_str("rooms: 7\nmembers: 10\nslow_readers: {share: 0.15, bytes_per_second: 9}\n")
                .unwrap();
        let mut rooms = [0; 7];
        for place in places(std::slice::from_ref(&group)) {
            let slow = group.slow(place.room_of_group, place.member);
            rooms[place.room as usize] += u32::from(slow == Some(9));
        }
        assert!(rooms.iter().all(|slow| (1..=2).contains(slow)), "{rooms:?}");
        assert_eq!(rooms.iter().sum::<u32>(), 10);
    }
}
