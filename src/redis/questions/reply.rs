//! Replies that are being written.

use std::collections::HashMap;

use fred::prelude::*;

use super::{Part, Question};
use crate::model::RoomId;
use crate::redis::client::Purpose;
use crate::redis::{Redis, RedisError};

impl Redis {
    /// Adds to a reply that is being written and tells the room; `false` when it has ended, or a later claim writes it.
    pub async fn write_part(&self, question: &Question, part: Part<'_>) -> Result<bool, RedisError> {
        let (name, json) = part.event;
        let args = vec![
            self.publish_verb().into(),
            question.reply().into(),
            part.generation.to_string().into(),
            part.index
                .map_or_else(|| "-1".to_owned(), |index| index.to_string())
                .into(),
            part.text.into(),
            format!("~ {name} {json}").into(),
        ];
        let key_names = self.part_keys(question);
        let told: i64 = self
            .call_for_room(&question.room, &self.scripts.gpt_part, key_names, args)
            .await?;
        Ok(told == 1)
    }

    /// The keys that say what is written of a question's reply.
    pub(super) fn part_keys(&self, question: &Question) -> Vec<String> {
        vec![
            self.keys.gpt_parts(&question.room),
            self.keys.live(&question.room),
            self.keys.gpt_end(&question.room, &question.id),
        ]
    }

    /// The replies of a room that are being written: id, generation, index of the newest piece, text so far.
    pub async fn parts(&self, room: &RoomId) -> Result<Vec<(String, u64, Option<u64>, String)>, RedisError> {
        let client = self.for_room(room, Purpose::Other)?;
        let parts: HashMap<String, String> = client.hgetall(self.keys.gpt_parts(room)).await?;
        let read = |(id, part): (String, String)| {
            let mut fields = part.splitn(3, '|');
            let (generation, index, text) = (fields.next()?, fields.next()?, fields.next()?);
            Some((id, generation.parse().ok()?, index.parse().ok(), text.to_owned()))
        };
        Ok(parts.into_iter().filter_map(read).collect())
    }
}
