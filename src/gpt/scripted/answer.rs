//! The HTTP answers of the scripted model.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};

use super::script::{Content, Fault, Refusal, Script};

/// The size of a huge reply, and of its words: larger than anybody's limit, in few events.
const HUGE: usize = 5 * 1024 * 1024;
const HUGE_WORD: usize = 16 * 1024;
/// Markup that would do something on a page which shows a reply as HTML.
const HTML: &str = "<h1>Hi</h1> <script>alert(1)</script> <img src=x onerror=alert(2)> &amp; done";
/// Bell, escape sequences, a NUL and C1 controls; line feed and tab are text.
const CONTROL: &str = "a\u{7}b \u{1b}[31mred\u{1b}[0m c\u{0}d\r\ne\tf \u{9b}1mg\u{7f}h";

/// A part of the answer's body.
enum Part {
    Event(String),
    Pause(Duration),
    Stall,
    Cut,
}

pub(super) fn give(script: Script, pace: Duration, words_of_prompt: usize, max_tokens: Option<usize>) -> Response {
    match script.refusal {
        Some(Refusal::Status(status)) => {
            let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = error(code, "busy", "come back later");
            if status != 500 {
                // The standard header knows whole seconds only.
                let header = match script.wait.subsec_millis() {
                    0 => ("retry-after", script.wait.as_secs().to_string()),
                    _ => ("retry-after-ms", script.wait.as_millis().to_string()),
                };
                response = ([header], response).into_response();
            }
            response
        }
        Some(Refusal::ContextTooLong) => error(
            StatusCode::BAD_REQUEST,
            "context_length_exceeded",
            "This model's maximum context length is 8192 tokens. Please reduce the length of the messages.",
        ),
        Some(Refusal::WrongKey) => wrong_key(),
        Some(Refusal::Refused) => error(StatusCode::BAD_REQUEST, "invalid_prompt", "I would rather not"),
        Some(Refusal::Page) => axum::response::Html("<html><body>Please log in</body></html>").into_response(),
        None => reply(&script, pace, words_of_prompt, max_tokens),
    }
}

pub(super) fn wrong_key() -> Response {
    error(
        StatusCode::UNAUTHORIZED,
        "invalid_api_key",
        "Incorrect API key provided",
    )
}

pub(super) fn error(status: StatusCode, code: &str, message: &str) -> Response {
    let body = json!({ "error": { "message": message, "type": "error", "code": code } });
    (status, Json(body)).into_response()
}

fn reply(script: &Script, pace: Duration, words_of_prompt: usize, max_tokens: Option<usize>) -> Response {
    let mut words = words(script);
    let mut finish = script.finish;
    // As real servers do; a huge reply is the one that does not keep to the limit.
    if let Some(max) = max_tokens.filter(|max| *max < words.len() && script.content != Content::Huge) {
        words.truncate(max);
        finish = "length";
    }
    let pause = script.pause.unwrap_or(pace);
    let mut parts = vec![chunk(json!({ "role": "assistant", "content": "" }), Value::Null)];
    let completion = words.len();
    let whole = script.fault.map_or(usize::MAX, |(after, _)| after);
    for word in words.into_iter().take(whole) {
        if !pause.is_zero() {
            parts.push(Part::Pause(pause));
        }
        parts.push(chunk(json!({ "content": word }), Value::Null));
    }
    match script.fault.map(|(_, fault)| fault) {
        Some(Fault::Stall) => parts.push(Part::Stall),
        Some(Fault::Cut) => parts.push(Part::Cut),
        Some(Fault::Malformed) => parts.push(event("{\"choices\": [{\"delta\"")),
        Some(Fault::Error) => parts.push(event(
            &json!({ "error": { "message": "overloaded", "type": "server_error" } }).to_string(),
        )),
        Some(Fault::EndEarly) => {}
        None => {
            parts.push(chunk(json!({}), json!(finish)));
            let usage = json!({ "prompt_tokens": words_of_prompt, "completion_tokens": completion });
            if script.counts {
                parts.push(event(&json!({ "choices": [], "usage": usage }).to_string()));
            }
            parts.push(event("[DONE]"));
        }
    }
    let body = Body::from_stream(stream::iter(parts).filter_map(play));
    ([(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")], body).into_response()
}

async fn play(part: Part) -> Option<io::Result<String>> {
    match part {
        Part::Event(text) => Some(Ok(text)),
        Part::Pause(pause) => {
            tokio::time::sleep(pause).await;
            None
        }
        Part::Stall => std::future::pending().await,
        Part::Cut => {
            // Let what was written so far leave first: an error discards what is still in the buffer.
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some(Err(io::Error::other("cut")))
        }
    }
}

fn words(script: &Script) -> Vec<String> {
    let text = match script.content {
        Content::Huge => return vec!["x".repeat(HUGE_WORD); HUGE / HUGE_WORD],
        Content::Html => HTML.to_owned(),
        Content::Control => CONTROL.to_owned(),
        Content::System | Content::Prompt => script.text.clone(),
        Content::Echo if script.text.is_empty() => "You asked nothing.".to_owned(),
        Content::Echo => format!("You asked: {}", script.text),
    };
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn chunk(delta: Value, finish: Value) -> Part {
    let body = json!({ "object": "chat.completion.chunk", "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
    event(&body.to_string())
}

fn event(data: &str) -> Part {
    Part::Event(format!("data: {data}\n\n"))
}
