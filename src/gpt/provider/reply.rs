//! A reply as it comes: events become pieces, until the end or the first fault.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use super::breaker::Permit;
use super::{Finish, Piece, ProviderError, refusal, sse, wire};

/// Bytes read for one reply: a token of four bytes comes in some 300, and thoughts that are not shown come on top.
const MAX_STREAM: usize = 64 * 1024 * 1024;
/// How long the usage and the end mark may take after the last token; a reply is complete without them.
const TAIL_MAX: Duration = Duration::from_secs(2);

/// What a reply may take.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) first_token: Duration,
    pub(super) idle: Duration,
    pub(super) bytes: usize,
}

/// A reply under way; dropping it ends the call.
pub struct ReplyStream {
    response: Response,
    model: Arc<str>,
    parser: sse::Parser,
    limits: Limits,
    permit: Permit,
    /// Pieces read and not yet taken.
    ready: VecDeque<Piece>,
    /// How it ended, once it has.
    end: Option<Result<(), ProviderError>>,
    finish: Option<Finish>,
    usage: Option<wire::Usage>,
    /// When the next token is overdue. It stands in here so that a dropped `next` does not wind the clock back.
    until: Instant,
    begun: bool,
    bytes_read: usize,
    bytes_out: usize,
}

impl ReplyStream {
    /// Waits for the first piece; an error means that there was none.
    pub(super) async fn begin(
        response: Response,
        model: Arc<str>,
        limits: &Limits,
        until: Instant,
        permit: Permit,
    ) -> Result<Self, ProviderError> {
        let mut reply = Self {
            response,
            model,
            parser: sse::Parser::default(),
            limits: limits.clone(),
            permit,
            ready: VecDeque::new(),
            end: None,
            finish: None,
            usage: None,
            until,
            begun: false,
            bytes_read: 0,
            bytes_out: 0,
        };
        while reply.ready.is_empty() {
            if let Some(Err(error)) = reply.end {
                return Err(error);
            }
            reply.read().await;
        }
        Ok(reply)
    }

    /// The name of the model that writes it, as in the settings.
    pub fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// The next piece; `None` after [`Piece::End`], an error again and again after a fault.
    ///
    /// Cancel safe: a dropped future loses nothing, and the time for the next token runs on.
    pub async fn next(&mut self) -> Result<Option<Piece>, ProviderError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if let Some(end) = &self.end {
                return end.clone().map(|()| None);
            }
            self.read().await;
        }
    }

    /// Reads one chunk of the answer and notes what it means.
    async fn read(&mut self) {
        // What has arrived is taken before the clock is looked at: the caller may have been slow, not the endpoint.
        let outcome = match timeout_at(self.until, self.response.chunk()).await {
            Ok(Ok(Some(chunk))) => self.take(&chunk),
            Ok(Ok(None)) => Err(ProviderError::BadStream("it ends in the middle")),
            Ok(Err(_)) => Err(ProviderError::BadStream("the connection broke")),
            Err(_) if self.begun => Err(ProviderError::Timeout("further token")),
            Err(_) => Err(ProviderError::Timeout("first token")),
        };
        match outcome {
            Ok(()) => {}
            // The model has said that it is done: what may still have come is worth no error.
            Err(_) if self.finish.is_some() => self.complete(),
            Err(error) => {
                self.permit.failed(&error, std::time::Instant::now());
                self.end = Some(Err(error));
            }
        }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), ProviderError> {
        self.bytes_read += chunk.len();
        if self.bytes_read > MAX_STREAM {
            return Err(ProviderError::TooLarge);
        }
        let mut events = Vec::new();
        let parsed = self.parser.push(chunk, &mut events);
        for event in events {
            if event == b"[DONE]" {
                self.complete();
                return Ok(());
            }
            self.take_event(&event)?;
        }
        parsed.map_err(|sse::EventTooLarge| ProviderError::TooLarge)
    }

    fn take_event(&mut self, event: &[u8]) -> Result<(), ProviderError> {
        let chunk: wire::Chunk =
            serde_json::from_slice(event).map_err(|_| ProviderError::BadStream("an event is no part of a reply"))?;
        if let Some(error) = chunk.error {
            return Err(refusal::judge_event(&error));
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        // Nobody asks for a second choice.
        let Some(choice) = chunk.choices.into_iter().flatten().next() else {
            return Ok(());
        };
        let finish = choice.finish();
        if let Some(delta) = choice.delta.filter(wire::Delta::is_token) {
            self.begun = true;
            self.permit.begun();
            self.until = Instant::now() + self.limits.idle;
            let text = delta.into_text();
            self.bytes_out += text.len();
            if self.bytes_out > self.limits.bytes {
                return Err(ProviderError::TooLarge);
            }
            if !text.is_empty() {
                self.ready.push_back(Piece::Text(text));
            }
        }
        if self.finish.is_none() && finish.is_some() {
            self.finish = finish;
            self.until = Instant::now() + TAIL_MAX.min(self.limits.idle);
        }
        Ok(())
    }

    fn complete(&mut self) {
        self.permit.completed();
        if let Some(usage) = self.usage.take() {
            self.ready.push_back(Piece::Usage {
                prompt: usage.prompt_tokens,
                completion: usage.completion_tokens,
            });
        }
        self.ready.push_back(Piece::End(self.finish.unwrap_or(Finish::Stop)));
        self.end = Some(Ok(()));
    }
}
