//! The worker's loops: questions from the outboxes into the queue, from the queue to an answer, and what is periodic.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use super::answer::{Answerer, Outcome};
use super::words;
use crate::model::RoomId;
use crate::redis::{Act, Claim, Enqueued, Question, Redis, RedisError, Running};
use crate::telemetry::Metrics;
use crate::telemetry::trace::{self, Step};

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
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// A queue that answers up to `parallel` questions at once, each within `life`.
    pub fn new(redis: Redis, answerer: Answerer, parallel: usize, life: Duration, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics.gpt_slots.set(i64::try_from(parallel).unwrap_or(i64::MAX));
        Arc::new(Self {
            redis,
            answerer,
            worker: format!("{:016x}", rand::random::<u64>()),
            life,
            slots: Arc::new(Semaphore::new(parallel)),
            held: Mutex::default(),
            tracker: TaskTracker::new(),
            metrics,
        })
    }

    /// Runs until cancelled; what is being answered then is handed over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let loops = async {
            while let Err(error) = self.redis.prepare_questions().await {
                tracing::debug!(%error, "the queue is not prepared yet");
                tokio::time::sleep(RETRY).await;
            }
            tokio::join!(
                repeat(OUTBOX_POLL, "questions wait in their outboxes", || self.take_in()),
                repeat(POLL, "questions are not taken", || self.take()),
                repeat(BEAT, "holds are not renewed", || self.beat()),
                repeat(SWEEP, "the queue is not swept", || self.sweep()),
                self.follow_control(),
            );
        };
        tokio::select! {
            () = loops => {}
            () = stop.cancelled() => {}
        }
        for held in lock(&self.held).values() {
            held.interrupt(Interrupt::Stopping);
        }
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// From the outboxes into the queue. Two workers may do the same: a question is queued once.
    async fn take_in(&self) -> Result<(), RedisError> {
        for partition in self.redis.asked_partitions().await? {
            for (entry, question) in self.redis.asked(partition, BATCH).await? {
                match question {
                    // It was answered, and another worker has yet to remove it here.
                    Some(question) if self.redis.has_ended(&question).await? => {}
                    Some(question) => self.enqueue(&question).await?,
                    None => tracing::error!(partition, entry, "unreadable question"),
                }
                self.redis.forget_asked(partition, &entry).await?;
            }
        }
        Ok(())
    }

    async fn enqueue(&self, question: &Question) -> Result<(), RedisError> {
        let span = trace::continued(&question.trace, Step::Queue);
        let question = &Question {
            trace: trace::context_of(&span, &question.trace),
            ..question.clone()
        };
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

    /// From the queue to answers, as many as there is room for.
    async fn take(self: &Arc<Self>) -> Result<(), RedisError> {
        let free = self.slots.available_permits();
        if free == 0 || self.redis.questions_braked().await? {
            return Ok(());
        }
        for (entry, job) in self.redis.read_ready(&self.worker, free as u64).await? {
            self.start(&entry, &job, false).await?;
        }
        Ok(())
    }

    async fn start(self: &Arc<Self>, entry: &str, job: &str, stalled: bool) -> Result<(), RedisError> {
        let Some(claim) = self.redis.claim_question(&self.worker, entry, job, stalled).await? else {
            return Ok(());
        };
        let Ok(permit) = self.slots.clone().acquire_owned().await else {
            return Ok(());
        };
        let token = CancellationToken::new();
        let why = Arc::new(Mutex::new(None));
        let held = Held {
            running: Running {
                job: job.to_owned(),
                entry: entry.to_owned(),
                generation: claim.generation,
            },
            token: token.clone(),
            why: why.clone(),
        };
        lock(&self.held).insert(job.to_owned(), held);
        if claim.generation == 1 {
            let waited = self.life.saturating_sub(claim.left);
            self.metrics.gpt_wait_seconds.observe(waited.as_secs_f64());
        }
        let span = trace::continued(&claim.question.trace, Step::Answer);
        trace::note(&span, "roomcast.room", claim.question.room.to_string());
        trace::note(
            &span,
            "roomcast.attempt",
            i64::try_from(claim.generation).unwrap_or(i64::MAX),
        );
        let (queue, job) = (self.clone(), job.to_owned());
        let answer = async move {
            queue.metrics.gpt_answering.inc();
            let timer = queue.metrics.gpt_answer_duration_seconds.start_timer();
            let outcome = queue.answer(&claim, &token, &why).await;
            timer.observe_duration();
            queue.metrics.gpt_answering.dec();
            let result = outcome.as_ref().map_or("failed", |outcome| outcome.as_str());
            queue.metrics.gpt_attempts_total.inc([result]);
            trace::note(&Span::current(), "roomcast.result", result);
            if let Err(error) = outcome {
                // Its hold ends by itself, and another worker goes on.
                tracing::warn!(job, %error, "an answer was interrupted");
            }
            lock(&queue.held).remove(&job);
            drop(permit);
        };
        self.tracker.spawn(answer.instrument(span));
        Ok(())
    }

    async fn answer(
        &self,
        claim: &Claim,
        token: &CancellationToken,
        why: &Mutex<Option<Interrupt>>,
    ) -> Result<Outcome, RedisError> {
        let question = &claim.question;
        if self.redis.has_ended(question).await? {
            self.redis.finish_question(question).await?;
            return Ok(Outcome::Ended);
        }
        if claim.stalls >= STALLS_MAX {
            self.redis.bury_question(question, "stalled").await?;
            self.answerer.fail(question, "stalled", true).await?;
            return Ok(Outcome::Ended);
        }
        let interrupted = || {
            let token = token.clone();
            async move {
                token.cancelled().await;
                lock(why).unwrap_or(Interrupt::Lost)
            }
        };
        let outcome = self.answerer.answer(claim, interrupted()).await?;
        if let Outcome::Again(delay) = outcome {
            self.redis.put_off_question(claim, delay).await?;
        }
        Ok(outcome)
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

    async fn sweep(self: &Arc<Self>) -> Result<(), RedisError> {
        for question in self.redis.due_questions().await? {
            self.redis.bury_question(&question, "deadline").await?;
            self.answerer.fail(&question, "deadline", true).await?;
        }
        for (entry, job) in self.redis.read_stalled(&self.worker, LEASE).await? {
            let ours = lock(&self.held).contains_key(&job);
            if !ours {
                self.start(&entry, &job, true).await?;
            }
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

/// Does something again and again; failures are told once until it works again.
async fn repeat<F: Future<Output = Result<(), RedisError>>>(period: Duration, what: &str, mut work: impl FnMut() -> F) {
    let mut failing: Option<Instant> = None;
    loop {
        match work().await {
            Ok(()) => {
                if let Some(since) = failing.take() {
                    tracing::info!(after = ?since.elapsed(), "the queue goes on");
                }
                tokio::time::sleep(period).await;
            }
            Err(error) => {
                if failing.is_none() {
                    failing = Some(Instant::now());
                    tracing::warn!(%error, "{what}");
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
