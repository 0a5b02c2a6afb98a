//! Write-behind: events from the archive streams to the message service, at least once and in order; then the rooms' logs
//! give up what is archived and old.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::config::Config;
use crate::model::{RoomId, Seq, unix_ms};
use crate::redis::{ArchiveEntry, LogKeep, Redis, RedisError};
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, UpstreamError};

/// How long a partition belongs to a worker that does not renew.
const LEASE: Duration = Duration::from_secs(15);
/// How often empty streams are looked at while there is talk: there is one for each partition.
const POLL: Duration = Duration::from_millis(200);
/// The same, at night: the most that an event waits. Twice as long each time that none had anything.
const POLL_MAX: Duration = Duration::from_secs(2);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Events in one call.
const BATCH: u64 = 500;
/// Partitions that may fail in a row of one round before the rest waits for the next.
const FAILURES_MAX: usize = 8;
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
    /// Rooms trimmed within the last period.
    trimmed: moka::sync::Cache<RoomId, ()>,
}

impl Archiver {
    /// An archiver under a name of its own.
    pub fn new(config: &Config, redis: Redis, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Self {
        Self {
            keep: LogKeep {
                events: config.log_keep_events,
                age: *config.log_keep_age,
            },
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
    pub async fn run(&self) {
        let mut poll = POLL;
        loop {
            let wait = match self.round().await {
                // More may have come meanwhile.
                Ok(saved) if saved > 0 => {
                    poll = POLL;
                    Duration::ZERO
                }
                Ok(_) => {
                    let next = (poll * 2).min(POLL_MAX);
                    std::mem::replace(&mut poll, next)
                }
                Err(error) => {
                    tracing::warn!(%error, "events wait: they are saved later");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One batch of each partition with events; returns how many were saved, or 0 when one failed.
    async fn round(&self) -> Result<usize, ArchiveError> {
        let backlog = self.redis.archive_backlog().await?;
        self.metrics.archive_backlog.set([], backlog.iter().sum::<u64>() as f64);
        let waiting: Vec<u16> = (0u16..)
            .zip(&backlog)
            .filter(|(_, n)| **n > 0)
            .map(|(p, _)| p)
            .collect();
        let oldest = self.redis.oldest_waiting(&waiting).await?;
        let lag = oldest.map_or(0, |oldest| unix_ms().saturating_sub(oldest));
        self.metrics.archive_lag_seconds.set([], lag as f64 / 1000.0);
        let (mut saved, mut failures) = (0, 0);
        for partition in waiting {
            match self.save_batch(partition).await {
                Ok(count) => saved += count,
                // One partition that cannot go on, for a bad event or a server that is away, holds up no other; when
                // several fail it is the service that is away, and asking it for each would only take time.
                Err(error) => {
                    failures += 1;
                    if failures >= FAILURES_MAX {
                        return Err(error);
                    }
                    tracing::warn!(partition, %error, "events wait: they are saved later");
                }
            }
        }
        // Not at once again after a failure: what fails is asked no more often for the others' sake.
        Ok(if failures == 0 { saved } else { 0 })
    }

    /// The oldest events of a partition, unless another worker has it; returns how many were saved.
    async fn save_batch(&self, partition: u16) -> Result<usize, ArchiveError> {
        if !self.redis.lease_archive(partition, &self.worker, LEASE).await? {
            return Ok(0);
        }
        let entries = self.redis.read_archive(partition, BATCH).await?;
        self.save(partition, &entries).await?;
        self.trim_logs(&entries).await?;
        Ok(entries.len())
    }

    /// Trims the logs of the rooms that these events, now archived, belong to.
    async fn trim_logs(&self, entries: &[ArchiveEntry]) -> Result<(), RedisError> {
        // In order, so the last one of a room is its newest.
        let rooms: HashMap<&RoomId, Seq> = entries.iter().map(|entry| (&entry.room, entry.seq)).collect();
        for (room, archived) in rooms {
            if !self.trimmed.contains_key(room) {
                self.redis.trim_log(room, archived, self.keep).await?;
                self.trimmed.insert(room.clone(), ());
            }
        }
        Ok(())
    }

    /// Saves entries and removes them from the stream. Entries the service refuses for good are set aside one by one, so
    /// that a single bad one does not hold up the others.
    async fn save(&self, partition: u16, entries: &[ArchiveEntry]) -> Result<(), ArchiveError> {
        let mut pending = vec![entries];
        while let Some(batch) = pending.pop() {
            if batch.is_empty() {
                continue;
            }
            let events: Vec<&RawValue> = batch.iter().map(|entry| &*entry.json).collect();
            match self.upstream.save_messages(&events).await {
                Ok(_) => {
                    self.redis.trim_archive(partition, batch).await?;
                    self.metrics.archived_total.inc_by(batch.len() as u64);
                }
                Err(UpstreamError::Refused { status, reason }) if batch.len() == 1 => {
                    tracing::error!(partition, position = %batch[0].position, status, reason, "event refused by the message service: set aside");
                    self.redis.set_aside(partition, &batch[0]).await?;
                }
                Err(UpstreamError::Refused { .. }) => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    pending.push(second);
                    pending.push(first);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum ArchiveError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}
