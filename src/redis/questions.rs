//! The queue of questions to the model: an outbox per partition, one stream of runnable jobs, and what is being written.

mod claim;
mod dead;
mod end;
mod hold;
mod intake;
mod reply;
mod view;

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;

pub use claim::{Claim, Taken};
pub use dead::{Again, Letter};
pub use end::{Ended, Ender};
pub use hold::{Holds, Pause};
pub use intake::{Asked, Enqueued};
pub use view::{OpenQuestion, QueueCounts, WorkerSeen};

use super::keys::{self, GPT_DELAYED, GPT_OPEN, GPT_READY};
use super::log::reply_id;
use super::script::call;
use super::{Redis, RedisError, ms};
use crate::model::{RoomId, UserId};

/// The consumer group of the workers.
const GROUP: &str = "workers";
/// Jobs that periodic work looks at in one call.
const DUE_MAX: i64 = 500;
/// How long after its deadline a question that nobody ended is ended by whoever finds it.
const OVERDUE: Duration = Duration::from_secs(20);

/// A question to the model.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// Where it was asked.
    pub room: RoomId,
    /// The message that asks.
    pub id: String,
    /// Who asks.
    pub user: UserId,
    /// W3C trace context, or empty.
    pub trace: String,
}

impl Question {
    /// Its name in the queue.
    pub fn job(&self) -> String {
        job_name(&self.room, &self.id)
    }

    /// The id of its reply.
    pub fn reply(&self) -> String {
        reply_id(&self.id)
    }
}

fn job_name(room: &RoomId, question: &str) -> String {
    format!("{room} {question}")
}

/// A job that is held, for the heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its name.
    pub job: String,
    /// Its place in the stream of ready jobs.
    pub entry: String,
    /// The claim's generation.
    pub generation: u64,
}

/// What a heartbeat finds of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is over, or another worker has it.
    Lost,
    /// It is still this worker's.
    Kept,
    /// The same, and it was cancelled.
    Cancelled,
}

/// A piece of a reply.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The claim's generation.
    pub generation: u64,
    /// Its number, from 0; `None`: what was written before does not count.
    pub index: Option<u64>,
    /// The text.
    pub text: &'a str,
    /// Name and JSON of the event that tells it.
    pub event: (&'a str, &'a str),
}

/// An open question as somebody finds it who has no claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is asked.
    pub question: Question,
    /// Whether a worker is answering it.
    pub is_running: bool,
    /// The first generation that a claim of it may have.
    pub first: u64,
}

impl Found {
    /// Who found it, where the question is ended.
    pub fn ender(&self) -> Ender {
        Ender::Finder(self.first)
    }
}

type Fields = HashMap<String, String>;

impl Redis {
    /// Makes the stream of ready jobs and its consumer group, where they are not there.
    pub async fn prepare_questions(&self) -> Result<(), RedisError> {
        let made: Result<(), Error> = self.any()?.xgroup_create(GPT_READY, GROUP, "0", true).await;
        match made {
            Err(error) if !error.details().starts_with("BUSYGROUP") => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Renews what this worker holds; tells of each what has become of it.
    pub async fn beat_questions(&self, worker: &str, running: &[Running]) -> Result<Vec<Hold>, RedisError> {
        if running.is_empty() {
            return Ok(Vec::new());
        }
        let mut key_names = vec![GPT_READY.to_owned()];
        let mut args: Vec<Value> = vec![worker.into()];
        for held in running {
            key_names.push(keys::gpt_job(&held.job));
            args.push(held.entry.as_str().into());
            args.push(held.generation.to_string().into());
        }
        let held: Vec<i64> = call(&self.scripts.gpt_beat, self.any()?, key_names, args).await?;
        let read = |held| match held {
            1 => Hold::Kept,
            2 => Hold::Cancelled,
            _ => Hold::Lost,
        };
        Ok(held.into_iter().map(read).collect())
    }

    /// Puts a claimed job off, or hands it over at once; `false` when it is no longer this claim's.
    pub async fn put_off_question(&self, claim: &Claim, delay: Duration) -> Result<bool, RedisError> {
        let job = claim.question.job();
        let key_names = vec![GPT_READY.to_owned(), keys::gpt_job(&job), GPT_DELAYED.to_owned()];
        let args = vec![
            job.into(),
            claim.entry.as_str().into(),
            claim.generation.to_string().into(),
            ms(delay).into(),
        ];
        let done: i64 = call(&self.scripts.gpt_retry, self.any()?, key_names, args).await?;
        Ok(done == 1)
    }

    /// Lets delayed jobs go on whose time has come; returns the questions that nobody has ended in time.
    pub async fn due_questions(&self) -> Result<Vec<Found>, RedisError> {
        let key_names = vec![GPT_READY.to_owned(), GPT_DELAYED.to_owned(), GPT_OPEN.to_owned()];
        let args = vec![DUE_MAX.into(), ms(OVERDUE).into()];
        let overdue: Vec<String> = call(&self.scripts.gpt_due, self.any()?, key_names, args).await?;
        let mut questions = Vec::with_capacity(overdue.len());
        for job in overdue {
            // The names of room and message in it, should the rest be lost.
            let named = job
                .rsplit_once(' ')
                .and_then(|(room, id)| Some((RoomId::new(room).ok()?, id)));
            let Some((room, id)) = named else { continue };
            match self.question(&room, id).await? {
                Some(found) => questions.push(found),
                None => {
                    let () = self.any()?.zrem(GPT_OPEN, job).await?;
                }
            }
        }
        Ok(questions)
    }

    /// A question that is open.
    pub async fn question(&self, room: &RoomId, id: &str) -> Result<Option<Found>, RedisError> {
        let key = keys::gpt_job(&job_name(room, id));
        let fields: Vec<Option<String>> = self.any()?.hmget(key, vec!["user", "trace", "state", "base"]).await?;
        let [Some(user), trace, state, base] = <[Option<String>; 4]>::try_from(fields).unwrap_or_default() else {
            return Ok(None);
        };
        let question = Question {
            room: room.clone(),
            id: id.to_owned(),
            user: UserId::new(&user).map_err(|_| RedisError::Unexpected("question"))?,
            trace: trace.unwrap_or_default(),
        };
        let base: u64 = base.and_then(|base| base.parse().ok()).unwrap_or_default();
        Ok(Some(Found {
            question,
            is_running: state.as_deref() == Some("running"),
            first: base + 1,
        }))
    }

    /// Tells the nodes that have the room joined something about a question; it has no place in the log.
    pub async fn publish_gpt(&self, room: &RoomId, name: &str, json: &str) -> Result<(), RedisError> {
        self.publish_live(room, format!("~ {name} {json}")).await
    }
}
