//! The archives of the partitions against plain lists: what waits, how much that is, since when, and who saves it.

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::redis::PostLimits;

use super::model::Clock;
use super::op::{ROOMS, WORKERS, Words};
use super::run::Run;

/// What an entry counts for beside its JSON.
const ENTRY_BYTES: usize = 100;

/// An event that waits.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub json: String,
    /// When it was stored.
    pub stored: Clock,
}

/// The archive of one partition.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    pub waiting: Vec<Waiting>,
    /// The worker that has the lease.
    holder: Option<usize>,
}

/// What waiting events count for.
pub fn archive_size(waiting: &[Waiting]) -> usize {
    waiting.iter().map(|event| event.json.len() + ENTRY_BYTES).sum()
}

fn texts(waiting: &[Waiting]) -> Vec<&str> {
    waiting.iter().map(|event| event.json.as_str()).collect()
}

fn number(partition: usize) -> u16 {
    u16::try_from(partition).unwrap()
}

impl Run<'_> {
    /// Events are saved, or the oldest is refused; another worker has read `others` before and saves them after.
    pub async fn archived(
        &mut self,
        partition: usize,
        count: u64,
        others: u64,
        refused: bool,
    ) -> Result<(), TestCaseError> {
        let redis = &self.server.redis;
        let entries = redis.read_archive(number(partition), count).await.unwrap();
        let theirs = redis.read_archive(number(partition), others.max(1)).await.unwrap();
        let waiting = &mut self.state.archives[partition].waiting;
        let found: Vec<_> = entries.iter().map(|entry| entry.json.get()).collect();
        let upto = |count: u64| usize::try_from(count).unwrap().min(waiting.len());
        let (count, others) = (upto(count), upto(others));
        prop_assert_eq!(found, texts(&waiting[..count]));
        let mut removed = count;
        match entries.first() {
            Some(first) if refused => {
                redis.set_aside(number(partition), first).await.unwrap();
                removed = 1;
            }
            _ => {
                let all: Vec<_> = entries.iter().collect();
                redis.trim_archive(number(partition), &all).await.unwrap();
            }
        }
        let theirs: Vec<_> = theirs[..others].iter().collect();
        redis.trim_archive(number(partition), &theirs).await.unwrap();
        waiting.drain(..removed.max(others));
        self.archive_matches().await
    }

    /// What waits, how much, and since when.
    pub async fn archive_matches(&mut self) -> Result<(), TestCaseError> {
        let redis = &self.server.redis;
        let archives = &self.state.archives;
        let lengths: Vec<u64> = archives.iter().map(|archive| archive.waiting.len() as u64).collect();
        prop_assert_eq!(redis.archive_backlog().await.unwrap(), lengths);
        for (partition, Archive { waiting, .. }) in archives.iter().enumerate() {
            let entries = redis
                .read_archive(number(partition), u64::from(u32::MAX))
                .await
                .unwrap();
            let found: Vec<_> = entries.iter().map(|entry| entry.json.get()).collect();
            prop_assert_eq!(found, texts(waiting), "archive {}", partition);
            let size = redis.keys.archive_bytes(number(partition));
            let size = self.server.wire.call(&["GET", &size]).await.text();
            prop_assert_eq!(
                size.parse().unwrap_or(0),
                archive_size(waiting),
                "size of archive {}",
                partition
            );
        }
        for room in 0..ROOMS.len() {
            let oldest = redis.oldest_unarchived(&self.server.room(room)).await.unwrap();
            is_oldest(oldest, &archives[self.server.partition(room)..][..1])?;
        }
        let wanted: Vec<(u16, u64)> = (0..archives.len()).map(|partition| (number(partition), 2)).collect();
        for (read, archive) in redis.read_archives(&wanted).await.unwrap().iter().zip(archives) {
            let found: Vec<_> = read.as_ref().unwrap().iter().map(|entry| entry.json.get()).collect();
            prop_assert_eq!(found, texts(&archive.waiting[..archive.waiting.len().min(2)]));
        }
        Ok(())
    }

    /// The archive is emptied behind the scripts' back: its size must not hold up the next message for ever.
    pub async fn empty_archive(&mut self, room: usize) -> Result<(), TestCaseError> {
        let partition = self.server.partition(room);
        let key = self.server.redis.keys.archive(number(partition));
        self.server.wire.call(&["DEL", &key]).await;
        self.state.archives[partition].waiting.clear();
        let limits = PostLimits {
            log_max_len: 1000,
            archive_max_bytes: 1,
        };
        let draft = self.draft(room, &Words::MESSAGE);
        self.post(room, &[draft], limits).await?;
        self.archive_matches().await
    }

    /// A worker takes or renews the lease, unless another has it.
    pub async fn lease(&mut self, partition: usize, worker: usize, seconds: u64) -> Result<(), TestCaseError> {
        let (redis, ttl) = (&self.server.redis, Duration::from_secs(seconds));
        let holder = *self.state.archives[partition].holder.get_or_insert(worker);
        let taken = redis
            .lease_archive(number(partition), WORKERS[worker], ttl)
            .await
            .unwrap();
        prop_assert_eq!(taken, holder == worker, "{} has it", WORKERS[holder]);
        let key = redis.keys.archive_lease(number(partition));
        let wire = &mut self.server.wire;
        prop_assert_eq!(wire.call(&["GET", &key]).await.text(), WORKERS[holder]);
        let left: u64 = wire.call(&["PTTL", &key]).await.text().parse().unwrap();
        let whole = seconds * 1000;
        prop_assert!(
            !taken || (left <= whole && left + 60_000 > whole),
            "{} ms are left",
            left
        );
        Ok(())
    }

    /// The holder did not renew.
    pub async fn end_lease(&mut self, partition: usize) {
        let key = self.server.redis.keys.archive_lease(number(partition));
        self.server.wire.call(&["DEL", &key]).await;
        self.state.archives[partition].holder = None;
    }
}

/// Whether the oldest event of these archives was stored at that time.
fn is_oldest(found: Option<u64>, archives: &[Archive]) -> Result<(), TestCaseError> {
    let first = archives.iter().filter_map(|archive| archive.waiting.first());
    let oldest = first
        .map(|event| event.stored)
        .reduce(|(from, to), (other_from, other_to)| (from.min(other_from), to.min(other_to)));
    prop_assert!(
        match (found, oldest) {
            (Some(found), Some((from, to))) => (from..=to).contains(&found),
            (found, oldest) => found.is_none() && oldest.is_none(),
        },
        "the oldest is of {:?}, not {:?}",
        found,
        oldest
    );
    Ok(())
}
