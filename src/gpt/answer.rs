//! One answer: the prompt, the model's pieces told to the room as they come, and exactly one end.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::provider::{Piece, Prompt, Provider, ProviderError};
use super::queue::Interrupt;
use super::window::{Ask, TokenCounter, choose};
use super::words;
use crate::config::{Config, ConfigError};
use crate::model::{EventKind, InvalidId, Position, RoomEvent, RoomId, UserId};
use crate::redis::{
    After, Authority, Claim, Draft, PageLimit, Part, PostLimits, Posted, Question, Redis, RedisError, Take,
};
use crate::telemetry::Metrics;
use crate::telemetry::trace::{self, Step};

/// Pieces are told together that come within this time: every message costs every member a packet.
const COALESCE: Duration = Duration::from_millis(25);
/// Or as soon as they have this many bytes.
const COALESCE_BYTES: usize = 512;
/// Claims of one question before it is given up.
const ATTEMPTS_MAX: u64 = 4;
/// The first attempt after a failure comes within this time, each further one within twice as much.
const BACKOFF: Duration = Duration::from_secs(2);
/// How long all workers hold back where the provider does not say.
const BRAKE: Duration = Duration::from_secs(5);
/// Longest hold that a provider can make us keep.
const BRAKE_MAX: Duration = Duration::from_secs(60);
/// Events of a room that may become part of a prompt.
const HISTORY_MAX: usize = 200;
/// Who writes replies.
const AUTHOR: &str = "gpt";

/// What became of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The question has its end.
    Ended,
    /// Somebody else has it.
    Lost,
    /// It is to be tried again after this time, by whomever.
    Again(Duration),
}

impl Outcome {
    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Lost => "lost",
            Self::Again(_) => "again",
        }
    }
}

/// Rooms whose last prompt's beginning is remembered, for the discount on what the endpoint knows already.
const STARTS_MAX: u64 = 10_000;

/// Makes message objects of a room's events: edits applied, deleted ones left out, ascending.
pub type Fold = fn(Vec<RoomEvent>) -> Vec<Box<RawValue>>;

/// The model, and what it is told.
pub struct Model {
    /// The way to it; without one every question ends with an error that says so.
    pub provider: Option<Provider>,
    /// What it is told first.
    pub system_prompt: String,
    /// Tokens of a prompt.
    pub context_tokens: u32,
    /// Tokens of a reply.
    pub max_tokens: u32,
}

impl Model {
    /// The model of the settings.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            provider: Provider::new(config)?,
            system_prompt: config.gpt_system_prompt.clone(),
            context_tokens: config.gpt_context_tokens,
            max_tokens: config.gpt_max_tokens,
        })
    }
}

/// Answers claimed questions.
pub struct Answerer {
    redis: Redis,
    model: Model,
    fold: Fold,
    limits: PostLimits,
    metrics: Arc<Metrics>,
    author: UserId,
    counter: TokenCounter,
    /// Where the last prompt of a room began.
    starts: moka::sync::Cache<RoomId, String>,
}

/// A reply that is being written.
struct Reply<'a> {
    claim: &'a Claim,
    /// Everything so far.
    text: String,
    /// What of it is not told yet, from here on.
    told: usize,
    index: u64,
}

/// How the model's stream ended.
enum Stream {
    Complete,
    Interrupted(Interrupt),
    Failed(ProviderError),
    /// The question has ended, or somebody else writes: nothing was told.
    Refused,
    OutOfTime,
}

