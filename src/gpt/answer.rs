//! One answer: the prompt, the model's pieces told to the room as they come, and exactly one end.

mod summarise;

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::ledger::{Call, Ledger};
use super::prompt::{Asked, Prompter};
use super::provider::{Piece, Provider, ProviderError};
use super::queue::Interrupt;
use super::why::Why;
use super::words;
use crate::config::Config;
use crate::model::{EventKind, InvalidId, UserId};
use crate::redis::{
    Answers, Authority, Claim, Draft, Ended, Ender, Part, PostLimits, Posted, Question, Redis, RedisError,
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

/// Answers claimed questions.
pub struct Answerer {
    redis: Redis,
    /// The way to the model; without one every question ends with an error that says so.
    provider: Option<Provider>,
    prompter: Prompter,
    ledger: Ledger,
    limits: PostLimits,
    metrics: Arc<Metrics>,
    author: UserId,
}

/// A reply that is being written.
struct Reply<'a> {
    claim: &'a Claim,
    /// Everything so far.
    text: String,
    /// What of it is not told yet, from here on.
    told: usize,
    index: u64,
    /// The call that brings it, once an endpoint has begun to answer.
    call: Option<Call>,
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

impl Stream {
    /// The word for it where calls are recorded.
    fn result(&self) -> &'static str {
        match self {
            Self::Complete => "ok",
            Self::Interrupted(Interrupt::Cancelled) => "cancelled",
            Self::Interrupted(Interrupt::Stopping) => "handed_over",
            Self::Interrupted(Interrupt::Lost) | Self::Refused => "lost",
            Self::Failed(error) => error.code(),
            Self::OutOfTime => "deadline",
        }
    }
}

impl Answerer {
    /// Answers by asking `provider` what `prompter` makes of a question.
    pub fn new(
        config: &Config,
        redis: Redis,
        provider: Option<Provider>,
        prompter: Prompter,
        metrics: Arc<Metrics>,
    ) -> Result<Self, InvalidId> {
        let (counter, records) = (prompter.counter().clone(), config.gpt_usage_entries);
        Ok(Self {
            ledger: Ledger::new(redis.clone(), counter, records, metrics.clone()),
            redis,
            provider,
            prompter,
            limits: PostLimits {
                log_max_len: config.log_max_len,
                archive_max_bytes: config.archive_max_bytes,
            },
            metrics,
            author: UserId::new(AUTHOR)?,
        })
    }

    /// Ends a question without a reply, unless it has ended or a later claim writes one, and lets its room and its user go on.
    pub async fn end(&self, question: &Question, ender: Ender, why: Why) -> Result<Outcome, RedisError> {
        let (name, json) = why.event(question);
        let (code, kept) = (why.code(), why.is_kept());
        match self.redis.fail_question(question, ender, (name, &json)).await? {
            Ended::Superseded => return Ok(Outcome::Lost),
            Ended::Before => self.redis.finish_question(question, ender).await?,
            Ended::Now => {
                self.metrics.gpt_replies_total.inc([code]);
                if kept {
                    tracing::warn!(room = %question.room, question = question.id, code, "a question was given up");
                    self.redis.bury_question(question, ender, code).await?;
                } else {
                    self.redis.finish_question(question, ender).await?;
                }
            }
        }
        Ok(Outcome::Ended)
    }

    /// As [`Self::end`], by whoever has the claim.
    pub async fn end_claim(&self, claim: &Claim, why: Why) -> Result<Outcome, RedisError> {
        self.end(&claim.question, claim.ender(), why).await
    }

