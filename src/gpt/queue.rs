//! The worker's loops: questions from the outboxes into the queue, from the queue to an answer, and what is periodic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{Answerer, Outcome};
use super::words;
use crate::model::RoomId;
use crate::redis::{Act, Claim, Enqueued, Question, Redis, RedisError, Running};

/// How often the queue is looked at.
const POLL: Duration = Duration::from_millis(100);
/// How often the outboxes are: with the queue's, what a question waits for at most. There is one for each partition, and
/// most are empty.
const OUTBOX_POLL: Duration = Duration::from_millis(250);
/// Questions taken from one outbox at once.
const BATCH: u64 = 100;
/// A worker that does not renew its hold for so long has lost what it was answering.
const LEASE: Duration = Duration::from_secs(30);
/// How often holds are renewed: twice within a lease, and once more.
const BEAT: Duration = Duration::from_secs(10);
/// How often delayed, stalled and overdue questions are looked for: with the lease, a crashed worker's questions are taken
/// over within 35 s.
const SWEEP: Duration = Duration::from_secs(3);
/// How long to wait after a failure of Redis.
const RETRY: Duration = Duration::from_millis(500);
/// When a question that a failure of Redis interrupted goes on: not at once, as what failed may fail again.
const GIVE_BACK: Duration = Duration::from_secs(1);
/// Outboxes that are emptied at the same time: a question takes three round trips.
const OUTBOXES_AT_ONCE: usize = 16;
/// Workers that fell silent over one question before it is given up: it is what made them.
const STALLS_MAX: u32 = 2;

/// Why an answer is to end before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Somebody who may has cancelled it.
    Cancelled,
    /// Another worker has it: nothing more may be written.
    Lost,
    /// This worker stops: another one takes over.
    Stopping,
}

/// An answer under way.
struct Held {
    running: Running,
    token: CancellationToken,
    why: Arc<Mutex<Option<Interrupt>>>,
}

/// What one worker does for the queue.
pub struct Queue {
    redis: Redis,
    answerer: Answerer,
    /// This worker's name in the consumer group; a new one in every process.
    worker: String,
    life: Duration,
    slots: Arc<Semaphore>,
    held: Mutex<HashMap<String, Held>>,
    tracker: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// A queue that answers up to `parallel` questions at once, each within `life`.
    pub fn new(redis: Redis, answerer: Answerer, parallel: usize, life: Duration) -> Arc<Self> {
        Arc::new(Self {
            redis,
            answerer,
            worker: format!("{:016x}", rand::random::<u64>()),
            life,
            slots: Arc::new(Semaphore::new(parallel)),
            held: Mutex::default(),
            tracker: TaskTracker::new(),
        })
    }

