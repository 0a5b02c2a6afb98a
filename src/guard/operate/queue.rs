//! The queue of questions to the model: what waits, what workers do, and how to stop it for a while.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::letters::{QUEUE, QueueError};
use super::{BadOrder, Operate};
use crate::model::{RoomId, UnixMs, UserId};
use crate::redis::{OpenQuestion, Pause, RedisError};

/// The longest reason of a pause, in bytes.
const REASON_MAX: usize = 200;
/// A worker shows itself every 10 s; one that has missed three times is probably gone.
const SILENT_MS: u64 = 30_000;

/// How the queue stands.
#[derive(Debug, Serialize)]
pub struct QueueStats {
    /// Who paused it, where it is paused.
    pub paused: Option<Pause>,
    /// For how long workers hold back because the provider said so, ms.
    pub braked_for_ms: Option<u64>,
    /// Questions that a free worker takes at once: the lag of the consumer group; null where Redis does not know it for the
    /// moment.
    pub runnable: Option<u64>,
    /// Questions being answered.
    pub running: usize,
    /// Questions that wait behind others of their room or their user.
    pub waiting: usize,
    /// Questions that wait for another attempt.
    pub delayed: u64,
    /// Questions that no worker has queued yet.
    pub asked: u64,
    /// Questions that were given up.
    pub dead: u64,
    /// For how long the oldest question waits that is not being answered, ms.
    pub oldest_wait_ms: Option<u64>,
    /// The rooms with the most questions that wait.
    pub rooms: Vec<RoomLoad>,
    /// How many rooms have questions.
    pub rooms_total: usize,
    /// The users with the most questions that wait.
    pub users: Vec<UserLoad>,
    /// How many users have questions.
    pub users_total: usize,
    /// The workers seen within the hour, by name.
    pub workers: Vec<WorkerLoad>,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

/// A room's questions.
#[derive(Debug, Serialize)]
pub struct RoomLoad {
    /// The room.
    pub room: RoomId,
    /// Not being answered yet.
    pub waiting: usize,
    /// Being answered.
    pub running: usize,
}

/// A user's questions.
#[derive(Debug, Serialize)]
pub struct UserLoad {
    /// The user.
    pub user: UserId,
    /// Not being answered yet.
    pub waiting: usize,
    /// Being answered.
    pub running: usize,
}

/// A worker, and what it answers.
#[derive(Debug, Serialize)]
pub struct WorkerLoad {
    /// Its name in the consumer group; a new one in every process.
    pub worker: String,
    /// When it last showed itself, Unix ms.
    pub seen: UnixMs,
    /// Since when it runs, by its own clock, Unix ms.
    pub since: UnixMs,
    /// How many questions it answers at once.
    pub slots: u64,
    /// Whether it should have shown itself by now.
    pub silent: bool,
    /// What it answers.
    pub running: Vec<Open>,
}

/// A question that has no end yet; never its text.
#[derive(Debug, Serialize)]
pub struct Open {
    /// Where it was asked.
    pub room: RoomId,
    /// The message that asks.
    pub question: String,
    /// Who asks.
    pub user: UserId,
    /// Which attempt it is, or will be, from 1.
    pub attempt: u64,
    /// Since when it is there, ms.
    pub age_ms: Option<u64>,
}

/// The next questions.
#[derive(Debug, Serialize)]
pub struct Next {
    /// In the order in which workers take them.
    pub questions: Vec<Open>,
    /// The server's time, Unix ms.
    pub now: UnixMs,
}

fn read_reason(reason: Option<&str>) -> Result<String, BadOrder> {
    let reason = reason.unwrap_or_default().trim();
    if reason.len() > REASON_MAX || reason.chars().any(char::is_control) {
        let problem = format!("must be at most {REASON_MAX} bytes without control characters");
        return Err(BadOrder {
            what: "reason",
            problem,
        });
    }
    Ok(reason.to_owned())
}

impl Operate {
    /// How the queue stands, with the `limit` rooms and users that have the most questions waiting.
    pub async fn queue_stats(&self, limit: usize) -> Result<QueueStats, RedisError> {
        let now = self.redis.server_time().await?;
        let (holds, counts) = (self.redis.question_holds().await?, self.redis.queue_counts().await?);
        let open = self.redis.open_questions().await?;
        let (mut rooms, mut users) = (HashMap::new(), HashMap::new());
        for question in &open {
            let running = question.state == "running";
            count(&mut rooms, &question.room, running);
            count(&mut users, &question.user, running);
        }
        let is = |state: &str| open.iter().filter(|question| question.state == state).count();
        let oldest = open.iter().filter(|question| question.state != "running");
        let oldest = oldest.filter_map(OpenQuestion::asked_at).min();
        Ok(QueueStats {
            paused: holds.pause,
            braked_for_ms: holds.brake.and_then(|left| u64::try_from(left.as_millis()).ok()),
            runnable: counts.runnable,
            running: is("running"),
            waiting: is("waiting"),
            delayed: counts.delayed,
            asked: counts.asked,
            dead: self.redis.dead_count().await?,
            oldest_wait_ms: oldest.map(|asked| now.saturating_sub(asked)),
            rooms_total: rooms.len(),
            users_total: users.len(),
            rooms: most(rooms, limit, |(room, [waiting, running])| RoomLoad {
                room,
                waiting,
                running,
            }),
            users: most(users, limit, |(user, [waiting, running])| UserLoad {
                user,
                waiting,
                running,
            }),
            workers: self.workers(&open, now).await?,
            now,
        })
    }