impl Answerer {
    /// Answers with `model`, out of what `fold` makes of a room's events.
    pub fn new(
        redis: Redis,
        model: Model,
        fold: Fold,
        limits: PostLimits,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidId> {
        Ok(Self {
            redis,
            model,
            fold,
            limits,
            metrics,
            author: UserId::new(AUTHOR)?,
            counter: TokenCounter::new(),
            starts: moka::sync::Cache::new(STARTS_MAX),
        })
    }

    /// Ends a question with an error, unless it has ended, and lets its room and its user go on.
    pub async fn fail(&self, question: &Question, code: &'static str, retryable: bool) -> Result<(), RedisError> {
        let (name, json) = words::error(question, code, retryable);
        let ended = self.redis.fail_question(question, (name, &json)).await?;
        if ended == crate::redis::Ended::Now {
            self.metrics.gpt_replies_total.inc([code]);
        }
        self.redis.finish_question(question).await
    }

    /// Answers a claimed question; `interrupted` resolves when it is to end before its time.
    pub async fn answer(
        &self,
        claim: &Claim,
        interrupted: impl Future<Output = Interrupt>,
    ) -> Result<Outcome, RedisError> {
        let question = &claim.question;
        let Some(provider) = &self.model.provider else {
            self.fail(question, "unconfigured", false).await?;
            return Ok(Outcome::Ended);
        };
        if claim.left.is_zero() {
            self.fail(question, "deadline", true).await?;
            return Ok(Outcome::Ended);
        }
        if claim.generation > 1 {
            let (name, json) = words::reset(question, claim.generation);
            let part = Part {
                generation: claim.generation,
                index: None,
                text: "",
                event: (name, &json),
            };
            if !self.redis.write_part(question, part).await? {
                self.redis.finish_question_if_ended(question).await?;
                return Ok(Outcome::Lost);
            }
        }
        let mut reply = Reply {
            claim,
            text: String::new(),
            told: 0,
            index: 0,
        };
        let Some(prompt) = self.prompt(question).await? else {
            // It was deleted, or has no text.
            self.fail(question, "cancelled", false).await?;
            return Ok(Outcome::Ended);
        };
        match self.stream(provider, &prompt, &mut reply, interrupted).await? {
            Stream::Complete => self.store(&reply, false).await,
            Stream::Interrupted(Interrupt::Cancelled) if reply.text.is_empty() => {
                self.fail(question, "cancelled", false).await?;
                Ok(Outcome::Ended)
            }
            Stream::Interrupted(Interrupt::Cancelled) => self.store(&reply, true).await,
            Stream::Interrupted(Interrupt::Stopping) => Ok(Outcome::Again(Duration::ZERO)),
            Stream::Interrupted(Interrupt::Lost) => Ok(Outcome::Lost),
            Stream::Refused => {
                self.redis.finish_question_if_ended(question).await?;
                Ok(Outcome::Lost)
            }
            Stream::OutOfTime => {
                self.fail(question, "deadline", true).await?;
                Ok(Outcome::Ended)
            }
            Stream::Failed(error) => self.failed(claim, &error).await,
        }
    }

    async fn failed(&self, claim: &Claim, error: &ProviderError) -> Result<Outcome, RedisError> {
        tracing::warn!(
            code = error.code(),
            generation = claim.generation,
            "the model did not answer"
        );
        let wait = error.retry_after().map(|wait| wait.min(BRAKE_MAX));
        if error.code() == "rate_limited" {
            self.redis.brake_questions(wait.unwrap_or(BRAKE)).await?;
        }
        if error.retryable() && claim.generation < ATTEMPTS_MAX {
            // Full jitter: those that failed together do not come back together.
            let ceiling = BACKOFF * 2_u32.saturating_pow(u32::try_from(claim.generation).unwrap_or(u32::MAX) - 1);
            let jitter = rand::rng().random_range(Duration::from_millis(50)..=ceiling);
            return Ok(Outcome::Again(wait.unwrap_or_default() + jitter));
        }
        if !error.retryable() {
            self.redis.bury_question(&claim.question, error.code()).await?;
        }
        self.fail(&claim.question, error.code(), error.retryable()).await?;
        Ok(Outcome::Ended)
    }

    /// The room's newest messages up to the question, as a prompt; `None` where nothing is asked any more.
    async fn prompt(&self, question: &Question) -> Result<Option<Prompt>, RedisError> {
        let mut events = self
            .redis
            .read_log(
                &question.room,
                After::Start,
                Take::Newest,
                PageLimit::events(HISTORY_MAX),
                false,
            )
            .await?
            .events;
        let asked: Option<Position> = question.id.parse().ok();
        if let Some(asked) = asked.filter(|asked| events.first().is_some_and(|first| first.position > *asked)) {
            // So much was said since that it is not among the newest.
            let before = After::Seq(asked.seq.saturating_sub(1));
            let limit = PageLimit::events(1);
            let page = self
                .redis
                .read_log(&question.room, before, Take::Oldest, limit, false)
                .await?;
            events.splice(0..0, page.events);
        }
        let messages = (self.fold)(events);
        let id = format!("\"id\":\"{}\"", question.id);
        let Some(asked) = messages.iter().find(|message| message.get().contains(&id)) else {
            return Ok(None);
        };
        let start = self.starts.get(&question.room);
        let room: Vec<&RawValue> = messages.iter().map(|message| &**message).collect();
        let ask = Ask {
            system: &self.model.system_prompt,
            room: &room,
            question: asked,
            start: start.as_deref(),
            budget: self.model.context_tokens as usize,
        };
        let Some(window) = choose(&ask, &self.counter) else {
            return Ok(None);
        };
        if let Some(start) = window.start {
            self.starts.insert(question.room.clone(), start);
        }
        Ok(Some(Prompt {
            turns: window.turns,
            max_tokens: self.model.max_tokens,
        }))
    }

    /// Tells the model's pieces to the room until there are no more.
    async fn stream(
        &self,
        provider: &Provider,
        prompt: &Prompt,
        reply: &mut Reply<'_>,
        interrupted: impl Future<Output = Interrupt>,
    ) -> Result<Stream, RedisError> {
        let started = Instant::now();
        let deadline = started + reply.claim.left;
        tokio::pin!(interrupted);
        // It ends with the model's last token.
        let model = trace::within(Step::Model);
        let mut pieces = tokio::select! {
            pieces = provider.stream(prompt) => match pieces {
                Ok(pieces) => pieces,
                Err(error) => return Ok(Stream::Failed(error)),
            },
            why = &mut interrupted => return Ok(Stream::Interrupted(why)),
            () = tokio::time::sleep_until(deadline) => return Ok(Stream::OutOfTime),
        };
        trace::mark(&model, "first token");
        let to_first = started.elapsed();
        self.metrics.gpt_first_token_seconds.observe(to_first.as_secs_f64());
        // When what waits is to be told.
        let mut due: Option<Instant> = None;
        let end = loop {
            let tell_at = due.unwrap_or(deadline);
            tokio::select! {
                biased;
                why = &mut interrupted => break Stream::Interrupted(why),
                () = tokio::time::sleep_until(tell_at) => {
                    if due.take().is_none() {
                        break Stream::OutOfTime;
                    }
                    if !self.tell(reply).await? {
                        return Ok(Stream::Refused);
                    }
                }
                piece = pieces.next() => match piece {
                    Ok(Some(Piece::Text(text))) => {
                        reply.text.push_str(&text);
                        if reply.text.len() - reply.told >= COALESCE_BYTES {
                            due = None;
                            if !self.tell(reply).await? {
                                return Ok(Stream::Refused);
                            }
                        } else {
                            due.get_or_insert_with(|| Instant::now() + COALESCE);
                        }
                    }
                    Ok(Some(Piece::Usage { prompt, completion })) => {
                        self.metrics.gpt_tokens_total.add(["prompt"], prompt);
                        self.metrics.gpt_tokens_total.add(["completion"], completion);
                    }
                    Ok(Some(Piece::End(_))) => {}
                    Ok(None) => break Stream::Complete,
                    Err(error) => return Ok(Stream::Failed(error)),
                },
            }
        };
        drop((pieces, model));
        let told = reply.told == reply.text.len() || self.tell(reply).await?;
        Ok(if told { end } else { Stream::Refused })
    }

    /// Tells what waits; `false` when the question has ended, or somebody else writes.
    async fn tell(&self, reply: &mut Reply<'_>) -> Result<bool, RedisError> {
        let (question, generation) = (&reply.claim.question, reply.claim.generation);
        let text = &reply.text[reply.told..];
        let (name, json) = words::delta(question, generation, reply.index, text);
        let part = Part {
            generation,
            index: Some(reply.index),
            text,
            event: (name, &json),
        };
        let delta = trace::within(Step::Delta);
        let told = self.redis.write_part(question, part).instrument(delta).await?;
        reply.told = reply.text.len();
        reply.index += 1;
        Ok(told)
    }

    /// Puts the reply into the room's log, unless the question has ended, and lets its room and its user go on.
    async fn store(&self, reply: &Reply<'_>, cancelled: bool) -> Result<Outcome, RedisError> {
        let question = &reply.claim.question;
        let mut message = serde_json::json!({
            "roomID": question.room,
            "platformid": AUTHOR,
            "username": AUTHOR,
            "message": reply.text,
            "kind": EventKind::Gpt.as_str(),
            "gpt": true,
            "replyTo": question.id,
        });
        if cancelled {
            message["cancelled"] = true.into();
        }
        let mut prefix = message.to_string();
        prefix.pop();
        let draft = Draft {
            prefix,
            kind: EventKind::Gpt,
            user: self.author.clone(),
            target: None,
            authority: Authority::Author,
            cid: None,
            hash: 0,
            trace: trace::context_of(&Span::current(), &question.trace),
            asks: false,
            answers: Some(question.id.clone()),
        };
        let posted = self
            .redis
            .post(&question.room, std::slice::from_ref(&draft), self.limits)
            .await?;
        match posted.into_iter().next() {
            Some(Posted::Stored(receipt)) if !receipt.dup => {
                let result = if cancelled { "partial" } else { "ok" };
                self.metrics.gpt_replies_total.inc([result]);
            }
            // It had ended before, or its room is gone.
            Some(Posted::Stored(_) | Posted::Conflict | Posted::RoomGone) => {}
            _ => return Ok(Outcome::Again(BACKOFF)),
        }
        self.redis.forget_parts(question).await?;
        self.redis.finish_question(question).await?;
        Ok(Outcome::Ended)
    }
}
