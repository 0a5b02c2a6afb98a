//! The queue of questions to the model: an outbox per partition, one stream of runnable jobs, and what is being written.

mod dead;
mod hold;
mod view;

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;

pub use dead::{Again, Letter};
pub use hold::{Holds, Pause};
pub use view::{OpenQuestion, QueueCounts, WorkerSeen};

use super::keys::{self, GPT_DEAD, GPT_DELAYED, GPT_OPEN, GPT_READY};
use super::log::reply_id;
use super::script::call;
use super::spending::{Budgets, Purse};
use super::{Redis, RedisError, from_ms, ms};
use crate::model::{RoomId, UserId};

/// The consumer group of the workers.
const GROUP: &str = "workers";
/// Jobs of one room at most: the one that is answered and three that wait.
const ROOM_MAX: i64 = 4;
/// First jobs of rooms that one user may have: the one that is answered and twenty that wait.
const USER_MAX: i64 = 21;
/// How long the end of a question is remembered: longer than it can live, and be handed on.
const END_TTL: Duration = Duration::from_secs(15 * 60);
/// Given up questions kept for operators.
const DEAD_MAX: i64 = 10_000;
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

/// A question of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// The generation of its last claim, at least 1, where it was given up and is asked once more; else 0.
    pub generation: u64,
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
    /// Whose tokens of the day are used up: it is not to be answered.
    pub spent: Option<Purse>,
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

