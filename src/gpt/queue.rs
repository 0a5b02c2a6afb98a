//! The worker's loops: questions from the outboxes into the queue, from the queue to an answer, and what is periodic.

mod repeat;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, Span};

use self::repeat::{News, RETRY, repeat};
use super::answer::{Answerer, Outcome};
use super::why::Why;
use super::words;
use crate::config::Config;
use crate::model::{RoomId, UnixMs, unix_ms};
use crate::redis::{
    Act, Asked, Budgets, Bus, Claim, Enqueued, Hold, Pause, Question, Redis, RedisError, Running, Taken,
};
use crate::telemetry::Metrics;
use crate::telemetry::trace::{self, Step};

/// How often the queue is looked at without news: a publish can be lost, and a brake ends without one.
const POLL: Duration = Duration::from_secs(1);
/// How often the outboxes are. There is one for each partition, and most are empty.
const OUTBOX_POLL: Duration = Duration::from_secs(5);
/// Questions taken from one outbox at once.
const BATCH: u64 = 100;
/// A worker that does not renew its hold for so long has lost what it was answering.
const LEASE: Duration = Duration::from_secs(30);
/// How often holds are renewed: twice within a lease, and once more.
const BEAT: Duration = Duration::from_secs(10);
/// How often delayed, stalled and overdue questions are looked for: with the lease, a crashed worker's questions are taken
/// over within 35 s.
const SWEEP: Duration = Duration::from_secs(3);
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
    bus: Bus,
    answerer: Answerer,
    metrics: Arc<Metrics>,
    /// This worker's name in the consumer group; a new one in every process.
    worker: String,
    since: UnixMs,
    life: Duration,
    parallel: usize,
    budgets: Budgets,
    slots: Arc<Semaphore>,
    /// The pause that was told of.
    paused: Mutex<Option<Pause>>,
    held: Mutex<HashMap<String, Held>>,
    tracker: TaskTracker,
    /// What nobody waits for ends with this.
    stopping: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// A queue that answers as many questions at once, each within its time, as the settings say.
    pub fn new(config: &Config, redis: Redis, bus: Bus, answerer: Answerer, metrics: Arc<Metrics>) -> Arc<Self> {
        metrics
            .gpt_slots
            .set(i64::try_from(config.gpt_parallel).unwrap_or(i64::MAX));
        Arc::new(Self {
            redis,
            bus,
            answerer,
            metrics,
            worker: format!("{:016x}", rand::random::<u64>()),
            since: unix_ms(),
            life: *config.gpt_deadline,
            parallel: config.gpt_parallel,
            budgets: Budgets {
                user: config.gpt_user_daily_tokens,
                room: config.gpt_room_daily_tokens,
            },
            slots: Arc::new(Semaphore::new(config.gpt_parallel)),
            paused: Mutex::default(),
            held: Mutex::default(),
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
        })
    }

    /// Runs until cancelled; what is being answered then is handed over.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let prepared = async {
            // A question that is taken before its room can be reached would wait for the end of its hold.
            self.redis.wait_connected().await;
            while let Err(error) = self.redis.prepare_questions().await {
                tracing::debug!(%error, "the queue is not prepared yet");
                tokio::time::sleep(RETRY).await;
            }
        };
        if stop.run_until_cancelled(prepared).await.is_none() {
            return;
        }
        let (asked, ready) = (News::of(self.bus.asked()), News::of(self.bus.ready()));
        let none = News::default;
        // A loop ends between two rounds: what was read of the queue must be claimed, or nobody takes it for a lease.
        tokio::join!(
            repeat(&stop, OUTBOX_POLL, "questions wait in their outboxes", asked, || self
                .take_in(&stop)),
            repeat(&stop, POLL, "questions are not taken", ready, || self.take(&stop)),
            repeat(&stop, SWEEP, "lost questions are not taken over", none(), || self
                .take_over(&stop)),
            repeat(&stop, SWEEP, "the queue is not swept", none(), || self.sweep()),
            repeat(&stop, BEAT, "holds are not renewed", none(), || self.beat()),
            stop.run_until_cancelled(self.follow_control()),
            async {
                stop.cancelled().await;
                self.hand_over();
            },
        );
        self.hand_over();
        self.tracker.close();
        self.tracker.wait().await;
        // Operators see it as silent for a while where this fails.
        let _unreachable = self.redis.hide_worker(&self.worker).await;
    }

    fn hand_over(&self) {
        self.stopping.cancel();
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
        for (entry, asked) in asked {
            match asked {
                // It was answered, and another worker has yet to remove it here.
                Some(asked) if self.redis.has_ended(&asked.question).await? => {}
                Some(asked) => self.enqueue(&asked).await?,
                None => tracing::error!(partition, entry, "unreadable question"),
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Ok(());
        }
        self.redis.forget_asked(partition, entries).await
    }

    async fn enqueue(&self, asked: &Asked) -> Result<(), RedisError> {
        let span = trace::continued(&asked.question.trace, Step::Queue);
        let asked = &Asked {
            question: Question {
                trace: trace::context_of(&span, &asked.question.trace),
                ..asked.question.clone()
            },
            generation: asked.generation,
        };
        let question = &asked.question;
        let code = match self.redis.enqueue_question(asked, self.life).await? {
            Enqueued::Known => return Ok(()),
            Enqueued::Queued(before) => {
                let (name, json) = words::queued(question, before);
                return self.redis.publish_gpt(&question.room, name, &json).await;
            }
            Enqueued::RoomBusy => "room_busy",
            Enqueued::UserBusy => "user_busy",
        };
        let refused = self.answerer.end(question, asked.ender(), Why::Refused(code));
        refused.await.map(drop)
    }

    /// From the queue to answers, until there is nothing more to do.
    async fn take(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), RedisError> {
        while let Some(slots) = self.free_slots(stop).await {
            let taking = self
                .redis
                .take_questions(&self.worker, slots.len() as u64, self.budgets);
            let Taken { holds, read, claims } = taking.await?;
            self.tell_pause(holds.pause);
            if read == 0 {
                break;
            }
            for (claim, slot) in claims.into_iter().zip(slots) {
                self.answer_apart(claim, slot);
            }
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

    /// Claims jobs of silent workers, given by their places and names, and answers them. What cannot be claimed now is taken
    /// over later.
    async fn start(self: &Arc<Self>, jobs: Vec<(String, String)>, slots: Vec<OwnedSemaphorePermit>) {
        let claims = jobs.iter().map(|(entry, job)| async move {
            let claim = self.redis.claim_question(&self.worker, entry, job, true, self.budgets);
            claim.await.unwrap_or_else(|error| {
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
        if claim.attempt == 1 {
            let waited = self.life.saturating_sub(claim.left);
            self.metrics.gpt_wait_seconds.observe(waited.as_secs_f64());
        }
        let span = trace::continued(&claim.question.trace, Step::Answer);
        trace::note(&span, "roomcast.room", claim.question.room.to_string());
        trace::note(
            &span,
            "roomcast.attempt",
            i64::try_from(claim.attempt).unwrap_or(i64::MAX),
        );
        let queue = self.clone();
        let answer = async move {
            queue.metrics.gpt_answering.inc();
            let timer = queue.metrics.gpt_answer_duration_seconds.start_timer();
            let outcome = queue.answer(&claim, &token, &why).await;
            timer.observe_duration();
            queue.metrics.gpt_answering.dec();
            let result = outcome.as_ref().map_or("failed", |outcome| outcome.as_str());
            queue.metrics.gpt_attempts_total.inc([result]);
            trace::note(&Span::current(), "roomcast.result", result);
            if let Err(error) = &outcome {
                tracing::warn!(job, %error, "an answer was interrupted");
                queue.give_back(&claim).await;
            }
            queue.let_go(&job, claim.generation);
            // Also where there is nothing to do it costs a look at the room, which nobody waits for.
            if matches!(outcome, Ok(Outcome::Ended)) {
                let summary = queue.answerer.summarise(&claim);
                queue.stopping.run_until_cancelled(summary).await;
            }
            drop(slot);
        };
        self.tracker.spawn(answer.instrument(span));
    }

    /// The answer under this claim is over.
    fn let_go(&self, job: &str, generation: u64) {
        let mut held = lock(&self.held);
        // This worker may have taken over from itself.
        if held.get(job).is_some_and(|held| held.running.generation == generation) {
            held.remove(job);
        }
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
    ) -> Result<Outcome, RedisError> {
        let question = &claim.question;
        if self.redis.has_ended(question).await? {
            self.redis.finish_question(question, claim.ender()).await?;
            return Ok(Outcome::Ended);
        }
        if claim.stalls > 0 {
            self.answerer.settle_lost(claim).await?;
        }
        if claim.is_cancelled {
            return self.answerer.keep_told(claim).await;
        }
        if claim.stalls >= STALLS_MAX {
            return self.answerer.end_claim(claim, Why::failed("stalled", true)).await;
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

    /// Tells once that the queue is paused, or no longer is.
    fn tell_pause(&self, pause: Option<Pause>) {
        let mut told = lock(&self.paused);
        match (&*told, &pause) {
            (None, Some(pause)) => {
                tracing::warn!(
                    by = pause.by,
                    reason = pause.reason,
                    "the queue is paused: no question is taken"
                );
            }
            (Some(_), None) => tracing::info!("the queue is not paused any more"),
            _ => {}
        }
        self.metrics.gpt_paused.set(i64::from(pause.is_some()));
        *told = pause;
    }

    async fn beat(&self) -> Result<(), RedisError> {
        self.redis.show_worker(&self.worker, self.since, self.parallel).await?;
        let running: Vec<Running> = lock(&self.held).values().map(|held| held.running.clone()).collect();
        let holds = self.redis.beat_questions(&self.worker, &running).await?;
        let held = lock(&self.held);
        for (running, hold) in running.iter().zip(holds) {
            let same = |held: &&Held| held.running.generation == running.generation;
            let Some(held) = held.get(&running.job).filter(same) else {
                continue;
            };
            match hold {
                Hold::Kept => {}
                Hold::Lost => held.interrupt(Interrupt::Lost),
                // The act came before the claim was known here.
                Hold::Cancelled => held.interrupt(Interrupt::Cancelled),
            }
        }
        Ok(())
    }

    /// Questions whose worker has fallen silent.
    async fn take_over(self: &Arc<Self>, stop: &CancellationToken) -> Result<(), RedisError> {
        while let Some(slots) = self.free_slots(stop).await {
            if self.redis.question_holds().await?.pause.is_some() {
                // To take over is to begin anew.
                break;
            }
            let mut lost = self.redis.read_stalled(&self.worker, LEASE, slots.len() as u64).await?;
            if lost.is_empty() {
                break;
            }
            lost.retain(|(_, job)| !lock(&self.held).contains_key(job));
            self.start(lost, slots).await;
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), RedisError> {
        for found in self.redis.due_questions().await? {
            let why = Why::failed("deadline", true);
            self.answerer.end(&found.question, found.ender(), why).await?;
        }
        // Who takes questions does not look while there is no room for one.
        self.tell_pause(self.redis.question_holds().await?.pause);
        Ok(())
    }

    /// Cancellations come as acts that every process hears of.
    async fn follow_control(&self) {
        let position = loop {
            match self.redis.control_position().await {
                Ok(position) => break position,
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        };
        let acts = self.redis.follow_acts(position, self.bus.control(), |act| {
            if let Act::CancelReply { room, question } = act {
                self.cancel(&room, &question);
            }
        });
        acts.await;
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
