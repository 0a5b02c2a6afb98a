//! The queue as operators see it.

use std::collections::HashMap;

use fred::prelude::*;

use super::{GROUP, RedisError};
use crate::model::{RoomId, UnixMs, UserId};
use crate::redis::Redis;
use crate::redis::keys::{self, GPT_DELAYED, GPT_OPEN, GPT_READY, GPT_WORKERS};

/// Jobs looked up by one pipeline.
const BATCH: usize = 500;

/// A question that has no end yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenQuestion {
    /// Where it was asked.
    pub room: RoomId,
    /// The message that asks.
    pub question: String,
    /// Who asks.
    pub user: UserId,
    /// `waiting`, `ready`, `running` or `delayed`.
    pub state: String,
    /// How often workers have begun with it.
    pub attempts: u64,
    /// Who has it, while it is running.
    pub worker: String,
}

impl OpenQuestion {
    /// When it was asked, Unix ms; the id of a message begins with that.
    pub fn asked_at(&self) -> Option<UnixMs> {
        self.question.split('-').next()?.parse().ok()
    }
}

/// How much there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Questions that a free worker would take; `None`: Redis does not know for the moment.
    pub runnable: Option<u64>,
    /// Questions that are not queued yet.
    pub asked: u64,
    /// Questions that wait for another attempt.
    pub delayed: u64,
}

/// A worker that was seen of late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSeen {
    /// Its name in the consumer group.
    pub name: String,
    /// When it last showed itself, Unix ms.
    pub seen: UnixMs,
    /// Since when it runs, by its own clock, Unix ms.
    pub since: UnixMs,
    /// How many questions it answers at once.
    pub slots: u64,
}

impl Redis {
    /// How much there is to do.
    pub async fn queue_counts(&self) -> Result<QueueCounts, RedisError> {
        let mut asked = 0;
        for (_, length) in self.outbox_lengths().await? {
            asked += length;
        }
        Ok(QueueCounts {
            runnable: match self.group().await? {
                Some(group) => group.get("lag").and_then(|lag| lag.parse().ok()),
                None => Some(0),
            },
            asked,
            delayed: self.any()?.zcard(GPT_DELAYED).await?,
        })
    }

    /// What Redis says of the workers' group; `None` where no worker ever ran.
    async fn group(&self) -> Result<Option<HashMap<String, String>>, RedisError> {
        let client = self.any()?;
        let exists: i64 = client.exists(GPT_READY).await?;
        if exists == 0 {
            return Ok(None);
        }
        let groups: Vec<HashMap<String, Value>> = client.xinfo_groups(GPT_READY).await?;
        let ours = groups
            .into_iter()
            .find(|group| group.get("name").and_then(Value::as_str).as_deref() == Some(GROUP));
        Ok(ours.map(|group| {
            let text = |(name, value): (String, Value)| Some((name, value.into_string()?));
            group.into_iter().filter_map(text).collect()
        }))
    }

    /// Every question that has no end yet, in no order.
    pub async fn open_questions(&self) -> Result<Vec<OpenQuestion>, RedisError> {
        let mut jobs = Vec::new();
        self.scan("ZSCAN", GPT_OPEN, |job, _| jobs.push(job.to_owned())).await?;
        // A scan may show one twice.
        jobs.sort_unstable();
        jobs.dedup();
        self.open_of(&jobs).await
    }

    /// The next questions that workers will take, in their order.
    pub async fn next_questions(&self, limit: usize) -> Result<Vec<OpenQuestion>, RedisError> {
        let Some(group) = self.group().await? else {
            return Ok(Vec::new());
        };
        let mut after = group.get("last-delivered-id").cloned().unwrap_or_default();
        let mut next = Vec::new();
        while next.len() < limit {
            let entries: Vec<(String, HashMap<String, String>)> = self
                .any()?
                .xrange(GPT_READY, format!("({after}"), "+", Some(BATCH as u64))
                .await?;
            let Some((last, _)) = entries.last() else { break };
            after.clone_from(last);
            let jobs: Vec<String> = entries.into_iter().filter_map(|(_, mut job)| job.remove("j")).collect();
            next.extend(self.open_of(&jobs).await?);
        }
        next.truncate(limit);
        Ok(next)
    }

    /// Those of the jobs that are open, in their order.
    async fn open_of(&self, jobs: &[String]) -> Result<Vec<OpenQuestion>, RedisError> {
        const FIELDS: [&str; 7] = ["room", "question", "user", "state", "gen", "base", "worker"];
        let mut open = Vec::with_capacity(jobs.len());
        for batch in jobs.chunks(BATCH) {
            let pipeline = self.any()?.pipeline();
            for job in batch {
                let () = pipeline.hmget(keys::gpt_job(job), FIELDS.to_vec()).await?;
            }
            let answers: Vec<Vec<Option<String>>> = pipeline.all().await?;
            open.extend(answers.into_iter().filter_map(read_open));
        }
        Ok(open)
    }

    /// The workers that were seen of late, by name.
    pub async fn workers_seen(&self) -> Result<Vec<WorkerSeen>, RedisError> {
        let workers: HashMap<String, String> = self.any()?.hgetall(GPT_WORKERS).await?;
        let read = |(name, text): (String, String)| {
            let mut numbers = text.split('|').map_while(|number| number.parse().ok());
            Some(WorkerSeen {
                name,
                seen: numbers.next()?,
                since: numbers.next()?,
                slots: numbers.next()?,
            })
        };
        let mut workers: Vec<WorkerSeen> = workers.into_iter().filter_map(read).collect();
        workers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(workers)
    }
}

fn read_open(fields: Vec<Option<String>>) -> Option<OpenQuestion> {
    let [room, question, user, state, generation, base, worker] = <[Option<String>; 7]>::try_from(fields).ok()?;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    Some(OpenQuestion {
        room: RoomId::new(&room?).ok()?,
        question: question?,
        user: UserId::new(&user?).ok()?,
        state: state?,
        attempts: number(generation).saturating_sub(number(base)),
        worker: worker.unwrap_or_default(),
    })
}
