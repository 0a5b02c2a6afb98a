//! Write-behind: events from the archive streams to the message service, at least once and in order.

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;

use crate::redis::{ArchiveEntry, Redis, RedisError};
use crate::telemetry::Metrics;
use crate::upstream::{Upstream, UpstreamError};

/// How long a partition belongs to a worker that does not renew.
const LEASE: Duration = Duration::from_secs(15);
/// How often empty streams are looked at: the most that an event waits.
const POLL: Duration = Duration::from_millis(200);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Events in one call.
const BATCH: u64 = 500;

/// Saves the events of every partition that no other worker holds.
pub struct Archiver {
    redis: Redis,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
    worker: String,
}

impl Archiver {
    /// An archiver under a name of its own.
    pub fn new(redis: Redis, upstream: Arc<Upstream>, metrics: Arc<Metrics>) -> Self {
        Self {
            redis,
            upstream,
            metrics,
            worker: format!("{:016x}", rand::random::<u64>()),
        }
    }

    /// Runs until cancelled.
    pub async fn run(&self) {
        loop {
            let wait = match self.round().await {
                // More may have come meanwhile.
                Ok(saved) if saved > 0 => Duration::ZERO,
                Ok(_) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "events wait: they are saved later");
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// One batch of each partition with events; returns how many were saved.
    async fn round(&self) -> Result<usize, ArchiveError> {
        let backlog = self.redis.archive_backlog().await?;
        self.metrics
            .archive_backlog
            .set(i64::try_from(backlog.iter().sum::<u64>()).unwrap_or(i64::MAX));
        let mut saved = 0;
        for (partition, waiting) in (0u16..).zip(backlog) {
            if waiting > 0 && self.redis.lease_archive(partition, &self.worker, LEASE).await? {
                let entries = self.redis.read_archive(partition, BATCH).await?;
                self.save(partition, &entries).await?;
                saved += entries.len();
            }
        }
        Ok(saved)
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