/// Whether a call ended a question, or it had ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Now.
    Now,
    /// Before.
    Before,
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

    /// The partitions with questions that are not queued yet.
    pub async fn asked_partitions(&self) -> Result<Vec<u16>, RedisError> {
        let lengths = self.outbox_lengths().await?;
        let asked = lengths.into_iter().filter(|(_, length)| *length > 0);
        Ok(asked.map(|(partition, _)| partition).collect())
    }

    /// Each partition with the number of its questions that are not queued yet.
    async fn outbox_lengths(&self) -> Result<Vec<(u16, u64)>, RedisError> {
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
        let read = |(entry, mut fields): (String, Fields)| {
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
        };
        Ok(entries.into_iter().map(read).collect())
    }

    /// Removes a question from its outbox.
    pub async fn forget_asked(&self, partition: u16, entry: &str) -> Result<(), RedisError> {
        let () = self.any()?.xdel(self.keys.gpt_outbox(partition), entry).await?;
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

    /// Takes up to `count` ready jobs that nobody has; their places and names.
    pub async fn read_ready(&self, worker: &str, count: u64) -> Result<Vec<(String, String)>, RedisError> {
        let answer: Result<Value, Error> = self
            .any()?
            .xreadgroup(GROUP, worker, Some(count), None, false, GPT_READY, ">")
            .await;
        let answer = match answer {
            // Redis came back without its data.
            Err(error) if error.details().starts_with("NOGROUP") => {
                self.prepare_questions().await?;
                return Ok(Vec::new());
            }
            answer => answer?,
        };
        if answer.is_null() {
            return Ok(Vec::new());
        }
        let streams: HashMap<String, Vec<(String, Fields)>> = answer.convert()?;
        let entries = streams.into_values().flatten();
        Ok(entries
            .filter_map(|(entry, mut fields)| Some((entry, fields.remove("j")?)))
            .collect())
    }

    /// Takes jobs whose worker has been silent for `idle`; their places and names.
    pub async fn read_stalled(&self, worker: &str, idle: Duration) -> Result<Vec<(String, String)>, RedisError> {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let (_next, entries): (String, Vec<(String, Fields)>) = self
            .any()?
            .xautoclaim_values(GPT_READY, GROUP, worker, idle, "0", Some(100), false)
            .await?;
        Ok(entries
            .into_iter()
            .filter_map(|(entry, mut fields)| Some((entry, fields.remove("j")?)))
            .collect())
    }

    /// Makes this worker the only one that may write about a job; `None` when the job is over.
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
            entry.into(),
            if stalled { "1" } else { "0" }.into(),
            budgets.user.to_string().into(),
            budgets.room.to_string().into(),
        ];
        let mut answer: Vec<String> =
            call(&self.scripts.gpt_claim, self.any()?, vec![keys::gpt_job(job)], args).await?;
        let spent = answer.get(8).and_then(|purse| Purse::parse(purse));
        answer.truncate(8);
        let Ok([room, id, user, trace, generation, attempt, stalls, left]) = <[String; 8]>::try_from(answer) else {
            let () = self.any()?.xack(GPT_READY, GROUP, entry).await?;
            return Ok(None);
        };
        let claim = || {
            Some(Claim {
                question: Question {
                    room: RoomId::new(&room).ok()?,
                    id,
                    user: UserId::new(&user).ok()?,
                    trace,
                },
                entry: entry.to_owned(),
                generation: generation.parse().ok()?,
                attempt: attempt.parse().ok()?,
                stalls: stalls.parse().ok()?,
                left: from_ms(left.parse().ok()?),
                spent,
            })
        };
        claim().map(Some).ok_or(RedisError::Unexpected("gpt_claim"))
    }

    /// Renews what this worker holds; tells for each whether it still does.
    pub async fn beat_questions(&self, worker: &str, running: &[Running]) -> Result<Vec<bool>, RedisError> {
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
        Ok(held.into_iter().map(|held| held == 1).collect())
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
    pub async fn due_questions(&self) -> Result<Vec<Question>, RedisError> {
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
                Some((question, _)) => questions.push(question),
                None => {
                    let () = self.any()?.zrem(GPT_OPEN, job).await?;
                }
            }
        }
        Ok(questions)
    }

    /// An open question, and whether a worker is answering it.
    pub async fn question(&self, room: &RoomId, id: &str) -> Result<Option<(Question, bool)>, RedisError> {
        let key = keys::gpt_job(&job_name(room, id));
        let fields: Vec<Option<String>> = self.any()?.hmget(key, vec!["user", "trace", "state"]).await?;
        let [Some(user), trace, state] = <[Option<String>; 3]>::try_from(fields).unwrap_or_default() else {
            return Ok(None);
        };
        let question = Question {
            room: room.clone(),
            id: id.to_owned(),
            user: UserId::new(&user).map_err(|_| RedisError::Unexpected("question"))?,
            trace: trace.unwrap_or_default(),
        };
        Ok(Some((question, state.as_deref() == Some("running"))))
    }

    /// Forgets a question that has ended and lets its room and its user go on.
    pub async fn finish_question(&self, question: &Question) -> Result<(), RedisError> {
        self.close_question(question, "").await
    }

    /// As [`Self::finish_question`], and keeps it for operators: it was given up.
    pub async fn bury_question(&self, question: &Question, code: &str) -> Result<(), RedisError> {
        self.close_question(question, code).await
    }

    async fn close_question(&self, question: &Question, code: &str) -> Result<(), RedisError> {
        let job = question.job();
        let key_names = vec![
            GPT_READY.to_owned(),
            keys::gpt_job(&job),
            keys::gpt_room(&question.room),
            keys::gpt_user(&question.user),
            GPT_OPEN.to_owned(),
            GPT_DELAYED.to_owned(),
            GPT_DEAD.to_owned(),
        ];
        let args = vec![
            job.into(),
            code.into(),
            self.keys.partition(question.room.as_str()).to_string().into(),
            DEAD_MAX.into(),
        ];
        let _open: i64 = call(&self.scripts.gpt_finish, self.any()?, key_names, args).await?;
        Ok(())
    }

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

    /// Ends a question without a reply, unless it has ended, and tells the room.
    pub async fn fail_question(&self, question: &Question, event: (&str, &str)) -> Result<Ended, RedisError> {
        let (name, json) = event;
        let args = vec![
            self.publish_verb().into(),
            question.reply().into(),
            format!("~ {name} {json}").into(),
            ms(END_TTL).into(),
        ];
        let key_names = self.part_keys(question);
        let ended: i64 = self
            .call_for_room(&question.room, &self.scripts.gpt_fail, key_names, args)
            .await?;
        Ok(if ended == 1 { Ended::Now } else { Ended::Before })
    }

    fn part_keys(&self, question: &Question) -> Vec<String> {
        vec![
            self.keys.gpt_parts(&question.room),
            self.keys.live(&question.room),
            self.keys.gpt_end(&question.room, &question.id),
        ]
    }

    /// Forgets what was written of a reply: it is in the log.
    pub async fn forget_parts(&self, question: &Question) -> Result<(), RedisError> {
        let client = self.for_room(&question.room, super::client::Purpose::Other)?;
        let () = client
            .hdel(self.keys.gpt_parts(&question.room), question.reply())
            .await?;
        Ok(())
    }

    /// Whether a question has ended.
    pub async fn has_ended(&self, question: &Question) -> Result<bool, RedisError> {
        let client = self.for_room(&question.room, super::client::Purpose::Other)?;
        let count: i64 = client.exists(self.keys.gpt_end(&question.room, &question.id)).await?;
        Ok(count > 0)
    }

    /// Lets the room and the user of a question go on if it has ended: the worker that ended it may not have come to it.
    pub async fn finish_question_if_ended(&self, question: &Question) -> Result<(), RedisError> {
        if self.has_ended(question).await? {
            self.finish_question(question).await?;
        }
        Ok(())
    }

    /// Tells the nodes that have the room joined something about a question; it has no place in the log.
    pub async fn publish_gpt(&self, room: &RoomId, name: &str, json: &str) -> Result<(), RedisError> {
        self.publish_live(room, format!("~ {name} {json}")).await
    }

    /// The replies of a room that are being written: id, generation, index of the newest piece, text so far.
    pub async fn parts(&self, room: &RoomId) -> Result<Vec<(String, u64, Option<u64>, String)>, RedisError> {
        let client = self.for_room(room, super::client::Purpose::Other)?;
        let parts: HashMap<String, String> = client.hgetall(self.keys.gpt_parts(room)).await?;
        let read = |(id, part): (String, String)| {
            let mut fields = part.splitn(3, '|');
            let (generation, index, text) = (fields.next()?, fields.next()?, fields.next()?);
            Some((id, generation.parse().ok()?, index.parse().ok(), text.to_owned()))
        };
        Ok(parts.into_iter().filter_map(read).collect())
    }
}
