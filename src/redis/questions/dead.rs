//! Questions that were given up, and their second chance.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use serde::Serialize;

use super::{Question, RedisError};
use crate::model::{RoomId, UnixMs, UserId};
use crate::redis::keys::GPT_DEAD;
use crate::redis::{Redis, ms};

/// How long it is known that a dead letter was acted upon, should whoever does it fail before the letter is gone.
const AGAIN_TTL: Duration = Duration::from_secs(24 * 3600);

/// A question that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The letter's name.
    pub id: String,
    /// When the question was given up, Unix ms.
    pub at: UnixMs,
    /// Where it was asked.
    pub room: RoomId,
    /// The message that asks.
    pub question: String,
    /// Who asked.
    pub user: UserId,
    /// Why it was given up: the code of its `gpt:error`.
    pub reason: String,
    /// How often workers had begun with it.
    pub attempts: u64,
    /// The generation of its last claim; 1 where nobody ever began with it, because 0 is that of a first life.
    #[serde(skip)]
    pub generation: u64,
    /// The room's partition as the worker counts.
    #[serde(skip)]
    pub partition: Option<u16>,
    #[serde(skip)]
    trace: String,
}

impl Letter {
    /// What was asked.
    pub fn to_question(&self) -> Question {
        Question {
            room: self.room.clone(),
            id: self.question.clone(),
            user: self.user.clone(),
            trace: self.trace.clone(),
        }
    }
}

/// What became of a dead letter that was to be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// The question is asked anew.
    Asked,
    /// It was before, for this letter.
    Before,
    /// It has a reply.
    Answered,
}

fn read_letter((id, mut fields): (String, HashMap<String, String>)) -> Option<Letter> {
    let mut field = |name| fields.remove(name).unwrap_or_default();
    Some(Letter {
        at: id.split('-').next()?.parse().ok()?,
        room: RoomId::new(&field("room")).ok()?,
        question: field("question"),
        user: UserId::new(&field("user")).ok()?,
        reason: field("code"),
        attempts: field("attempts").parse().unwrap_or_default(),
        generation: field("gen").parse::<u64>().unwrap_or_default().max(1),
        partition: field("p").parse().ok(),
        trace: field("trace"),
        id,
    })
}

impl Redis {
    /// How many dead letters there are.
    pub async fn dead_count(&self) -> Result<u64, RedisError> {
        Ok(self.any()?.xlen(GPT_DEAD).await?)
    }

    /// The newest dead letters, the newest first.
    pub async fn newest_dead(&self, limit: usize) -> Result<Vec<Letter>, RedisError> {
        let entries: Vec<(String, HashMap<String, String>)> =
            self.any()?.xrevrange(GPT_DEAD, "+", "-", Some(limit as u64)).await?;
        Ok(entries.into_iter().filter_map(read_letter).collect())
    }

    /// The dead letters from one name to another, the oldest first; `-` and `+` are the ends.
    pub async fn dead_between(&self, from: &str, to: &str, limit: usize) -> Result<Vec<Letter>, RedisError> {
        let entries: Vec<(String, HashMap<String, String>)> =
            self.any()?.xrange(GPT_DEAD, from, to, Some(limit as u64)).await?;
        Ok(entries.into_iter().filter_map(read_letter).collect())
    }

    /// Forgets dead letters; how many there were.
    pub async fn forget_dead(&self, ids: Vec<String>) -> Result<u64, RedisError> {
        if ids.is_empty() {
            return Ok(0);
        }
        Ok(self.any()?.xdel(GPT_DEAD, ids).await?)
    }

    /// Takes back what ended the question of a dead letter, asks it anew and tells its room, all at once. The letter stays:
    /// repeating this is harmless.
    pub async fn ask_again(&self, letter: &Letter, event: (&str, &str)) -> Result<Again, RedisError> {
        let question = letter.to_question();
        let (name, json) = event;
        let key_names = vec![
            self.keys.gpt_end(&question.room, &question.id),
            self.keys.gpt_again(&question.room, &question.id),
            self.keys.gpt_outbox(self.keys.partition(question.room.as_str())),
            self.keys.gpt_parts(&question.room),
            self.keys.live(&question.room),
        ];
        let args = vec![
            letter.id.as_str().into(),
            question.room.as_str().into(),
            question.id.as_str().into(),
            question.user.as_str().into(),
            question.trace.as_str().into(),
            letter.generation.to_string().into(),
            question.reply().into(),
            self.publish_verb().into(),
            format!("~ {name} {json}").into(),
            ms(AGAIN_TTL).into(),
        ];
        let done: String = self
            .call_for_room(&question.room, &self.scripts.gpt_again, key_names, args)
            .await?;
        match done.as_str() {
            "again" => Ok(Again::Asked),
            "before" => Ok(Again::Before),
            "answered" => Ok(Again::Answered),
            _ => Err(RedisError::Unexpected("gpt_again")),
        }
    }
}