    async fn workers(&self, open: &[OpenQuestion], now: UnixMs) -> Result<Vec<WorkerLoad>, RedisError> {
        let mut running: BTreeMap<&str, Vec<Open>> = BTreeMap::new();
        for question in open.iter().filter(|question| question.state == "running") {
            let entry = running.entry(&question.worker).or_default();
            entry.push(shown(question, question.attempts, now));
        }
        let seen = self.redis.workers_seen().await?.into_iter();
        Ok(seen
            .map(|worker| WorkerLoad {
                running: running.remove(worker.name.as_str()).unwrap_or_default(),
                worker: worker.name,
                seen: worker.seen,
                since: worker.since,
                slots: worker.slots,
                silent: now.saturating_sub(worker.seen) > SILENT_MS,
            })
            .collect())
    }

    /// The next questions that workers take.
    pub async fn queue_next(&self, limit: usize) -> Result<Next, RedisError> {
        let now = self.redis.server_time().await?;
        let next = self.redis.next_questions(limit).await?;
        let questions = next.iter().map(|question| shown(question, question.attempts + 1, now));
        Ok(Next {
            questions: questions.collect(),
            now,
        })
    }

    /// Makes all workers take no more questions; `false` where they were told before.
    pub async fn queue_pause(&self, reason: Option<&str>, by: &str) -> Result<bool, QueueError> {
        let reason = read_reason(reason)?;
        let new = self.redis.pause_questions(by, &reason).await?;
        if new {
            self.redis.audit("pause", QUEUE.to_owned(), reason, by).await?;
        }
        Ok(new)
    }

    /// Lets workers take questions again; for how long they did not, or `None` where the queue was not paused.
    pub async fn queue_resume(&self, by: &str) -> Result<Option<std::time::Duration>, RedisError> {
        let paused = self.redis.resume_questions().await?;
        if paused.is_some() {
            self.redis.audit("resume", QUEUE.to_owned(), String::new(), by).await?;
        }
        Ok(paused)
    }
}

fn shown(question: &OpenQuestion, attempt: u64, now: UnixMs) -> Open {
    Open {
        room: question.room.clone(),
        question: question.question.clone(),
        user: question.user.clone(),
        attempt,
        age_ms: question.asked_at().map(|asked| now.saturating_sub(asked)),
    }
}

fn count<K: Clone + Eq + std::hash::Hash>(counts: &mut HashMap<K, [usize; 2]>, of: &K, running: bool) {
    let counts = counts.entry(of.clone()).or_default();
    counts[usize::from(running)] += 1;
}

/// The `limit` with the most that wait, in a stable order.
fn most<K: Ord + Clone, T>(
    counts: HashMap<K, [usize; 2]>,
    limit: usize,
    shown: impl Fn((K, [usize; 2])) -> T,
) -> Vec<T> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|(a, x), (b, y)| y.cmp(x).then_with(|| a.cmp(b)));
    counts.truncate(limit);
    counts.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_with_the_most_that_wait_come_first() {
        let counts = HashMap::from([("b", [2, 0]), ("a", [2, 0]), ("c", [0, 1]), ("d", [3, 0])]);
        assert_eq!(most(counts, 3, |(name, _)| name), ["d", "a", "b"]);
    }
}
