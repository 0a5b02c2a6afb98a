//! Client of OpenAI-compatible `POST {base}/chat/completions` with streaming: several endpoints in order of preference.
//!
//! [`Provider::stream`] returns when the first token is there. Until then a failing endpoint is replaced by the next
//! one, and an error means that nobody has seen anything of a reply. Afterwards nothing is tried again here: the reply
//! goes on to its end or fails. Neither key nor prompt nor the text of an answer is in any error or log line.

mod breaker;
mod endpoint;
mod error;
mod refusal;
mod reply;
mod sse;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Config, ConfigError};
use endpoint::Endpoint;
pub use error::ProviderError;
pub use reply::ReplyStream;

/// A name that does not resolve or a host that is not there is known by then; the rest of the time is the model's.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Idle connections are dropped before a server or the proxy before it drops them under a request: some do after 5 s.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Who wrote a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The operator.
    System,
    /// A member of the room.
    User,
    /// The model.
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who wrote it.
    pub role: Role,
    /// The name of the member who wrote it.
    pub name: Option<String>,
    /// What it says.
    pub text: String,
}

impl Turn {
    /// The turn as a line of a conversation that is told, not had.
    pub(super) fn as_line(&self) -> String {
        let who = match self.role {
            Role::System => "operator",
            Role::Assistant => "assistant",
            Role::User => self.name.as_deref().unwrap_or("somebody"),
        };
        format!("{who}: {}\n", self.text)
    }
}

/// What a model is asked; model and temperature come from the settings.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// System prompt first, the question last.
    pub turns: Vec<Turn>,
    /// Tokens the reply may have.
    pub max_tokens: u32,
}

/// A part of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text that follows the text so far; no control characters but line feeds and tabs, and untrusted all the same.
    Text(String),
    /// Tokens of the whole call, where the endpoint tells; at most once, before the end.
    Usage {
        /// Tokens of the prompt.
        prompt: u64,
        /// Tokens of the reply, thoughts that are not shown included.
        completion: u64,
    },
    /// The reply is complete; the last piece.
    End(Finish),
}

/// Why a reply ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model had said everything.
    Stop,
    /// It reached `max_tokens`, or the end of what the model can hold.
    Length,
    /// The endpoint's filter stopped it.
    Filter,
}

/// The endpoints of a worker; share it in an `Arc`.
pub struct Provider {
    client: reqwest::Client,
    endpoints: Vec<Arc<Endpoint>>,
    temperature: Option<f32>,
    limits: reply::Limits,
}

impl Provider {
    /// Builds the client; `None` where no `GPT_BASE_URL` is set.
    pub fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        if config.gpt_base_url.is_empty() {
            return Ok(None);
        }
        let limits = reply::Limits {
            first_token: *config.gpt_first_token_timeout,
            idle: *config.gpt_idle_timeout,
            bytes: config.gpt_max_reply_bytes,
        };
        Ok(Some(Self {
            client: build_client(config)?,
            endpoints: endpoint::from_settings(config)?,
            temperature: config.gpt_temperature,
            limits,
        }))
    }

    /// Asks the endpoints in order until one sends a first token (or a complete reply without any).
    ///
    /// Each one asked may take `GPT_FIRST_TOKEN_TIMEOUT`. Of several failures the one that promises most is the error:
    /// one after which it is worth to come back soon, else the first. Dropping the future ends the call.
    pub async fn stream(&self, prompt: &Prompt) -> Result<ReplyStream, ProviderError> {
        let mut failure: Option<ProviderError> = None;
        for endpoint in &self.endpoints {
            let outcome = match endpoint.breaker.admit(Instant::now()) {
                Ok(permit) => {
                    endpoint
                        .ask(&self.client, prompt, self.temperature, &self.limits, permit)
                        .await
                }
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            // Another endpoint would find the same fault in this prompt.
            if error.is_of_the_prompt() {
                return Err(error);
            }
            failure = Some(match failure {
                Some(known) => known.more_promising(error),
                None => error,
            });
        }
        Err(failure.unwrap_or_else(|| ProviderError::unavailable("no endpoint")))
    }
}

/// The pooled client: no redirects (they would carry the key elsewhere), no proxy from the environment.
fn build_client(config: &Config) -> Result<reqwest::Client, ConfigError> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX.min(*config.gpt_first_token_timeout))
        .pool_idle_timeout(POOL_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")));
    if config.gpt_base_url.iter().all(|url| url.as_str().starts_with("http:")) {
        // Reading the system's certificates fails in an image that has none, and nobody needs them here.
        builder = builder.tls_certs_only([]);
    }
    builder.build().map_err(|_| {
        ConfigError::new(
            "GPT_BASE_URL",
            "needs TLS, and the system's certificates cannot be read",
            "install them (for example `ca-certificates`), or use a gateway at an http:// address",
        )
    })
}
