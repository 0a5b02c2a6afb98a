//! Write-behind: events from the archive streams to the message service, at least once and in order; then the rooms' logs
//! give up what is archived and old.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::value::RawValue;

use crate::config::Config;
use crate::model::{RoomId, Seq, unix_ms};
use crate::redis::{ArchiveEntry, LogKeep, Redis, RedisError};
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, UpstreamError};

/// How long a partition belongs to a worker that does not renew.
const LEASE: Duration = Duration::from_secs(15);
/// How often the streams are looked at, and how long to wait after a failure. What comes in between is saved together: a call
/// for many events costs the service, Redis and the worker little more than one for a single event.
const PERIOD: Duration = Duration::from_secs(1);
/// Events in one call.
const BATCH: usize = 500;
/// Events that are read at once: what the worker holds.
const ROUND: u64 = 2000;
/// A room's log is trimmed at most this often: it may keep more than it must.
const TRIM_PERIOD: Duration = Duration::from_secs(30);
/// Rooms whose last trim is remembered.
const TRIMS_MAX: u64 = 100_000;

/// Saves the events of every partition that no other worker holds.
pub struct Archiver {
    redis: Redis,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    worker: String,
    keep: LogKeep,
    /// When the leases that this worker holds were renewed.
    leased: HashMap<u16, Instant>,
    /// Rooms trimmed within the last period.
    trimmed: moka::sync::Cache<RoomId, ()>,
}

/// An event that waits, and where.
#[derive(Clone, Copy)]
struct Waiting<'a> {
    partition: u16,
    entry: &'a ArchiveEntry,
}

impl Archiver {
    /// An archiver under a name of its own.
    pub fn new(config: &Config, redis: Redis, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Self {
        Self {
            keep: LogKeep {
                events: config.log_keep_events,
                age: *config.log_keep_age,
            },
            leased: HashMap::new(),
            trimmed: moka::sync::Cache::builder()
                .max_capacity(TRIMS_MAX)
                .time_to_live(TRIM_PERIOD.min(*config.log_keep_age))
                .build(),
            redis,
            upstream,
            metrics,
            worker: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Runs until cancelled.
    pub async fn run(mut self) {
        loop {
            match self.round().await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "events wait: they are saved later"),
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Saves what the partitions of this worker have; tells whether one had more than was read.
    async fn round(&mut self) -> Result<bool, ArchiveError> {
        let backlog = self.redis.archive_backlog().await?;
        self.metrics.archive_backlog.set([], backlog.iter().sum::<u64>() as f64);
        let lengths = (0u16..).zip(backlog).filter(|(_, length)| *length > 0);
        let lengths: BTreeMap<u16, u64> = lengths.collect();
        self.lease(lengths.keys()).await;
        let share = (ROUND / lengths.len().max(1) as u64).max(1);
        // Of the others' only the age of the oldest is wanted.
        let limit = |partition: &u16| if self.leased.contains_key(partition) { share } else { 1 };
        let wanted: Vec<(u16, u64)> = lengths.keys().map(|partition| (*partition, limit(partition))).collect();
        let read = self.redis.read_archives(&wanted).await?;
        let (mut waiting, mut oldest, mut more) = (Vec::new(), None, false);
        for ((partition, limit), entries) in wanted.iter().zip(&read) {
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    tracing::error!(partition, %error, "events wait: they cannot be read");
                    continue;
                }
            };
            oldest = oldest
                .into_iter()
                .chain(entries.first().and_then(ArchiveEntry::stored_at))
                .min();
            if self.leased.contains_key(partition) {
                waiting.extend(entries.iter().map(|entry| Waiting {
                    partition: *partition,
                    entry,
                }));
                more |= lengths[partition] > *limit;
            }
        }
        let lag = oldest.map_or(0, |oldest| unix_ms().saturating_sub(oldest));
        self.metrics.archive_lag_seconds.set([], lag as f64 / 1000.0);
        let mut all_removed = true;
        for batch in waiting.chunks(BATCH) {
            all_removed &= self.save(batch).await?;
        }
        self.trim_logs(&waiting).await?;
        // Not at once again after a failure: what fails is asked no more often for the others' sake.
        Ok(more && all_removed)
    }

    /// Takes and renews the leases of these partitions, unless other workers have them.
    async fn lease(&mut self, partitions: impl Iterator<Item = &u16>) {
        let now = Instant::now();
        self.leased.retain(|_, renewed| now - *renewed < LEASE / 3);
        let due: Vec<u16> = partitions
            .copied()
            .filter(|partition| !self.leased.contains_key(partition))
            .collect();
        let (redis, worker) = (&self.redis, self.worker.as_str());
        let taken = due
            .iter()
            .map(|partition| redis.lease_archive(*partition, worker, LEASE));
        for (partition, taken) in due.iter().zip(join_all(taken).await) {
            match taken {
                Ok(true) => drop(self.leased.insert(*partition, now)),
                Ok(false) => {}
                // On a cluster the server of one may be away: the others go on.
                Err(error) => tracing::debug!(partition, %error, "no lease"),
            }
        }
    }

    /// Trims the logs of the rooms that these events, now archived, belong to.
    async fn trim_logs(&self, saved: &[Waiting<'_>]) -> Result<(), RedisError> {
        // In order, so the last one of a room is its newest.
        let rooms: HashMap<&RoomId, Seq> = saved.iter().map(|at| (&at.entry.room, at.entry.seq)).collect();
        for (room, archived) in rooms {
            if !self.trimmed.contains_key(room) {
                self.redis.trim_log(room, archived, self.keep).await?;
                self.trimmed.insert(room.clone(), ());
            }
        }
        Ok(())
    }

    /// Saves events and removes them from their streams; tells whether all could be removed. Events that the service refuses
    /// for good are set aside one by one, so that a single bad one does not hold up the others.
    async fn save(&self, waiting: &[Waiting<'_>]) -> Result<bool, ArchiveError> {
        let (mut pending, mut all_removed) = (vec![waiting], true);
        while let Some(batch) = pending.pop() {
            if batch.is_empty() {
                continue;
            }
            let events: Vec<&RawValue> = batch.iter().map(|at| &*at.entry.json).collect();
            match self.upstream.save_messages(&events).await {
                Ok(_) => {
                    all_removed &= self.remove(batch).await;
                    self.metrics.archived_total.inc_by(batch.len() as u64);
                }
                Err(UpstreamError::Refused { status, reason }) if let [bad] = batch => {
                    let Waiting { partition, entry } = bad;
                    tracing::error!(partition, position = %entry.position, status, reason, "event refused by the message service: set aside");
                    self.redis.set_aside(*partition, entry).await?;
                }
                Err(UpstreamError::Refused { .. }) => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    pending.push(second);
                    pending.push(first);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(all_removed)
    }

    /// Removes saved events. Where that fails they are saved again later, which is harmless.
    async fn remove(&self, saved: &[Waiting<'_>]) -> bool {
        let mut partitions: BTreeMap<u16, Vec<&ArchiveEntry>> = BTreeMap::new();
        for Waiting { partition, entry } in saved {
            partitions.entry(*partition).or_default().push(entry);
        }
        let trims = partitions.iter().map(async |(partition, entries)| {
            let removed = self.redis.trim_archive(*partition, entries).await;
            removed.inspect_err(|error| tracing::warn!(partition, %error, "saved events stay: they are saved again"))
        });
        join_all(trims).await.iter().all(Result::is_ok)
    }
}

#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}
