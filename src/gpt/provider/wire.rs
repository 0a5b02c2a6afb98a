//! The JSON of `chat/completions`, as far as it is used.

use serde::{Deserialize, Serialize};

use super::{Finish, Prompt, Role, Turn};

/// Longest `name` that endpoints accept.
const MAX_NAME: usize = 64;

/// The body of a call.
#[derive(Serialize)]
pub(super) struct Request<'a> {
    model: &'a str,
    messages: Vec<Message<'a>>,
    stream: bool,
    stream_options: StreamOptions,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    content: &'a str,
}

impl<'a> Request<'a> {
    /// `completion_field`: the limit under its newer name, which some models demand and older servers do not know.
    pub(super) fn new(prompt: &'a Prompt, model: &'a str, temperature: Option<f32>, completion_field: bool) -> Self {
        Self {
            model,
            messages: prompt.turns.iter().map(message).collect(),
            stream: true,
            stream_options: StreamOptions { include_usage: true },
            temperature,
            max_tokens: (!completion_field).then_some(prompt.max_tokens),
            max_completion_tokens: completion_field.then_some(prompt.max_tokens),
        }
    }
}

fn message(turn: &Turn) -> Message<'_> {
    Message {
        role: match turn.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        },
        name: turn.name.as_deref().and_then(plain_name),
        content: &turn.text,
    }
}

/// A name in the letters that endpoints accept; one that has none of them is left out.
fn plain_name(name: &str) -> Option<String> {
    let plain: String = name
        .chars()
        .take(MAX_NAME)
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .collect();
    plain.contains(|c: char| c != '_').then_some(plain)
}

/// One event of the stream.
#[derive(Deserialize)]
pub(super) struct Chunk {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<Usage>,
    /// Some endpoints find out too late for a status.
    pub(super) error: Option<serde_json::Value>,
}

#[derive(Deserialize)]
pub(super) struct Choice {
    pub(super) delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    reasoning_content: Option<String>,
    reasoning: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Usage {
    #[serde(default)]
    pub(super) prompt_tokens: u64,
    #[serde(default)]
    pub(super) completion_tokens: u64,
}

impl Choice {
    pub(super) fn finish(&self) -> Option<Finish> {
        Some(match self.finish_reason.as_deref()? {
            "length" => Finish::Length,
            "content_filter" => Finish::Filter,
            _ => Finish::Stop,
        })
    }
}

impl Delta {
    /// Whether the model has moved on, be it by a thought that is not shown.
    pub(super) fn is_token(&self) -> bool {
        [&self.content, &self.refusal, &self.reasoning_content, &self.reasoning]
            .into_iter()
            .flatten()
            .any(|text| !text.is_empty())
    }

    /// The text for the room, without control characters other than line feed and tab.
    pub(super) fn into_text(self) -> String {
        let mut text = self.content.or(self.refusal).unwrap_or_default();
        text.retain(|c| !c.is_control() || matches!(c, '\n' | '\t'));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_what_endpoints_accept() {
        assert_eq!(plain_name("kim-2").as_deref(), Some("kim-2"));
        assert_eq!(plain_name("Ann B. <x>").as_deref(), Some("Ann_B___x_"));
        assert_eq!(plain_name("李雷"), None);
        assert_eq!(plain_name(&"n".repeat(200)).unwrap().len(), MAX_NAME);
    }

    #[test]
    fn the_limit_has_one_of_its_two_names() {
        let prompt = Prompt {
            turns: vec![Turn {
                role: Role::User,
                name: Some("kim".into()),
                text: "why".into(),
            }],
            max_tokens: 9,
        };
        let json = |newer| serde_json::to_value(Request::new(&prompt, "m", None, newer)).unwrap();
        assert_eq!(
            json(false),
            serde_json::json!({"model": "m", "messages": [{"role": "user", "name": "kim", "content": "why"}],
                "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 9})
        );
        assert_eq!(json(true)["max_completion_tokens"], 9);
        assert_eq!(json(true)["max_tokens"], serde_json::Value::Null);
    }
}
