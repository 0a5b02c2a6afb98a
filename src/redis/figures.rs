//! Figures of the whole cluster, for those who watch it.

use std::time::Duration;

use super::keys::{GPT_DEAD, GPT_DELAYED, GPT_OPEN, GPT_READY};
use super::script::call;
use super::{Redis, RedisError, from_ms};

/// How the queue of questions to the model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QuestionFigures {
    /// Could be answered now, and wait for a worker.
    pub ready: u64,
    /// Are being answered.
    pub running: u64,
    /// Are tried again later.
    pub delayed: u64,
    /// Stand behind others of their room or user.
    pub waiting: u64,
    /// Were given up and are kept for operators.
    pub dead: u64,
    /// How long the oldest ready one has waited.
    pub oldest_wait: Duration,
}

impl Redis {
    /// How the queue of questions stands, in one round trip.
    pub async fn question_figures(&self) -> Result<QuestionFigures, RedisError> {
        let key_names = [GPT_READY, GPT_DELAYED, GPT_OPEN, GPT_DEAD].map(str::to_owned).to_vec();
        let figures: Vec<i64> = call(&self.scripts.gpt_figures, self.any()?, key_names, vec![]).await?;
        let Ok([ready, running, delayed, open, dead, wait]) = <[i64; 6]>::try_from(figures) else {
            return Err(RedisError::Unexpected("gpt_figures"));
        };
        let [ready, running, delayed, open, dead] =
            [ready, running, delayed, open, dead].map(|n| u64::try_from(n).unwrap_or(0));
        Ok(QuestionFigures {
            ready,
            running,
            delayed,
            waiting: open.saturating_sub(ready + running + delayed),
            dead,
            oldest_wait: from_ms(wait),
        })
    }
}
