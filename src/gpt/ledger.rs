//! What calls of the model take: settled once each, before the question that they are for ends.
//!
//! The next question of the same user or room is claimed after that end, so budgets are exceeded by one call at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::window::TokenCounter;
use crate::redis::{Claim, Question, Redis, RedisError, Spent};
use crate::telemetry::Metrics;

/// Attempts to settle a call: an outage that lasts longer keeps the reply itself from being stored.
const TRIES: u32 = 3;
/// Pause between them.
const PAUSE: Duration = Duration::from_millis(300);

/// Stands for the model of a worker that fell silent.
const UNKNOWN: &str = "-";

/// A call of the model: an endpoint has begun to answer.
#[derive(Debug)]
pub(super) struct Call {
    model: Arc<str>,
    asked: Instant,
    /// Tokens of the prompt as counted here.
    prompt: usize,
    /// Tokens of prompt and reply as the endpoint counts them.
    reported: Option<(u64, u64)>,
}

impl Call {
    /// A call to `model` with a prompt of so many tokens.
    pub(super) fn new(model: Arc<str>, asked: Instant, prompt: usize) -> Self {
        Self {
            model,
            asked,
            prompt,
            reported: None,
        }
    }

    /// The endpoint's own count.
    pub(super) fn report(&mut self, prompt: u64, completion: u64) {
        // Gateways that count nothing say so by zeros.
        if prompt > 0 || completion > 0 {
            self.reported = Some((prompt, completion));
        }
    }
}

/// Keeps the account of calls.
pub(super) struct Ledger {
    redis: Redis,
    counter: Arc<TokenCounter>,
    /// Calls that are recorded.
    records: u32,
    metrics: Arc<Metrics>,
}

impl Ledger {
    pub(super) fn new(redis: Redis, counter: Arc<TokenCounter>, records: u32, metrics: Arc<Metrics>) -> Self {
        Self {
            redis,
            counter,
            records,
            metrics,
        }
    }

    /// Settles a call that has ended with `result` after `text`. Where Redis does not take it, the log has it.
    pub(super) async fn settle(&self, claim: &Claim, call: &Call, text: &str, result: &str) {
        self.settle_for(claim, call, text, result, false).await;
    }

    /// As [`Self::settle`], of a call for the room's summary.
    pub(super) async fn settle_summary(&self, claim: &Claim, call: &Call, text: &str) {
        self.settle_for(claim, call, text, "summary", true).await;
    }

    async fn settle_for(&self, claim: &Claim, call: &Call, text: &str, result: &str, summary: bool) {
        let (prompt, completion) = call
            .reported
            .unwrap_or_else(|| (call.prompt as u64, self.counter.count(text) as u64));
        let spent = Spent {
            generation: claim.generation,
            model: &call.model,
            prompt,
            completion,
            reported: call.reported.is_some(),
            took: call.asked.elapsed(),
            result,
            summary,
        };
        let mut failure = None;
        for attempt in 0..TRIES {
            if attempt > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            match self.enter(&claim.question, &spent).await {
                Ok(()) => return,
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            let (user, room) = (&claim.question.user, &claim.question.room);
            tracing::error!(%user, %room, prompt, completion, %error, "tokens of a call are not counted");
        }
    }

    /// Settles the call of the worker that fell silent over this question: what it told the room is known, and its prompt
    /// was about this one.
    pub(super) async fn settle_lost(&self, claim: &Claim, prompt: usize, told: &str) -> Result<(), RedisError> {
        let spent = Spent {
            generation: claim.generation - 1,
            model: UNKNOWN,
            prompt: prompt as u64,
            completion: self.counter.count(told) as u64,
            reported: false,
            took: Duration::ZERO,
            result: "lost",
            summary: false,
        };
        self.enter(&claim.question, &spent).await
    }

    async fn enter(&self, question: &Question, spent: &Spent<'_>) -> Result<(), RedisError> {
        if self.redis.settle_call(question, spent, self.records).await? {
            self.metrics.gpt_tokens_total.add(["prompt"], spent.prompt);
            self.metrics.gpt_tokens_total.add(["completion"], spent.completion);
        }
        Ok(())
    }
}
