//! Which of a room's messages go into a prompt: the newest that fit, in whole, the question last.
//!
//! A prompt grows at its end from question to question, and providers charge less for a beginning they know already. So
//! the beginning stays where it was until the prompt would be over budget; then it moves on until four fifths of the
//! budget are used, which lasts for a while again. Where it was is the caller's to remember ([`Window::start`]); without
//! it only the discount is lost.

mod tokens;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::provider::{Role, Turn};
use crate::model::Seq;
pub use tokens::TokenCounter;

/// What endpoints add to each message for its role and its borders, in tokens.
const TOKENS_PER_TURN: usize = 4;

/// What a prompt is made of.
pub struct Ask<'a> {
    /// What the model is told first; empty: nothing.
    pub system: &'a str,
    /// The room's newest messages, ascending: message objects with edits applied and deleted ones left out.
    pub room: &'a [&'a RawValue],
    /// The message that asks. Where the room has it too, its text there (perhaps edited) counts.
    pub question: &'a RawValue,
    /// The start of the room's last prompt.
    pub start: Option<&'a str>,
    /// What was said before, in few words.
    pub summary: Option<&'a str>,
    /// Tokens the prompt may have.
    pub budget: usize,
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// System prompt, messages, question.
    pub turns: Vec<Turn>,
    /// Id of the first message; give it to the room's next prompt.
    pub start: Option<String>,
    /// Tokens of all turns; an estimate where the model is not one of OpenAI's.
    pub tokens: usize,
}

/// A message as it is in a prompt.
struct Line<'a> {
    id: Cow<'a, str>,
    /// 0 in what was archived before messages had numbers.
    seq: Seq,
    turn: Turn,
}

/// Chooses the messages of a prompt; `None` where the question has no text.
///
/// System prompt and question are always in it, over budget or not. Messages that came after the question are left out;
/// replies that came after it are not: a room's replies are written in order, so they answer earlier questions.
pub fn choose(ask: &Ask<'_>, counter: &TokenCounter) -> Option<Window> {
    let mut question = read(ask.question)?;
    let mut lines: Vec<Line<'_>> = Vec::with_capacity(ask.room.len());
    let mut asked = false;
    for json in ask.room {
        let Some(line) = read(json) else { continue };
        if line.id == question.id {
            asked = true;
            question = line;
        } else if !asked || line.turn.role == Role::Assistant {
            lines.push(line);
        }
    }
    question.turn.role = Role::User;
    let system = (!ask.system.is_empty()).then(|| Turn {
        role: Role::System,
        name: None,
        text: ask.system.to_owned(),
    });
    let summary = ask.summary.map(summary_turn);
    let before: Vec<Turn> = system.into_iter().chain(summary).collect();
    let fixed = before
        .iter()
        .chain([&question.turn])
        .map(|turn| count(turn, counter))
        .sum();
    let first = first_line(&lines, ask, fixed, counter);
    let lines = lines.split_off(first);

    let tokens = fixed + lines.iter().map(|line| count(&line.turn, counter)).sum::<usize>();
    let start = lines.first().unwrap_or(&question).id.to_string();
    let turns = before
        .into_iter()
        .chain(lines.into_iter().chain([question]).map(|line| line.turn))
        .collect();
    Some(Window {
        turns,
        start: Some(start),
        tokens,
    })
}

/// What was said in a room and is in no prompt any more.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// A line for each message, with its author.
    pub text: String,
    /// Number of the newest.
    pub seq: Seq,
    /// Tokens of the text.
    pub tokens: usize,
}

/// The messages before the one at which the room's prompts begin and after the one numbered `after`: of more than `budget`
/// tokens the newest.
pub fn left_out(room: &[&RawValue], start: &str, after: Seq, budget: usize, counter: &TokenCounter) -> Option<LeftOut> {
    let lines: Vec<Line<'_>> = room.iter().filter_map(|json| read(json)).collect();
    let end = lines.iter().position(|line| line.id == start)?;
    let lines = lines[..end].iter().filter(|line| line.seq > after);
    let seq = lines.clone().map(|line| line.seq).max()?;
    let (mut texts, mut tokens) = (Vec::new(), 0);
    for line in lines.rev() {
        let text = line.turn.as_line();
        let more = counter.count(&text);
        if tokens + more > budget {
            break;
        }
        tokens += more;
        texts.push(text);
    }
    texts.reverse();
    let text = texts.concat();
    Some(LeftOut { text, seq, tokens })
}

/// What was said before, as a turn. It is made of what members wrote, so it must not speak as the operator does.
fn summary_turn(summary: &str) -> Turn {
    Turn {
        role: Role::User,
        name: None,
        text: format!("(What was said before, in short: {summary})"),
    }
}

/// The index of the first line that is in the prompt; lines before it are not counted, a long room costs nothing.
fn first_line(lines: &[Line<'_>], ask: &Ask<'_>, fixed: usize, counter: &TokenCounter) -> usize {
    let kept = ask
        .start
        .and_then(|id| lines.iter().position(|line| line.id == id))
        .unwrap_or(0);
    let (mut used, mut first, mut within_target) = (fixed, kept, lines.len());
    for (index, line) in lines.iter().enumerate().skip(kept).rev() {
        used += count(&line.turn, counter);
        if used > ask.budget {
            first = within_target;
            break;
        }
        if used <= ask.budget / 5 * 4 {
            within_target = index;
        }
    }
    // A reply without its question would be taken for the model's own idea.
    let to_user = lines[first..]
        .iter()
        .take_while(|line| line.turn.role != Role::User)
        .count();
    first + to_user
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    seq: Seq,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    username: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

/// A message object as a line; `None` for what has no text (a picture) or is no message.
fn read<'a>(json: &'a RawValue) -> Option<Line<'a>> {
    let head: Head<'a> = serde_json::from_str(json.get()).ok()?;
    let text = head.message.trim();
    if text.is_empty() || matches!(&*head.kind, "edit" | "delete") {
        return None;
    }
    let (role, name) = match &*head.kind {
        "gpt" => (Role::Assistant, None),
        _ => (Role::User, head.username.map(Cow::into_owned)),
    };
    Some(Line {
        id: head.id,
        seq: head.seq,
        turn: Turn {
            role,
            name,
            text: text.to_owned(),
        },
    })
}

fn count(turn: &Turn, counter: &TokenCounter) -> usize {
    let name = turn.name.as_deref().map_or(0, |name| counter.count(name) + 1);
    TOKENS_PER_TURN + name + counter.count(&turn.text)
}

#[cfg(test)]
mod tests;
