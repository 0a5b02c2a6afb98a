//! How questions end without a reply, and what is done once one has ended.

use std::time::Duration;

use fred::prelude::*;

use super::{Found, Question};
use crate::redis::client::Purpose;
use crate::redis::keys::{self, GPT_DEAD, GPT_DELAYED, GPT_OPEN, GPT_READY};
use crate::redis::script::call;
use crate::redis::{Redis, RedisError, ms};

/// How long the end of a question is remembered: longer than it can live, and be handed on.
const END_TTL: Duration = Duration::from_secs(15 * 60);
/// Given up questions kept for operators.
const DEAD_MAX: i64 = 10_000;

/// Whether a call ended a question, or it had ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Now.
    Now,
    /// Before.
    Before,
    /// Neither: a later claim answers it.
    Superseded,
}

/// Who ends a question, or does what is left to do once it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ender {
    /// Whoever has the claim of this generation.
    Claimer(u64),
    /// Somebody without a claim, who knows of the life that begins with this generation.
    Finder(u64),
}

impl Ender {
    /// A generation of the life that it knows of.
    fn generation(self) -> u64 {
        let (Self::Claimer(generation) | Self::Finder(generation)) = self;
        generation
    }
}

impl Redis {
    /// Ends a question without a reply, unless it has ended, and tells the room; a claimer only while no later claim writes
    /// the reply.
    pub async fn fail_question(
        &self,
        question: &Question,
        ender: Ender,
        event: (&str, &str),
    ) -> Result<Ended, RedisError> {
        let (name, json) = event;
        let args = vec![
            self.publish_verb().into(),
            question.reply().into(),
            format!("~ {name} {json}").into(),
            ms(END_TTL).into(),
            match ender {
                Ender::Claimer(generation) => generation.to_string(),
                Ender::Finder(_) => String::new(),
            }
            .into(),
        ];
        let key_names = self.part_keys(question);
        let ended: i64 = self
            .call_for_room(&question.room, &self.scripts.gpt_fail, key_names, args)
            .await?;
        Ok(match ended {
            1 => Ended::Now,
            0 => Ended::Before,
            _ => Ended::Superseded,
        })
    }

    /// Notes that a question that is being answered is to end as far as it has come; `false` when nobody is answering it.
    pub async fn cancel_running(&self, found: &Found) -> Result<bool, RedisError> {
        let key_names = vec![keys::gpt_job(&found.question.job())];
        let args = vec![found.first.to_string().into()];
        let noted: i64 = call(&self.scripts.gpt_cancel, self.any()?, key_names, args).await?;
        Ok(noted == 1)
    }

    /// Whether a question has ended.
    pub async fn has_ended(&self, question: &Question) -> Result<bool, RedisError> {
        let client = self.for_room(&question.room, Purpose::Other)?;
        let count: i64 = client.exists(self.keys.gpt_end(&question.room, &question.id)).await?;
        Ok(count > 0)
    }

    /// Forgets a question that has ended and lets its room and its user go on; not one that was asked anew since.
    pub async fn finish_question(&self, question: &Question, ender: Ender) -> Result<(), RedisError> {
        self.close_question(question, ender, "").await
    }

    /// As [`Self::finish_question`], and keeps it for operators: it was given up.
    pub async fn bury_question(&self, question: &Question, ender: Ender, code: &str) -> Result<(), RedisError> {
        self.close_question(question, ender, code).await
    }

    async fn close_question(&self, question: &Question, ender: Ender, code: &str) -> Result<(), RedisError> {
        let job = question.job();
        let key_names = vec![
            GPT_READY.to_owned(),
            keys::gpt_job(&job),
            keys::gpt_room(&question.room),
            keys::gpt_user(&question.user),
            GPT_OPEN.to_owned(),
            GPT_DELAYED.to_owned(),
            GPT_DEAD.to_owned(),
            keys::gpt_buried(&job),
        ];
        let args = vec![
            job.into(),
            code.into(),
            self.keys.partition(question.room.as_str()).to_string().into(),
            DEAD_MAX.into(),
            ender.generation().to_string().into(),
            ms(END_TTL).into(),
        ];
        let _open: i64 = call(&self.scripts.gpt_finish, self.any()?, key_names, args).await?;
        Ok(())
    }

    /// Lets the room and the user of a question go on if it has ended: the worker that ended it may not have come to it.
    pub async fn finish_question_if_ended(&self, question: &Question, ender: Ender) -> Result<(), RedisError> {
        if self.has_ended(question).await? {
            self.finish_question(question, ender).await?;
        }
        Ok(())
    }
}
