//! Which rooms have news: what nodes compare with what they have delivered.

use fred::prelude::*;

use super::{Redis, RedisError};
use crate::model::{RoomId, Seq, UnixMs};

impl Redis {
    /// The rooms of these partitions whose newest event is later than the time beside it, with that event's time.
    /// Partitions remember the last minute.
    pub async fn active_rooms(&self, asked: &[(u16, UnixMs)]) -> Result<Vec<(u16, RoomId, UnixMs)>, RedisError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.any()?.pipeline();
        for (partition, since) in asked {
            let (after, end) = (format!("({since}"), "+inf");
            let () = pipeline
                .zrangebyscore(self.keys.active(*partition), after, end, true, None)
                .await?;
        }
        let answers: Vec<Vec<(String, f64)>> = pipeline.all().await?;
        let rooms = asked.iter().zip(answers).flat_map(|((partition, _), rooms)| {
            rooms.into_iter().filter_map(|(room, ts)| {
                // Times are far below 2^53.
                Some((*partition, RoomId::new(&room).ok()?, ts as UnixMs))
            })
        });
        Ok(rooms.collect())
    }

    /// The newest number of each room; 0 where there is none.
    pub async fn top_seqs(&self, rooms: &[RoomId]) -> Result<Vec<Seq>, RedisError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let pipeline = self.any()?.pipeline();
        for room in rooms {
            let () = pipeline.hget(self.keys.meta(room), "seq").await?;
        }
        let tops: Vec<Option<Seq>> = pipeline.all().await?;
        Ok(tops.into_iter().map(Option::unwrap_or_default).collect())
    }
}
