//! Workers take jobs, and take over those of workers that fell silent.

use std::time::Duration;

use fred::prelude::*;

use super::hold::read_holds;
use super::{Ender, Fields, GROUP, Holds, Question};
use crate::model::{RoomId, UserId};
use crate::redis::keys::{self, GPT_BRAKE, GPT_PAUSE, GPT_READY};
use crate::redis::script::call;
use crate::redis::spending::{Budgets, Purse};
use crate::redis::{Redis, RedisError, from_ms};

/// A job that this worker alone may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What is asked.
    pub question: Question,
    /// Its place in the stream of ready jobs.
    pub entry: String,
    /// Rises with every claim; what an earlier one writes is refused.
    pub generation: u64,
    /// Which claim it is, from 1, since it was last asked.
    pub attempt: u64,
    /// How often a worker fell silent over it.
    pub stalls: u32,
    /// How long it may still take.
    pub left: Duration,
    /// It was cancelled while somebody else had it.
    pub is_cancelled: bool,
    /// Whose tokens of the day are used up: it is not to be answered.
    pub spent: Option<Purse>,
}

impl Claim {
    /// Who has it, where the question is ended.
    pub fn ender(&self) -> Ender {
        Ender::Claimer(self.generation)
    }
}

/// What a worker got that asked for jobs.
#[derive(Debug, Default)]
pub struct Taken {
    /// What kept it from taking any.
    pub holds: Holds,
    /// How many it read, those included that were over.
    pub read: usize,
    /// The others.
    pub claims: Vec<Claim>,
}

fn read_claim(entry: String, mut fields: Vec<String>) -> Option<Claim> {
    let spent = fields.get(9).and_then(|purse| Purse::parse(purse));
    fields.truncate(9);
    let [room, id, user, trace, generation, attempt, stalls, left, cancelled] = <[String; 9]>::try_from(fields).ok()?;
    Some(Claim {
        question: Question {
            room: RoomId::new(&room).ok()?,
            id,
            user: UserId::new(&user).ok()?,
            trace,
        },
        entry,
        generation: generation.parse().ok()?,
        attempt: attempt.parse().ok()?,
        stalls: stalls.parse().ok()?,
        left: from_ms(left.parse().ok()?),
        is_cancelled: !cancelled.is_empty(),
        spent,
    })
}

impl Redis {
    /// Takes up to `count` ready jobs that nobody has, unless something keeps workers from it; one round trip.
    pub async fn take_questions(&self, worker: &str, count: u64, budgets: Budgets) -> Result<Taken, RedisError> {
        let args = vec![
            worker.into(),
            count.to_string().into(),
            budgets.user.to_string().into(),
            budgets.room.to_string().into(),
        ];
        let key_names = [GPT_READY, GPT_PAUSE, GPT_BRAKE].map(str::to_owned).to_vec();
        let answer: Result<Vec<Value>, RedisError> = call(&self.scripts.gpt_take, self.any()?, key_names, args).await;
        let answer = match answer {
            // Redis came back without its data.
            Err(RedisError::Refused(text)) if text.starts_with("NOGROUP") => {
                self.prepare_questions().await?;
                return Ok(Taken::default());
            }
            answer => answer?,
        };
        let unexpected = || RedisError::Unexpected("gpt_take");
        let mut answer = answer.into_iter();
        let mut next = || answer.next().ok_or_else(unexpected);
        let (since, by, reason, brake): (String, String, String, i64) = (
            next()?.convert()?,
            next()?.convert()?,
            next()?.convert()?,
            next()?.convert()?,
        );
        let read: usize = next()?.convert()?;
        let since = (!since.is_empty()).then_some(since);
        let claims = answer.map(|claim| {
            let (entry, fields): (String, Vec<String>) = claim.convert()?;
            read_claim(entry, fields).ok_or_else(unexpected)
        });
        Ok(Taken {
            holds: read_holds(since, by, reason, brake)?,
            read,
            claims: claims.collect::<Result<_, RedisError>>()?,
        })
    }

    /// Takes up to `count` jobs whose worker has been silent for `idle`; their places and names.
    pub async fn read_stalled(
        &self,
        worker: &str,
        idle: Duration,
        count: u64,
    ) -> Result<Vec<(String, String)>, RedisError> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let mut from = "0-0".to_owned();
        loop {
            // One call looks at ten times as many as it takes, and others may be held before the stalled ones.
            let (next, entries): (String, Vec<(String, Fields)>) = self
                .any()?
                .xautoclaim_values(GPT_READY, GROUP, worker, idle, from, Some(count), false)
                .await?;
            if next == "0-0" || !entries.is_empty() {
                let entries = entries.into_iter();
                return Ok(entries
                    .filter_map(|(entry, mut fields)| Some((entry, fields.remove("j")?)))
                    .collect());
            }
            from = next;
        }
    }

    /// Makes this worker the only one that may write about a job; `None` when the job is over, or another worker has it.
    pub async fn claim_question(
        &self,
        worker: &str,
        entry: &str,
        job: &str,
        stalled: bool,
        budgets: Budgets,
    ) -> Result<Option<Claim>, RedisError> {
        let args = vec![
            worker.into(),
            job.into(),
            entry.into(),
            if stalled { "1" } else { "0" }.into(),
            budgets.user.to_string().into(),
            budgets.room.to_string().into(),
        ];
        let key_names = vec![GPT_READY.to_owned(), keys::gpt_job(job)];
        let answer: Vec<String> = call(&self.scripts.gpt_claim, self.any()?, key_names, args).await?;
        if answer.is_empty() {
            return Ok(None);
        }
        let claim = read_claim(entry.to_owned(), answer);
        claim.map(Some).ok_or(RedisError::Unexpected("gpt_claim"))
    }
}
