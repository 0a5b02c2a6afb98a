//! The members of a group that one process has: they talk, come and go, and wake up.

use std::ops::Range;
use std::time::Duration;

use tokio::time::sleep;

use super::group::Group;
use crate::fleet::{Churn, Curve, Fleet, Talk};

/// The members of a group that one process has.
pub(super) struct Crowd<'a> {
    /// Their group, of which they are a share.
    pub(super) group: &'a Group,
    /// All members of the process.
    pub(super) fleet: &'a Fleet,
    /// Which of them these are.
    pub(super) members: Range<usize>,
    /// Seed of what is random.
    pub(super) seed: u64,
}

impl Crowd<'_> {
    fn share(&self) -> f64 {
        self.members.len() as f64 / f64::from(self.group.sockets())
    }

    fn talk(&self, rate: Curve, lasts: Duration, seed: u64) -> Talk {
        Talk {
            members: self.members.clone(),
            rate: rate.scaled(self.share()),
            lasts,
            bytes: self.group.bytes,
            questions: self.group.questions,
            poisson: self.group.poisson,
            seed: self.seed + seed,
        }
    }

    /// Talks through the warm-up at the first rate, then as the group does; ends when those who left are back and all are awake.
    pub(super) async fn live(&self, warm_up: Duration, lasts: Duration) {
        // The scenario was checked.
        let Ok(curve) = self.group.curve() else { return };
        let churn = Churn {
            members: self.members.clone(),
            rate: self.group.churn * self.share(),
            away: Duration::from_secs_f64(self.group.away),
            lasts,
            seed: self.seed + 200,
        };
        let awake = async {
            let slow = self.group.slow_readers.and_then(|slow| slow.seconds);
            let talk = warm_up + lasts;
            sleep(slow.map_or(talk, Duration::from_secs).min(talk)).await;
            self.fleet.wake(self.members.clone());
        };
        let awhile = async {
            let first = Curve::flat(curve.at(0.0));
            tokio::join!(self.fleet.talk(self.talk(first, warm_up, 100)), sleep(warm_up));
            let talk = self.talk(curve, lasts, 1);
            tokio::join!(self.fleet.talk(talk), self.fleet.churn(churn), sleep(lasts));
        };
        tokio::join!(awake, awhile);
    }

    /// Breaks the connections of a share of them.
    pub(super) async fn cut(&self, share: f64) {
        let count = (self.members.len() as f64 * share) as usize;
        self.fleet.cut(self.members.clone(), count).await;
    }
}