    /// Runs until cancelled; what is being answered then is handed over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let prepared = async {
            while let Err(error) = self.redis.prepare_questions().await {
                tracing::debug!(%error, "the queue is not prepared yet");
                tokio::time::sleep(RETRY).await;
            }
        };
        if stop.run_until_cancelled(prepared).await.is_none() {
            return;
        }
        // A loop ends between two rounds: what was read of the queue must be claimed, or nobody takes it for a lease.
        tokio::join!(
            repeat(&stop, OUTBOX_POLL, "questions wait in their outboxes", || self
                .take_in(&stop)),
            repeat(&stop, POLL, "questions are not taken", || self.take(&stop)),
            repeat(&stop, SWEEP, "lost questions are not taken over", || self
                .take_over(&stop)),
            repeat(&stop, SWEEP, "the queue is not swept", || self.sweep()),
            repeat(&stop, BEAT, "holds are not renewed", || self.beat()),
            stop.run_until_cancelled(self.follow_control()),
            async {
                stop.cancelled().await;
                self.hand_over();
            },
        );
        self.hand_over();
        self.tracker.close();
        self.tracker.wait().await;
    }

    fn hand_over(&self) {
        for held in lock(&self.held).values() {
            held.interrupt(Interrupt::Stopping);
        }
    }

    /// From the outboxes into the queue. Two workers may do the same: a question is queued once.
    async fn take_in(&self, stop: &CancellationToken) -> Result<(), RedisError> {
        let partitions = self.redis.asked_partitions().await?;
        // Each in its order, as those of a room must be.
        stream::iter(partitions)
            .map(Ok)
            .try_for_each_concurrent(OUTBOXES_AT_ONCE, async |partition| {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.take_in_of(partition).await
            })
            .await
    }

    async fn take_in_of(&self, partition: u16) -> Result<(), RedisError> {
        let asked = self.redis.asked(partition, BATCH).await?;
        let mut entries = Vec::with_capacity(asked.len());
        for (entry, question) in asked {
            match question {
                // It was answered, and another worker has yet to remove it here.
                Some(question) if self.redis.has_ended(&question).await? => {}
                Some(question) => self.enqueue(&question).await?,
                None => tracing::error!(partition, entry, "unreadable question"),
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.redis.forget_asked(partition, entries).await
    }

    async fn enqueue(&self, question: &Question) -> Result<(), RedisError> {
        let code = match self.redis.enqueue_question(question, self.life).await? {
            Enqueued::Known => return Ok(()),
            Enqueued::Queued(before) => {
                let (name, json) = words::queued(question, before);
                return self.redis.publish_gpt(&question.room, name, &json).await;
            }
            Enqueued::RoomBusy => "room_busy",
            Enqueued::UserBusy => "user_busy",
        };
        self.answerer.fail(question, code, true).await
    }

    /// From the queue to answers, until there is nothing more to do.
    async fn take(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), RedisError> {
        while let Some(slots) = self.free_slots(stop).await {
            if self.redis.questions_braked().await? {
                break;
            }
            let ready = self.redis.read_ready(&self.worker, slots.len() as u64).await?;
            if ready.is_empty() {
                break;
            }
            self.start(ready, slots, false).await;
        }
        Ok(())
    }

    /// Waits until there is room for an answer and reserves as much as there is; nothing when this worker stops. Whoever
    /// waits longest is first, so that lost questions have their turn while the queue is long.
    async fn free_slots(&self, stop: &CancellationToken) -> Option<Vec<OwnedSemaphorePermit>> {
        let first = stop.run_until_cancelled(self.slots.clone().acquire_owned());
        let mut slots = vec![first.await?.ok()?];
        while let Ok(slot) = self.slots.clone().try_acquire_owned() {
            slots.push(slot);
        }
        Some(slots)
    }

    /// Claims jobs, given by their places and names, and answers them. What cannot be claimed now is taken over later.
    async fn start(self: &Arc<Self>, jobs: Vec<(String, String)>, slots: Vec<OwnedSemaphorePermit>, stalled: bool) {
        let claims = jobs.iter().map(|(entry, job)| async move {
            let claim = self.redis.claim_question(&self.worker, entry, job, stalled).await;
            claim.unwrap_or_else(|error| {
                tracing::warn!(job, %error, "a question was not claimed");
                None
            })
        });
        let claims = join_all(claims).await;
        for (claim, slot) in claims.into_iter().flatten().zip(slots) {
            self.answer_apart(claim, slot);
        }
    }

    fn answer_apart(self: &Arc<Self>, claim: Claim, slot: OwnedSemaphorePermit) {
        let job = claim.question.job();
        let token = CancellationToken::new();
        let why = Arc::new(Mutex::new(None));
        let held = Held {
            running: Running {
                job: job.clone(),
                entry: claim.entry.clone(),
                generation: claim.generation,
            },
            token: token.clone(),
            why: why.clone(),
        };
        lock(&self.held).insert(job.clone(), held);
        let queue = self.clone();
        self.tracker.spawn(async move {
            if let Err(error) = queue.answer(&claim, &token, &why).await {
                tracing::warn!(job, %error, "an answer was interrupted");
                queue.give_back(&claim).await;
            }
            let mut held = lock(&queue.held);
            // This worker may have taken over from itself.
            if held
                .get(&job)
                .is_some_and(|held| held.running.generation == claim.generation)
            {
                held.remove(&job);
            }
            drop(slot);
        });
    }

    /// Hands a question over that a failure of Redis interrupted, once Redis is back; after a lease it is taken over anyway.
    async fn give_back(&self, claim: &Claim) {
        let began = Instant::now();
        while began.elapsed() < LEASE {
            match self.redis.put_off_question(claim, GIVE_BACK).await {
                Ok(_) => return,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    async fn answer(
        &self,
        claim: &Claim,
        token: &CancellationToken,
        why: &Mutex<Option<Interrupt>>,
    ) -> Result<(), RedisError> {
        let question = &claim.question;
        if self.redis.has_ended(question).await? {
            return self.redis.finish_question(question).await;
        }
        if claim.stalls >= STALLS_MAX {
            self.redis.bury_question(question, "stalled").await?;
            return self.answerer.fail(question, "stalled", true).await;
        }
        let interrupted = || {
            let token = token.clone();
            async move {
                token.cancelled().await;
                lock(why).unwrap_or(Interrupt::Lost)
            }
        };
        match self.answerer.answer(claim, interrupted()).await? {
            Outcome::Ended | Outcome::Lost => Ok(()),
            Outcome::Again(delay) => self.redis.put_off_question(claim, delay).await.map(drop),
        }
    }

    async fn beat(&self) -> Result<(), RedisError> {
        let running: Vec<Running> = lock(&self.held).values().map(|held| held.running.clone()).collect();
        let still = self.redis.beat_questions(&self.worker, &running).await?;
        let held = lock(&self.held);
        for (running, still) in running.iter().zip(still) {
            match held.get(&running.job) {
                Some(held) if !still && held.running.generation == running.generation => {
                    held.interrupt(Interrupt::Lost);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Questions whose worker has fallen silent.
    async fn take_over(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), RedisError> {
        while let Some(slots) = self.free_slots(stop).await {
            let mut lost = self.redis.read_stalled(&self.worker, LEASE, slots.len() as u64).await?;
            if lost.is_empty() {
                break;
            }
            lost.retain(|(_, job)| !lock(&self.held).contains_key(job));
            self.start(lost, slots, true).await;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), RedisError> {
        for question in self.redis.due_questions().await? {
            self.redis.bury_question(&question, "deadline").await?;
            self.answerer.fail(&question, "deadline", true).await?;
        }
        Ok(())
    }

    /// Cancellations come as acts that every process hears of.
    async fn follow_control(&self) {
        let mut position = None;
        loop {
            let news = match &position {
                None => self.redis.control_position().await.map(|now| {
                    position = Some(now);
                    Vec::new()
                }),
                Some(at) => self.redis.acts_after(at).await,
            };
            for (at, act) in news.unwrap_or_default() {
                position = Some(at);
                if let Some(Act::CancelReply { room, question }) = act {
                    self.cancel(&room, &question);
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn cancel(&self, room: &RoomId, question: &str) {
        if let Some(held) = lock(&self.held).get(&format!("{room} {question}")) {
            held.interrupt(Interrupt::Cancelled);
        }
    }
}

impl Held {
    /// The first reason counts.
    fn interrupt(&self, reason: Interrupt) {
        lock(&self.why).get_or_insert(reason);
        self.token.cancel();
    }
}

/// Does something again and again until cancelled; failures are told once until it works again.
async fn repeat<F: Future<Output = Result<(), RedisError>>>(
    stop: &CancellationToken,
    period: Duration,
    what: &str,
    mut work: impl FnMut() -> F,
) {
    let mut failing: Option<Instant> = None;
    while !stop.is_cancelled() {
        let pause = match work().await {
            Ok(()) => {
                if let Some(since) = failing.take() {
                    tracing::info!(after = ?since.elapsed(), "the queue goes on");
                }
                period
            }
            Err(error) => {
                if failing.is_none() {
                    failing = Some(Instant::now());
                    tracing::warn!(%error, "{what}");
                }
                RETRY
            }
        };
        let _cancelled = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
