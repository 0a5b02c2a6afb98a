//! What the text of a question tells the scripted model to do.

use std::time::Duration;

/// What is sent instead of a reply, or how a reply breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Stall,
    Cut,
    Malformed,
    EndEarly,
    Error,
}

/// An answer that is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Status(u16),
    ContextTooLong,
    WrongKey,
    Refused,
    Page,
}

/// What the reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Echo,
    Huge,
    Html,
    Control,
    System,
    Prompt,
}

/// The commands of a question, and its text after them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) id: Option<String>,
    pub(super) once: bool,
    pub(super) pause: Option<Duration>,
    /// After how many words what breaks.
    pub(super) fault: Option<(usize, Fault)>,
    pub(super) refusal: Option<Refusal>,
    pub(super) wait: Duration,
    pub(super) content: Content,
    pub(super) finish: &'static str,
    pub(super) counts: bool,
    pub(super) text: String,
}

impl Script {
    pub(super) fn read(question: &str) -> Self {
        let mut script = Self::of_text(String::new());
        let mut rest = question.trim_start();
        if rest.starts_with('@') {
            rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
        }
        while !rest.trim().is_empty() {
            let (command, after) = rest.split_once(',').unwrap_or((rest, ""));
            if !script.obey(command) {
                break;
            }
            rest = after;
        }
        script.text = rest.trim().to_owned();
        script
    }

    /// The same question without its commands.
    pub(super) fn plain(self) -> Self {
        Self::of_text(self.text)
    }

    fn of_text(text: String) -> Self {
        Self {
            id: None,
            once: false,
            pause: None,
            fault: None,
            refusal: None,
            wait: Duration::from_secs(1),
            content: Content::Echo,
            finish: "stop",
            counts: true,
            text,
        }
    }

    /// Whether `command` is one.
    fn obey(&mut self, command: &str) -> bool {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (words, number) = match words.as_slice() {
            [verb @ .., number, "ms"] | [verb @ .., "after", number] => match number.parse() {
                Ok(number) => (verb.join(" "), Some(number)),
                Err(_) => return false,
            },
            ["id", id] => {
                self.id = Some((*id).to_owned());
                return true;
            }
            words => (words.join(" "), None),
        };
        let after = usize::try_from(number.unwrap_or_default()).unwrap_or(usize::MAX);
        match (words.as_str(), number) {
            ("once", None) => self.once = true,
            ("slow", Some(ms)) => self.pause = Some(Duration::from_millis(ms)),
            ("wait", Some(ms)) => self.wait = Duration::from_millis(ms),
            ("stall", _) => self.fault = Some((after, Fault::Stall)),
            ("cut", _) => self.fault = Some((after, Fault::Cut)),
            ("malformed", _) => self.fault = Some((after, Fault::Malformed)),
            ("end", Some(_)) => self.fault = Some((after, Fault::EndEarly)),
            ("error", Some(_)) => self.fault = Some((after, Fault::Error)),
            ("429", None) => self.refusal = Some(Refusal::Status(429)),
            ("503", None) => self.refusal = Some(Refusal::Status(503)),
            ("500", None) => self.refusal = Some(Refusal::Status(500)),
            ("context too long", None) => self.refusal = Some(Refusal::ContextTooLong),
            ("wrong key", None) => self.refusal = Some(Refusal::WrongKey),
            ("refused", None) => self.refusal = Some(Refusal::Refused),
            ("page", None) => self.refusal = Some(Refusal::Page),
            ("huge", None) => self.content = Content::Huge,
            ("html", None) => self.content = Content::Html,
            ("control", None) => self.content = Content::Control,
            ("system", None) => self.content = Content::System,
            ("prompt", None) => self.content = Content::Prompt,
            ("no usage", None) => self.counts = false,
            ("length", None) => self.finish = "length",
            ("filter", None) => self.finish = "content_filter",
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_end_where_the_question_begins() {
        let script = Script::read("@gpt id q1, once, slow 50 ms, cut after 3, why, if it is blue, 429");
        assert_eq!(script.id.as_deref(), Some("q1"));
        assert!(script.once);
        assert_eq!(script.pause, Some(Duration::from_millis(50)));
        assert_eq!(script.fault, Some((3, Fault::Cut)));
        assert_eq!(script.refusal, None);
        assert_eq!(script.text, "why, if it is blue, 429");
        assert_eq!(script.plain(), Script::of_text("why, if it is blue, 429".into()));
    }

    #[test]
    fn what_only_resembles_a_command_is_text() {
        for text in [
            "stall the engine",
            "is 429 an error",
            "slow ms",
            "cut after noon, please",
            "id",
            "",
        ] {
            assert_eq!(Script::read(text), Script::of_text(text.into()));
        }
        assert_eq!(Script::read("@gpt 429").refusal, Some(Refusal::Status(429)));
        assert_eq!(Script::read("stall").fault, Some((0, Fault::Stall)));
    }
}
