//! What became of each question, as the member who asked it saw it, and which promises that breaks.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// One broken promise about a question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the message says what the fields are")]
pub enum Violation {
    /// Neither a reply nor an error came.
    #[error("{room}: {id} has no end")]
    EndMissing { room: String, id: String },
    /// More than one end came.
    #[error("{room}: {id} has {ends} ends")]
    EndTwice { room: String, id: String, ends: usize },
    /// Replies of a room came in another order than the questions.
    #[error("{room}: {id} was answered before a question that was asked earlier")]
    Order { room: String, id: String },
    /// The reply is not what was told of its last generation.
    #[error("{room}: {id} is {reply:?}, its pieces say {pieces:?}")]
    PiecesDiffer {
        room: String,
        id: String,
        reply: String,
        pieces: String,
    },
}

/// A question and all that was told about it.
#[derive(Debug)]
pub struct Question {
    /// What the model finds it by.
    pub key: String,
    /// When it was acked.
    pub asked: Instant,
    /// When the last thing about it came.
    last: Instant,
    /// When its first piece came, and of which generation it was.
    pub first_piece: Option<(Instant, u64)>,
    generation: u64,
    pieces: String,
    /// Generation of the reply's last piece, text and arrival of each end.
    pub replies: Vec<(String, Instant)>,
    /// Codes of the errors.
    pub errors: Vec<String>,
    /// The longest silence before somebody began anew.
    pub taken_over: Option<Duration>,
}

impl Question {
    fn is_over(&self) -> bool {
        !self.replies.is_empty() || !self.errors.is_empty()
    }
}

/// The questions of one room, by the id of the reply.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The room.
    pub room: String,
    /// In the order in which they were asked.
    pub order: Vec<String>,
    /// All of them.
    pub questions: HashMap<String, Question>,
    /// Ids in the order of their replies.
    answered: Vec<String>,
    /// When the last reply of the room came: the next one could not begin before.
    freed: Option<Instant>,
}

impl Ledger {
    /// Of this room, empty.
    pub fn new(room: &str) -> Self {
        Self {
            room: room.to_owned(),
            ..Self::default()
        }
    }

    /// A question was acked.
    pub fn asked(&mut self, id: String, key: String, at: Instant) {
        self.order.push(id.clone());
        let question = Question {
            key,
            asked: at,
            last: at,
            first_piece: None,
            generation: 0,
            pieces: String::new(),
            replies: Vec::new(),
            errors: Vec::new(),
            taken_over: None,
        };
        self.questions.insert(id, question);
    }

    /// A piece came.
    pub fn piece(&mut self, id: &str, generation: u64, text: &str, at: Instant) {
        let Some(question) = self.questions.get_mut(id) else {
            return;
        };
        if generation != question.generation {
            question.generation = generation;
            question.pieces.clear();
        }
        question.first_piece.get_or_insert((at, generation));
        question.pieces.push_str(text);
        question.last = at;
    }

    /// Somebody begins anew.
    pub fn reset(&mut self, id: &str, generation: u64, at: Instant) {
        let freed = self.freed;
        let Some(question) = self.questions.get_mut(id) else {
            return;
        };
        let since = freed.map_or(question.last, |freed| freed.max(question.last));
        let silence = at.saturating_duration_since(since);
        question.taken_over = question.taken_over.max(Some(silence));
        question.generation = generation;
        question.pieces.clear();
        question.last = at;
    }

    /// The reply came.
    pub fn reply(&mut self, id: &str, text: &str, at: Instant) {
        self.freed = Some(at);
        self.answered.push(id.to_owned());
        if let Some(question) = self.questions.get_mut(id) {
            question.replies.push((text.to_owned(), at));
        }
    }

    /// An error came.
    pub fn error(&mut self, id: &str, code: &str, at: Instant) {
        self.freed = Some(at);
        if let Some(question) = self.questions.get_mut(id) {
            question.errors.push(code.to_owned());
            question.last = at;
        }
    }

    /// How many have no end yet.
    pub fn open(&self) -> usize {
        self.questions.values().filter(|question| !question.is_over()).count()
    }

    /// Every broken promise.
    pub fn judge(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for id in &self.order {
            let question = &self.questions[id];
            let (room, id) = (self.room.clone(), id.clone());
            match question.replies.len() + question.errors.len() {
                0 => violations.push(Violation::EndMissing { room, id }),
                1 => {}
                ends => violations.push(Violation::EndTwice { room, id, ends }),
            }
        }
        for (id, question) in &self.questions {
            if let Some((reply, _)) = question.replies.first().filter(|(text, _)| *text != question.pieces) {
                violations.push(Violation::PiecesDiffer {
                    room: self.room.clone(),
                    id: id.clone(),
                    reply: reply.clone(),
                    pieces: question.pieces.clone(),
                });
            }
        }
        let mut places = self.answered.iter().filter_map(|id| {
            let place = self.order.iter().position(|other| other == id)?;
            Some((place, id))
        });
        let mut highest = places.next().map_or(0, |(place, _)| place);
        for (place, id) in places {
            if place < highest {
                violations.push(Violation::Order {
                    room: self.room.clone(),
                    id: id.clone(),
                });
            }
            highest = highest.max(place);
        }
        violations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ids: &[&str]) -> Ledger {
        let mut ledger = Ledger::new("r");
        for id in ids {
            ledger.asked((*id).to_owned(), "key:1".to_owned(), Instant::now());
        }
        ledger
    }

    #[test]
    fn replies_in_order_with_the_pieces_of_their_last_generation_are_clean() {
        let (mut ledger, now) = (asked(&["a", "b"]), Instant::now());
        ledger.piece("a", 1, "lost", now);
        ledger.reset("a", 2, now + Duration::from_secs(31));
        ledger.piece("a", 2, "kept ", now);
        ledger.piece("a", 2, "too", now);
        ledger.reply("a", "kept too", now);
        ledger.error("b", "timeout", now);
        assert_eq!(ledger.judge(), Vec::new());
        assert_eq!(ledger.open(), 0);
        assert!(
            ledger.questions["a"]
                .taken_over
                .is_some_and(|silence| silence.as_secs() >= 30)
        );
    }

    #[test]
    fn every_broken_promise_has_its_name() {
        let (mut ledger, now) = (asked(&["a", "b", "c", "d"]), Instant::now());
        ledger.reply("b", "", now);
        ledger.error("b", "deadline", now);
        ledger.reply("a", "", now);
        ledger.piece("d", 1, "one", now);
        ledger.reply("d", "two", now);
        let (room, id) = ("r".to_owned(), |id: &str| id.to_owned());
        let expected = [
            Violation::EndTwice {
                room: room.clone(),
                id: id("b"),
                ends: 2,
            },
            Violation::EndMissing {
                room: room.clone(),
                id: id("c"),
            },
            Violation::PiecesDiffer {
                room: room.clone(),
                id: id("d"),
                reply: id("two"),
                pieces: id("one"),
            },
            Violation::Order { room, id: id("a") },
        ];
        assert_eq!(ledger.judge(), expected);
    }
}
