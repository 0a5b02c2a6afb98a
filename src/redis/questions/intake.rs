//! Questions on their way from the outboxes into the queue.

use std::time::Duration;

use fred::prelude::*;

use super::{Ender, Fields, Found, Question};
use crate::model::{RoomId, UserId};
use crate::redis::keys::{self, GPT_OPEN, GPT_READY};
use crate::redis::script::call;
use crate::redis::{Redis, RedisError, ms};

/// Jobs of one room at most: the one that is answered and three that wait.
const ROOM_MAX: i64 = 4;
/// First jobs of rooms that one user may have: the one that is answered and twenty that wait.
const USER_MAX: i64 = 21;
/// Questions of an outbox that are looked at together.
const PAGE: u64 = 500;

/// A question of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// The generation of its last claim, at least 1, where it was given up and is asked once more; else 0.
    pub generation: u64,
}

impl Asked {
    /// Whoever ends it before it is queued.
    pub fn ender(&self) -> Ender {
        Ender::Finder(self.generation + 1)
    }
}

/// What became of a question that was to be queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enqueued {
    /// It waits behind so many of its room.
    Queued(u64),
    /// It was queued before.
    Known,
    /// Too many questions of the room are open.
    RoomBusy,
    /// Too many rooms wait for this user's questions.
    UserBusy,
}

/// An entry of an outbox; nothing where it cannot be read.
fn read_asked((entry, mut fields): (String, Fields)) -> (String, Option<Asked>) {
    let mut field = |name| fields.remove(name).unwrap_or_default();
    let mut asked = || {
        Some(Asked {
            question: Question {
                room: RoomId::new(&field("r")).ok()?,
                id: field("i"),
                user: UserId::new(&field("u")).ok()?,
                trace: field("t"),
            },
            generation: field("g").parse().unwrap_or_default(),
        })
    };
    (entry, asked())
}

impl Redis {
    /// The partitions with questions that are not queued yet.
    pub async fn asked_partitions(&self) -> Result<Vec<u16>, RedisError> {
        let lengths = self.outbox_lengths().await?;
        let asked = lengths.into_iter().filter(|(_, length)| *length > 0);
        Ok(asked.map(|(partition, _)| partition).collect())
    }

    /// Each partition with the number of its questions that are not queued yet.
    pub(super) async fn outbox_lengths(&self) -> Result<Vec<(u16, u64)>, RedisError> {
        let pipeline = self.any()?.pipeline();
        for partition in 0..self.keys.partitions() {
            let () = pipeline.xlen(self.keys.gpt_outbox(partition)).await?;
        }
        let lengths: Vec<u64> = pipeline.all().await?;
        Ok((0u16..).zip(lengths).collect())
    }

    /// The oldest questions of a partition's outbox, with the place of each.
    pub async fn asked(&self, partition: u16, limit: u64) -> Result<Vec<(String, Option<Asked>)>, RedisError> {
        let key = self.keys.gpt_outbox(partition);
        let entries: Vec<(String, Fields)> = self.any()?.xrange(key, "-", "+", Some(limit)).await?;
        Ok(entries.into_iter().map(read_asked).collect())
    }

    /// A question that is open, wherever it is on its way.
    pub async fn find_question(&self, room: &RoomId, id: &str) -> Result<Option<Found>, RedisError> {
        if let Some(found) = self.question(room, id).await? {
            return Ok(Some(found));
        }
        match self.find_asked(room, id).await? {
            Some(found) => Ok(Some(found)),
            // It may have been taken in meanwhile.
            None => self.question(room, id).await,
        }
    }

    /// A question that waits in its outbox. The newest are looked at first: those are what people take back.
    async fn find_asked(&self, room: &RoomId, id: &str) -> Result<Option<Found>, RedisError> {
        let key = self.keys.gpt_outbox(self.keys.partition(room.as_str()));
        let mut end = "+".to_owned();
        loop {
            let entries: Vec<(String, Fields)> = self.any()?.xrevrange(&key, end, "-", Some(PAGE)).await?;
            let Some((oldest, _)) = entries.last() else {
                return Ok(None);
            };
            end = format!("({oldest}");
            let asked = entries.into_iter().filter_map(|entry| read_asked(entry).1);
            let found = asked
                .into_iter()
                .find(|asked| asked.question.room == *room && asked.question.id == id);
            if let Some(Asked { question, generation }) = found {
                return Ok(Some(Found {
                    question,
                    is_running: false,
                    first: generation + 1,
                }));
            }
        }
    }

    /// Removes questions from their outbox.
    pub async fn forget_asked(&self, partition: u16, entries: Vec<String>) -> Result<(), RedisError> {
        let () = self.any()?.xdel(self.keys.gpt_outbox(partition), entries).await?;
        Ok(())
    }

    /// Queues a question; repeating it is harmless while it is open.
    pub async fn enqueue_question(&self, asked: &Asked, life: Duration) -> Result<Enqueued, RedisError> {
        let question = &asked.question;
        let job = question.job();
        let key_names = vec![
            GPT_READY.to_owned(),
            keys::gpt_job(&job),
            keys::gpt_room(&question.room),
            keys::gpt_user(&question.user),
            GPT_OPEN.to_owned(),
            keys::gpt_buried(&job),
        ];
        let args = vec![
            job.into(),
            question.room.as_str().into(),
            question.id.as_str().into(),
            question.user.as_str().into(),
            question.trace.as_str().into(),
            ms(life).into(),
            ROOM_MAX.into(),
            USER_MAX.into(),
            asked.generation.to_string().into(),
        ];
        let (status, before): (String, u64) = call(&self.scripts.gpt_enqueue, self.any()?, key_names, args).await?;
        match status.as_str() {
            "ok" => Ok(Enqueued::Queued(before)),
            "dup" => Ok(Enqueued::Known),
            "room_busy" => Ok(Enqueued::RoomBusy),
            "user_busy" => Ok(Enqueued::UserBusy),
            _ => Err(RedisError::Unexpected("gpt_enqueue")),
        }
    }
}
