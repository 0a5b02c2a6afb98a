//! The events of a reply that is being written, as clients get them.

use serde::Serialize;

use crate::model::RoomId;
use crate::redis::{Purse, Question};

/// A piece of a reply.
pub const DELTA: &str = "gpt:delta";
/// What was written of a reply does not count.
pub const RESET: &str = "gpt:reset";
/// There will be no reply.
pub const ERROR: &str = "gpt:error";
/// The question waits.
pub const QUEUED: &str = "gpt:queued";

#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "roomID")]
    room: &'a RoomId,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none", rename = "gen")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "idx")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retryable: Option<bool>,
}

impl<'a> Event<'a> {
    fn of(question: &'a Question) -> Self {
        Self {
            room: &question.room,
            id: question.reply(),
            generation: None,
            index: None,
            text: None,
            position: None,
            code: None,
            message: None,
            retryable: None,
        }
    }

    fn json(&self) -> String {
        // Strings and numbers always have a form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// `gpt:delta`.
pub fn delta(question: &Question, generation: u64, index: u64, text: &str) -> (&'static str, String) {
    let event = Event {
        generation: Some(generation),
        index: Some(index),
        text: Some(text),
        ..Event::of(question)
    };
    (DELTA, event.json())
}

/// `gpt:reset`.
pub fn reset(question: &Question, generation: u64) -> (&'static str, String) {
    let event = Event {
        generation: Some(generation),
        ..Event::of(question)
    };
    (RESET, event.json())
}

/// `gpt:queued`; `position` others of the room are before it.
pub fn queued(question: &Question, position: u64) -> (&'static str, String) {
    let event = Event {
        position: Some(position),
        ..Event::of(question)
    };
    (QUEUED, event.json())
}

/// `gpt:error`.
pub fn error(question: &Question, code: &str, retryable: bool) -> (&'static str, String) {
    let event = Event {
        code: Some(code),
        message: Some(explain(code)),
        retryable: Some(retryable),
        ..Event::of(question)
    };
    (ERROR, event.json())
}

/// `gpt:error` of a question that is not answered because the day's tokens are used up.
pub fn over_budget(question: &Question, purse: Purse) -> (&'static str, String) {
    let message = match purse {
        Purse::User => "Your tokens of today are used up. They begin anew at 00:00 UTC.",
        Purse::Room => "This room's tokens of today are used up. They begin anew at 00:00 UTC.",
    };
    let event = Event {
        code: Some("budget"),
        message: Some(message),
        retryable: Some(false),
        ..Event::of(question)
    };
    (ERROR, event.json())
}

/// `gpt:error` of a question that was cancelled before its reply began.
pub fn cancelled(question: &Question) -> (&'static str, String) {
    error(question, "cancelled", false)
}

/// `gpt:error` of a question that cannot be kept until a worker comes: its name and its JSON up to its id.
pub fn queue_full(room: &RoomId) -> String {
    let code = "queue_full";
    let json =
        serde_json::json!({"roomID": room, "code": code, "message": explain(code), "retryable": true}).to_string();
    let open = json.strip_suffix('}').unwrap_or_default();
    format!("{ERROR} {open}")
}

fn explain(code: &str) -> &'static str {
    match code {
        "room_busy" => "Too many questions of this room wait for an answer. Try again in a moment.",
        "user_busy" => "Too many of your questions wait for an answer. Try again in a moment.",
        "queue_full" => "Too many questions wait for an answer. Try again later.",
        "unconfigured" => "No model is set up here.",
        "cancelled" => "The answer was cancelled.",
        "deadline" | "timeout" => "The model took too long.",
        "stalled" => "The answer failed again and again.",
        "rate_limited" => "The model is busy. Try again in a moment.",
        "context_too_long" => "The conversation is too long for the model.",
        "too_large" => "The answer was too long.",
        "unauthorized" => "The model refuses this service: its operator must look at it.",
        _ => "The model could not answer.",
    }
}
