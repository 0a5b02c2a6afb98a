//! A scripted model behind real HTTP, for the demo and for tests: `POST /v1/chat/completions` as [`super::provider`] asks it.
//!
//! It repeats the question in words. Commands at the beginning of the question's text, each with a comma after it, steer
//! it; a mention before them (`@gpt`) is read over. `@gpt slow 50 ms, cut after 3, why is the sky blue` is one question
//! with two commands. The same question has the same answer always, but for `once`.
//!
//! | Command | What happens |
//! |---|---|
//! | `id X` | the call is counted as `X` (else as the whole question), see [`ScriptedModel::calls`] and `GET /calls/X` |
//! | `once` | the other commands hold for the first call of this id only |
//! | `slow N ms` | a pause of N ms before each word |
//! | `stall`, `stall after N` | after N words (or none) nothing comes any more |
//! | `cut`, `cut after N` | after N words (or none) the connection breaks |
//! | `malformed`, `malformed after N` | after N words (or none) comes an event that is no JSON |
//! | `end after N` | after N words the answer ends in order, but without a finish and an end mark |
//! | `error after N` | after N words comes an error object instead of the rest |
//! | `429`, `503`, `500` | that status; `429` and `503` ask to wait for 1 s |
//! | `wait N ms` | with `429` or `503`: that is what they ask |
//! | `huge` | a reply of 5 MB |
//! | `html` | a reply full of markup |
//! | `control` | a reply with control characters between and in its words |
//! | `system` | the reply is the system prompt |
//! | `prompt` | the reply is everything the model is told, message by message |
//! | `no usage` | the tokens are not told |
//! | `page` | status 200 and a web page, as of a gateway's login |
//! | `length`, `filter` | the reply ends with that reason |
//! | `context too long`, `wrong key`, `refused` | the error a real endpoint answers |

mod answer;
mod script;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use moka::sync::Cache;
use serde::Deserialize;

use script::Script;

/// Ids whose calls are counted: ten times the questions of the longest test.
const COUNTED_MAX: u64 = 100_000;

/// The scripted model; clones share their counts.
#[derive(Clone)]
pub struct ScriptedModel {
    pace: Duration,
    key: Option<Arc<str>>,
    calls: Cache<String, u64>,
}

#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
    #[serde(default)]
    max_tokens: Option<usize>,
    #[serde(default)]
    stream: bool,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

impl ScriptedModel {
    /// A model that pauses for `pace` before each word where the question does not say otherwise.
    pub fn new(pace: Duration) -> Self {
        Self {
            pace,
            key: None,
            calls: Cache::new(COUNTED_MAX),
        }
    }

    /// The same model for those who have `key`.
    #[must_use]
    pub fn with_key(mut self, key: &str) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How often a prompt was asked: by the `id` of its question, else by the question's whole text.
    pub fn calls(&self, id: &str) -> u64 {
        self.calls.get(id).unwrap_or_default()
    }

    /// The routes; `GPT_BASE_URL` is where they are served, with `/v1`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/calls/{id}", get(count))
            .with_state(self)
    }
}

async fn count(State(model): State<ScriptedModel>, Path(id): Path<String>) -> String {
    model.calls(&id).to_string()
}

async fn complete(State(model): State<ScriptedModel>, headers: HeaderMap, Json(request): Json<Request>) -> Response {
    let expected = model.key.as_ref().map(|key| format!("Bearer {key}"));
    let given = headers.get("authorization").and_then(|value| value.to_str().ok());
    if expected.is_some() && expected.as_deref() != given {
        return answer::wrong_key();
    }
    let question = request.messages.iter().rev().find(|message| message.role == "user");
    let (Some(question), true) = (question, request.stream) else {
        return answer::error(StatusCode::BAD_REQUEST, "invalid_request_error", "ask with a stream");
    };
    let mut script = Script::read(&question.content);
    let id = script.id.take().unwrap_or_else(|| question.content.clone());
    let calls = model
        .calls
        .entry(id)
        .and_upsert_with(|known| known.map_or(1, |known| known.into_value() + 1));
    if script.content == script::Content::System {
        let system = request.messages.iter().find(|message| message.role == "system");
        script.text = system.map(|message| message.content.clone()).unwrap_or_default();
    }
    if script.content == script::Content::Prompt {
        let told: Vec<&str> = request.messages.iter().map(|message| &*message.content).collect();
        script.text = told.join("\n");
    }
    if script.once && calls.into_value() > 1 {
        script = script.plain();
    }
    let words_of_prompt = request
        .messages
        .iter()
        .map(|message| message.content.split_whitespace().count())
        .sum();
    answer::give(script, model.pace, words_of_prompt, request.max_tokens)
}
