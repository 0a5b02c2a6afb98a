//! The archive streams: events waiting to be saved by a worker.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::SetOptions;
use fred::types::streams::XID;
use serde_json::value::RawValue;

use super::script::call;
use super::{Redis, RedisError};
use crate::model::{RoomId, Seq, UnixMs};

/// Refused events kept per partition, for a person to look at.
const DEAD_MAX: i64 = 10_000;

/// An event waiting to be saved.
#[derive(Debug)]
pub struct ArchiveEntry {
    /// Its place in the archive stream.
    pub position: String,
    /// Its room.
    pub room: RoomId,
    /// Its number there.
    pub seq: Seq,
    /// The event.
    pub json: Box<RawValue>,
}

impl Redis {
    /// How many events wait in each partition.
    pub async fn archive_backlog(&self) -> Result<Vec<u64>, RedisError> {
        let pipeline = self.any()?.pipeline();
        for partition in 0..self.keys.partitions() {
            let () = pipeline.xlen(self.keys.archive(partition)).await?;
        }
        Ok(pipeline.all().await?)
    }

    /// When the oldest event waiting in any of these partitions was stored; `None` when none waits.
    pub async fn oldest_waiting(&self, partitions: &[u16]) -> Result<Option<UnixMs>, RedisError> {
        if partitions.is_empty() {
            return Ok(None);
        }
        let pipeline = self.any()?.pipeline();
        for partition in partitions {
            let () = pipeline
                .xrange(self.keys.archive(*partition), "-", "+", Some(1))
                .await?;
        }
        let first: Vec<Vec<(String, HashMap<String, String>)>> = pipeline.all().await?;
        Ok(first.iter().filter_map(|entries| stored_at(&entries.first()?.0)).min())
    }

    /// When the oldest event of the room's partition that is still to be archived was stored; `None` when there is none.
    pub async fn oldest_unarchived(&self, room: &RoomId) -> Result<Option<UnixMs>, RedisError> {
        self.oldest_waiting(&[self.keys.partition(room.as_str())]).await
    }

    /// Takes or renews the lease of a partition; `false` when another worker has it.
    pub async fn lease_archive(&self, partition: u16, worker: &str, ttl: Duration) -> Result<bool, RedisError> {
        let client = self.any()?;
        let key = self.keys.archive_lease(partition);
        let expiry = || Some(Expiration::PX(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)));
        let taken: Option<String> = client.set(&key, worker, expiry(), Some(SetOptions::NX), false).await?;
        if taken.is_some() {
            return Ok(true);
        }
        let holder: Option<String> = client.get(&key).await?;
        if holder.as_deref() != Some(worker) {
            return Ok(false);
        }
        // Losing the lease between the two calls only makes two workers save the same events, which is harmless.
        let renewed: Option<String> = client.set(&key, worker, expiry(), Some(SetOptions::XX), false).await?;
        Ok(renewed.is_some())
    }

    /// The oldest waiting events of a partition.
    pub async fn read_archive(&self, partition: u16, limit: u64) -> Result<Vec<ArchiveEntry>, RedisError> {
        let entries: Vec<(String, HashMap<String, String>)> = self
            .any()?
            .xrange(self.keys.archive(partition), "-", "+", Some(limit))
            .await?;
        entries
            .into_iter()
            .map(|(position, mut fields)| {
                let mut field = |name| fields.remove(name);
                let entry = || {
                    Some(ArchiveEntry {
                        room: RoomId::new(&field("r")?).ok()?,
                        seq: field("s")?.parse().ok()?,
                        json: RawValue::from_string(field("e")?).ok()?,
                        position,
                    })
                };
                entry().ok_or(RedisError::Unexpected("archive entry"))
            })
            .collect()
    }

    /// Moves an event that the message service refuses for good out of the way.
    pub async fn set_aside(&self, partition: u16, entry: &ArchiveEntry) -> Result<(), RedisError> {
        let client = self.any()?;
        let key = self.keys.archive_dead(partition);
        let _id: String = client
            .xadd(
                key,
                false,
                ("MAXLEN", "~", DEAD_MAX),
                XID::Auto,
                ("e", entry.json.get()),
            )
            .await?;
        self.trim_archive(partition, std::slice::from_ref(entry)).await
    }

    /// Removes saved events.
    pub async fn trim_archive(&self, partition: u16, saved: &[ArchiveEntry]) -> Result<(), RedisError> {
        let positions = saved.iter().map(|entry| entry.position.as_str().into()).collect();
        let key_names = vec![self.keys.archive(partition), self.keys.archive_bytes(partition)];
        let _removed: u64 = call(&self.scripts.trim_archive, self.any()?, key_names, positions).await?;
        Ok(())
    }
}

/// The time in a stream's id.
fn stored_at(id: &str) -> Option<UnixMs> {
    id.split('-').next()?.parse().ok()
}
