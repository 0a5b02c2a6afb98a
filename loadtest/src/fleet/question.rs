//! The questions to a model that one member asks: each has one end, a reply or an error.

use std::collections::{HashMap, HashSet, VecDeque};

/// Errors that came before the ack of their question, of others' as well: a room has few open questions.
const EARLY_MAX: usize = 32;
/// Before the key of a question, which the scripted model says first.
const BEGIN: &[u8] = b"key:";

/// What a question is known by: who asks, which of their messages it is, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Index of the asker in its fleet.
    pub asker: u32,
    /// Which of the asker's messages.
    pub number: u32,
    /// When it was due, Unix µs.
    pub meant: u64,
}

impl Key {
    /// The beginning of a question.
    pub fn text(self) -> String {
        format!("@gpt key:{}:{}:{} ", self.asker, self.number, self.meant)
    }

    /// The first key in `bytes`.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        let begin = bytes.windows(BEGIN.len()).position(|part| part == BEGIN)? + BEGIN.len();
        let is_key = |byte: &&u8| byte.is_ascii_digit() || **byte == b':';
        let length = bytes[begin..].iter().take_while(is_key).count();
        let mut fields = std::str::from_utf8(&bytes[begin..begin + length]).ok()?.split(':');
        Some(Self {
            asker: fields.next()?.parse().ok()?,
            number: fields.next()?.parse().ok()?,
            meant: fields.next()?.parse().ok()?,
        })
    }
}

/// What one member asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Without an end, with their ids where they are acked.
    open: HashMap<u32, String>,
    begun: HashSet<u32>,
    replied: HashSet<u32>,
    early: VecDeque<(String, String)>,
}

impl Questions {
    pub(super) fn asked(&mut self, number: u32) {
        self.open.insert(number, String::new());
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open.contains_key(&number)
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// It is known by that id; the code of its error when that overtook the ack.
    pub(super) fn acked(&mut self, number: u32, id: &str) -> Option<String> {
        let known = self.open.get_mut(&number)?;
        id.clone_into(known);
        let at = self
            .early
            .iter()
            .position(|(early, _)| early.strip_suffix("-r") == Some(id))?;
        self.open.remove(&number);
        self.early.remove(at).map(|(_, code)| code)
    }

    /// It was not taken in, or nobody knows.
    pub(super) fn gone(&mut self, number: u32) {
        self.open.remove(&number);
    }

    /// Nobody here will see their ends.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// A piece of a reply came; whether it is its first.
    pub(super) fn piece(&mut self, number: u32) -> bool {
        self.is_open(number) && self.begun.insert(number)
    }

    /// The reply came; `false` when it had come before.
    pub(super) fn replied(&mut self, number: u32) -> bool {
        self.open.remove(&number);
        self.replied.insert(number)
    }

    /// The reply `id` will not come; whether the question is known to be this member's.
    pub(super) fn failed(&mut self, id: &str, code: &str) -> bool {
        let question = id.strip_suffix("-r").unwrap_or(id);
        let known = self.open.iter().find(|(_, known)| *known == question);
        if let Some(number) = known.map(|(number, _)| *number) {
            self.open.remove(&number);
            return true;
        }
        if self.early.len() == EARLY_MAX {
            self.early.pop_front();
        }
        self.early.push_back((id.to_owned(), code.to_owned()));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_where_a_reply_begins() {
        let key = Key {
            asker: 3,
            number: 9,
            meant: 1_800_000_000_000_000,
        };
        let delta = format!(
            r#"["gpt:delta",{{"idx":0,"text":"{}"}}]"#,
            key.text().trim_start_matches("@gpt ")
        );
        assert_eq!(Key::find(delta.as_bytes()), Some(key));
        assert_eq!(Key::find(br#"["gpt:delta",{"text":"word7 "}]"#), None);
    }

    #[test]
    fn each_question_has_one_end() {
        let mut questions = Questions::default();
        for number in 1..=4 {
            questions.asked(number);
        }
        assert_eq!(questions.acked(1, "a"), None);
        assert!(questions.piece(1) && !questions.piece(1) && questions.replied(1));
        assert!(!questions.replied(1), "a second reply");
        assert_eq!(questions.acked(2, "b"), None);
        assert!(questions.failed("b-r", "timeout"));
        assert!(!questions.failed("c-r", "room_busy"), "whose it is shows its ack");
        assert_eq!(questions.acked(3, "c").as_deref(), Some("room_busy"));
        assert_eq!(questions.open(), 1);
        questions.gone(4);
        assert_eq!((questions.open(), questions.piece(4)), (0, false));
    }
}
