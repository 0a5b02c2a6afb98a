//! Summaries of what was said in a room before what a prompt still holds.

use std::time::Duration;

use fred::prelude::*;

use super::client::Purpose;
use super::{Redis, RedisError, ms};
use crate::model::{RoomId, Seq};

/// A room nobody asks in loses its summary when its log goes.
const SUMMARY_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was said up to a place, in few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Number of the newest message in it.
    pub seq: Seq,
    /// What was said.
    pub text: String,
}

impl Redis {
    /// The room's summary. An edit or a deletion of a message in it has removed it.
    pub async fn summary(&self, room: &RoomId) -> Result<Option<Summary>, RedisError> {
        let client = self.for_room(room, Purpose::Other)?;
        let fields: (Option<Seq>, Option<String>) =
            client.hmget(self.keys.gpt_summary(room), vec!["seq", "text"]).await?;
        Ok(match fields {
            (Some(seq), Some(text)) => Some(Summary { seq, text }),
            _ => None,
        })
    }

    /// Keeps a summary that goes on from the one up to `base` (0: from none) and was written by somebody who knew the room's
    /// events up to `known`; `false` when something in it has changed meanwhile.
    pub async fn keep_summary(
        &self,
        room: &RoomId,
        base: Seq,
        known: Seq,
        summary: &Summary,
    ) -> Result<bool, RedisError> {
        let key_names = vec![self.keys.gpt_summary(room), self.keys.meta(room)];
        let args = vec![
            base.to_string().into(),
            summary.seq.to_string().into(),
            known.to_string().into(),
            summary.text.as_str().into(),
            ms(SUMMARY_TTL).into(),
        ];
        let kept: i64 = self
            .call_for_room(room, &self.scripts.gpt_summary, key_names, args)
            .await?;
        Ok(kept == 1)
    }
}