    /// Answers a claimed question; `interrupted` resolves when it is to end before its time.
    pub async fn answer(
        &self,
        claim: &Claim,
        interrupted: impl Future<Output = Interrupt>,
    ) -> Result<Outcome, RedisError> {
        let question = &claim.question;
        let Some(provider) = &self.provider else {
            return self.end_claim(claim, Why::failed("unconfigured", false)).await;
        };
        if claim.left.is_zero() {
            return self.end_claim(claim, Why::failed("deadline", true)).await;
        }
        if let Some(purse) = claim.spent {
            return self.end_claim(claim, Why::OverBudget(purse)).await;
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
                self.redis.finish_question_if_ended(question, claim.ender()).await?;
                return Ok(Outcome::Lost);
            }
        }
        let mut reply = Reply {
            claim,
            text: String::new(),
            told: 0,
            index: 0,
            call: None,
        };
        let Some(asked) = self.prompter.prompt(question).await? else {
            // It was deleted, or has no text.
            return self.end_claim(claim, Why::Cancelled).await;
        };
        let stream = self.stream(provider, &asked, &mut reply, interrupted).await;
        if let Some(call) = &reply.call {
            let result = stream.as_ref().map_or("lost", Stream::result);
            self.ledger.settle(claim, call, &reply.text, result).await;
        }
        match stream? {
            Stream::Complete => self.store(claim, &reply.text, false).await,
            Stream::Interrupted(Interrupt::Cancelled) if reply.text.is_empty() => {
                self.end_claim(claim, Why::Cancelled).await
            }
            Stream::Interrupted(Interrupt::Cancelled) => self.store(claim, &reply.text, true).await,
            Stream::Interrupted(Interrupt::Stopping) => Ok(Outcome::Again(Duration::ZERO)),
            Stream::Interrupted(Interrupt::Lost) => Ok(Outcome::Lost),
            Stream::Refused => {
                self.redis.finish_question_if_ended(question, claim.ender()).await?;
                Ok(Outcome::Lost)
            }
            Stream::OutOfTime => self.end_claim(claim, Why::failed("deadline", true)).await,
            Stream::Failed(error) => self.failed(claim, &error).await,
        }
    }

    /// Settles the call of a worker that fell silent over this question, before what it told is forgotten.
    pub async fn settle_lost(&self, claim: &Claim) -> Result<(), RedisError> {
        let told = self.told_before(&claim.question).await?;
        // Without a piece of it there may have been no call.
        let Some((_, told)) = told.filter(|(generation, _)| *generation == claim.generation - 1) else {
            return Ok(());
        };
        let asked = self.prompter.prompt(&claim.question).await?;
        let tokens = asked.map_or(0, |asked| asked.tokens);
        self.ledger.settle_lost(claim, tokens, &told).await
    }

    /// What the room was told of the reply, and under which claim.
    async fn told_before(&self, question: &Question) -> Result<Option<(u64, String)>, RedisError> {
        let id = question.reply();
        let parts = self.redis.parts(&question.room).await?;
        let told = parts.into_iter().find(|(of, _, index, _)| *of == id && index.is_some());
        Ok(told.map(|(_, generation, _, text)| (generation, text)))
    }

    /// Ends a question that was cancelled under another claim: what the room was told is the reply.
    pub async fn keep_told(&self, claim: &Claim) -> Result<Outcome, RedisError> {
        match self.told_before(&claim.question).await? {
            Some((_, text)) => self.store(claim, &text, true).await,
            None => self.end_claim(claim, Why::Cancelled).await,
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
        if error.retryable() && claim.attempt < ATTEMPTS_MAX {
            // Full jitter: those that failed together do not come back together.
            let ceiling =
                BACKOFF * 2_u32.saturating_pow(u32::try_from(claim.attempt).unwrap_or(u32::MAX).saturating_sub(1));
            let jitter = rand::rng().random_range(Duration::from_millis(50)..=ceiling);
            return Ok(Outcome::Again(wait.unwrap_or_default() + jitter));
        }
        self.end_claim(claim, Why::failed(error.code(), error.retryable()))
            .await
    }

    /// Tells the model's pieces to the room until there are no more.
    async fn stream(
        &self,
        provider: &Provider,
        asked: &Asked,
        reply: &mut Reply<'_>,
        interrupted: impl Future<Output = Interrupt>,
    ) -> Result<Stream, RedisError> {
        let begun = Instant::now();
        let deadline = begun + reply.claim.left;
        tokio::pin!(interrupted);
        // It ends with the model's last token.
        let model = trace::within(Step::Model);
        let mut pieces = tokio::select! {
            pieces = provider.stream(&asked.prompt) => match pieces {
                Ok(pieces) => pieces,
                Err(error) => return Ok(Stream::Failed(error)),
            },
            why = &mut interrupted => return Ok(Stream::Interrupted(why)),
            () = tokio::time::sleep_until(deadline) => return Ok(Stream::OutOfTime),
        };
        trace::mark(&model, "first token");
        self.metrics
            .gpt_first_token_seconds
            .observe(begun.elapsed().as_secs_f64());
        reply.call = Some(Call::new(pieces.model().clone(), begun, asked.tokens));
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
                        if let Some(call) = &mut reply.call {
                            call.report(prompt, completion);
                        }
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
    async fn store(&self, claim: &Claim, text: &str, cancelled: bool) -> Result<Outcome, RedisError> {
        let question = &claim.question;
        let mut message = serde_json::json!({
            "roomID": question.room,
            "platformid": AUTHOR,
            "username": AUTHOR,
            "message": text,
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
            asks: None,
            answers: Some(Answers {
                question: question.id.clone(),
                generation: claim.generation,
            }),
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
            Some(Posted::Superseded) => return Ok(Outcome::Lost),
            _ => return Ok(Outcome::Again(BACKOFF)),
        }
        self.redis.finish_question(question, claim.ender()).await?;
        Ok(Outcome::Ended)
    }
}
