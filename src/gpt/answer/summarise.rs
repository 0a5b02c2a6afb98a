//! After an answer: what has fallen out of the room's prompts goes into its summary.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::Answerer;
use crate::gpt::ledger::Call;
use crate::gpt::provider::{Piece, Provider, ProviderError};
use crate::gpt::summary::ToSummarise;
use crate::redis::{Claim, RedisError};

/// How long a summary may take. Nobody waits for it, but it holds the place of an answer.
const LONGEST: Duration = Duration::from_secs(60);

impl Answerer {
    /// Brings the summary of an answered question's room up to where its prompts begin. What fails is tried again after
    /// the room's next answer.
    pub async fn summarise(&self, claim: &Claim) {
        let Some(provider) = &self.provider else { return };
        let result = match self.write_summary(provider, claim).await {
            Ok(None) => return,
            Ok(Some(result)) => result,
            Err(error) => {
                tracing::warn!(room = %claim.question.room, %error, "the room's summary was not kept");
                "failed"
            }
        };
        self.metrics.gpt_summaries_total.inc([result]);
    }

    /// What became of it; `None`: there is nothing to summarise.
    async fn write_summary(&self, provider: &Provider, claim: &Claim) -> Result<Option<&'static str>, RedisError> {
        let room = &claim.question.room;
        let Some(todo) = self.prompter.to_summarise(room).await? else {
            return Ok(None);
        };
        let (mut call, mut text) = (None, String::new());
        let written = timeout(LONGEST, read(provider, &todo, &mut call, &mut text)).await;
        if let Some(call) = &call {
            self.ledger.settle_summary(claim, call, &text).await;
        }
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%room, code = error.code(), "the model wrote no summary");
                return Ok(Some("failed"));
            }
            Err(_) => return Ok(Some("timeout")),
        }
        let Some(summary) = todo.summary(&text, self.prompter.counter()) else {
            return Ok(Some("unusable"));
        };
        let kept = self.redis.keep_summary(room, todo.base, todo.known, &summary).await?;
        Ok(Some(if kept { "ok" } else { "stale" }))
    }
}

async fn read(
    provider: &Provider,
    todo: &ToSummarise,
    call: &mut Option<Call>,
    text: &mut String,
) -> Result<(), ProviderError> {
    let began = Instant::now();
    let mut pieces = provider.stream(&todo.prompt).await?;
    let call = call.insert(Call::new(pieces.model().clone(), began, todo.tokens));
    while let Some(piece) = pieces.next().await? {
        match piece {
            Piece::Text(more) => text.push_str(&more),
            Piece::Usage { prompt, completion } => call.report(prompt, completion),
            Piece::End(_) => {}
        }
    }
    Ok(())
}
