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

/// What a partition has, unless it cannot be read.
pub type Archived = Result<Vec<ArchiveEntry>, RedisError>;

impl ArchiveEntry {
    /// When it was stored.
    pub fn stored_at(&self) -> Option<UnixMs> {
        stored_at(&self.position)
    }
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

    /// When the oldest event of the room's partition that is still to be archived was stored; `None` when there is none.
    pub async fn oldest_unarchived(&self, room: &RoomId) -> Result<Option<UnixMs>, RedisError> {
        let key = self.keys.archive(self.keys.partition(room.as_str()));
        let first: Vec<(String, HashMap<String, String>)> = self.any()?.xrange(key, "-", "+", Some(1)).await?;
        Ok(first.first().and_then(|(position, _)| stored_at(position)))
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

    /// The oldest waiting events of each of these partitions, at most so many of each, in one round trip.
    pub async fn read_archives(&self, wanted: &[(u16, u64)]) -> Result<Vec<Archived>, RedisError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.any()?.pipeline();
        for (partition, limit) in wanted {
            let key = self.keys.archive(*partition);
            let () = pipeline.xrange(key, "-", "+", Some(*limit)).await?;
        }
        let read: Vec<Vec<(String, HashMap<String, String>)>> = pipeline.all().await?;
        Ok(read.into_iter().map(read_entries).collect())
    }

    /// The oldest waiting events of a partition.
    pub async fn read_archive(&self, partition: u16, limit: u64) -> Archived {
        let mut read = self.read_archives(&[(partition, limit)]).await?;
        read.pop().ok_or(RedisError::Unexpected("archive"))?
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
        self.trim_archive(partition, &[entry]).await
    }

    /// Removes saved events.
    pub async fn trim_archive(&self, partition: u16, saved: &[&ArchiveEntry]) -> Result<(), RedisError> {
        let positions = saved.iter().map(|entry| entry.position.as_str().into()).collect();
        let key_names = vec![self.keys.archive(partition), self.keys.archive_bytes(partition)];
        let _removed: u64 = call(&self.scripts.trim_archive, self.any()?, key_names, positions).await?;
        Ok(())
    }
}

fn read_entries(entries: Vec<(String, HashMap<String, String>)>) -> Archived {
    let read = |(position, mut fields): (String, HashMap<String, String>)| {
        let mut field = |name| fields.remove(name);
        Some(ArchiveEntry {
            room: RoomId::new(&field("r")?).ok()?,
            seq: field("s")?.parse().ok()?,
            json: RawValue::from_string(field("e")?).ok()?,
            position,
        })
    };
    let entries = entries.into_iter().map(read).collect::<Option<_>>();
    entries.ok_or(RedisError::Unexpected("archive entry"))
}

/// The time in a stream's id.
fn stored_at(id: &str) -> Option<UnixMs> {
    id.split('-').next()?.parse().ok()
}
