//! The proof that the bus can hear: a message to oneself through every primary, once a second.
//!
//! A subscription can die without a word: a connection that a firewall forgot, a slot that moved, a failover that the
//! client has not seen. Whoever does not hear its own canary makes the connection anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fred::prelude::*;
use tokio::sync::mpsc;

use super::{Request, Silence, Tasks};
use crate::redis::client::Purpose;
use crate::redis::keys::Keys;
use crate::redis::{Redis, RedisError};

/// Between two canaries.
const PERIOD: Duration = Duration::from_secs(1);
/// A bus that has heard nothing for this long is connected anew: three canaries are missing.
const RECONNECT_AFTER: Duration = Duration::from_secs(3);
/// How often the subscriptions of a cluster are made anew: a slot that moved takes them along without a word.
const RENEW_PERIOD: Duration = Duration::from_secs(5);
/// How long a reconnect may take to begin.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The canaries of one node.
pub(super) struct Canaries {
    keys: Keys,
    /// Keeps the channels private to this node.
    id: String,
    primaries: Mutex<Vec<Primary>>,
}

/// One primary, the partitions it holds, and when its canary was last heard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Primary {
    /// Ascending, never empty; the canary of a primary sits in its first partition.
    partitions: Vec<u16>,
    heard: Instant,
}

impl Canaries {
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            id: format!("{:016x}", rand::random::<u64>()),
            primaries: Mutex::new(vec![Primary {
                partitions: (0..keys.partitions()).collect(),
                heard: Instant::now(),
            }]),
        }
    }

    fn primaries(&self) -> MutexGuard<'_, Vec<Primary>> {
        self.primaries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions through which canaries are sent, one of each primary.
    fn nests(&self) -> Vec<u16> {
        self.primaries().iter().map(|primary| primary.partitions[0]).collect()
    }

    /// The channels to listen to.
    pub fn channels(&self) -> Vec<String> {
        let nests = self.nests().into_iter();
        nests.map(|partition| self.keys.canary(partition, &self.id)).collect()
    }

    /// Counts silence from now on.
    pub fn restart(&self) {
        for primary in self.primaries().iter_mut() {
            primary.heard = Instant::now();
        }
    }

    /// Notes that a message has come on this channel.
    pub fn hear(&self, channel: &str) {
        for primary in self.primaries().iter_mut() {
            if self.keys.canary(primary.partitions[0], &self.id) == channel {
                primary.heard = Instant::now();
            }
        }
    }

    async fn send(&self, redis: &Redis, partition: u16) -> Result<(), RedisError> {
        let client = redis.for_partition(partition, Purpose::Other)?;
        let channel = self.keys.canary(partition, &self.id);
        let () = if redis.is_clustered() {
            client.spublish(channel, "").await?
        } else {
            client.publish(channel, "").await?
        };
        Ok(())
    }

    pub fn silence(&self) -> Silence {
        let primaries = self.primaries();
        let silences = || primaries.iter().map(|primary| primary.heard.elapsed());
        Silence {
            of_all: silences().min().unwrap_or_default(),
            of_any: silences().max().unwrap_or_default(),
        }
    }

    /// The place among the primaries of the one that holds a partition.
    pub fn primary_of(&self, partition: u16) -> Option<usize> {
        self.primaries()
            .iter()
            .position(|primary| primary.partitions.binary_search(&partition).is_ok())
    }

    pub fn silence_of(&self, partition: u16) -> Duration {
        self.primaries()
            .iter()
            .find(|primary| primary.partitions.binary_search(&partition).is_ok())
            .map_or(Duration::ZERO, |primary| primary.heard.elapsed())
    }

    /// Takes over who holds what now; `true` when a canary has moved. A partition that changes hands brings along when its
    /// old primary was last heard: a new one that stays silent must not look fresh.
    fn regroup(&self, groups: Vec<Vec<u16>>) -> bool {
        let mut primaries = self.primaries();
        if primaries.iter().map(|primary| &primary.partitions).eq(groups.iter()) {
            return false;
        }
        *primaries = groups
            .into_iter()
            .map(|partitions| Primary {
                heard: primaries
                    .iter()
                    .filter(|old| old.partitions.iter().any(|held| partitions.binary_search(held).is_ok()))
                    .map(|old| old.heard)
                    .min()
                    .unwrap_or_else(Instant::now),
                partitions,
            })
            .collect();
        true
    }
}

/// Sends the canaries, and makes the connection anew when they do not come back.
pub(super) async fn sing(tasks: Arc<Tasks>, redis: Redis, requests: mpsc::WeakUnboundedSender<Request>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut reconnected, mut renewed) = (Instant::now(), Instant::now());
    loop {
        ticks.tick().await;
        let Some(requests) = requests.upgrade() else {
            return;
        };
        let moved = redis
            .partitions_by_primary()
            .is_some_and(|groups| tasks.canaries.regroup(groups));
        if moved || (tasks.clustered && renewed.elapsed() >= RENEW_PERIOD) {
            renewed = Instant::now();
            let _closed = requests.send(Request::Renew);
        }
        // Side by side: a primary that hangs must not hold up the canaries of the others.
        let nests = tasks.canaries.nests();
        let sent = nests
            .into_iter()
            .map(|partition| tasks.canaries.send(&redis, partition));
        for error in futures::future::join_all(sent)
            .await
            .into_iter()
            .filter_map(Result::err)
        {
            tracing::debug!(%error, "canary not sent");
        }
        let silence = tasks.canaries.silence().of_any;
        if silence >= RECONNECT_AFTER && reconnected.elapsed() >= RECONNECT_AFTER && tasks.client.is_connected() {
            reconnected = Instant::now();
            tracing::warn!(silent_for = ?silence, "the bus hears nothing: connecting it anew");
            let reconnect = tasks.client.force_reconnection();
            if tokio::time::timeout(RECONNECT_TIMEOUT, reconnect).await.is_err() {
                tracing::warn!("the bus is not connected anew yet");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_heard_on_its_own_channel_only() {
        let canaries = Canaries::new(Keys::new(4));
        canaries.regroup(vec![vec![0, 2], vec![1, 3]]);
        let start = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        for primary in canaries.primaries().iter_mut() {
            primary.heard = start;
        }
        let channels = canaries.channels();
        assert_eq!(channels.len(), 2);
        canaries.hear(&channels[1]);
        canaries.hear("rc:{p0}:canary:of-somebody-else");
        assert_eq!((canaries.primary_of(2), canaries.primary_of(3)), (Some(0), Some(1)));
        assert!(canaries.silence_of(3) < Duration::from_secs(1));
        assert!(canaries.silence_of(2) >= Duration::from_secs(7));
        assert!(canaries.silence().of_any >= Duration::from_secs(7));
        assert!(canaries.silence().of_all < Duration::from_secs(1));
    }

    #[test]
    fn a_partition_that_changes_hands_does_not_look_fresh() {
        let canaries = Canaries::new(Keys::new(4));
        assert!(!canaries.regroup(vec![vec![0, 1, 2, 3]]));
        let start = Instant::now().checked_sub(Duration::from_secs(7)).unwrap();
        canaries.primaries()[0].heard = start;
        assert!(canaries.regroup(vec![vec![0, 1], vec![2, 3]]));
        assert!(canaries.silence().of_all >= Duration::from_secs(7));
    }
}
