//! What became of the drafts of a post.

use std::str::FromStr;

use crate::model::{Epoch, Seq, UnixMs};

/// Where a stored event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The message it is, or changes.
    pub id: String,
    /// Its number.
    pub seq: Seq,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its server time.
    pub ts: UnixMs,
    /// Whether an earlier post had stored it.
    pub dup: bool,
}

/// What became of a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Posted {
    /// It is in the log.
    Stored(Receipt),
    /// Its `cid` stands for other content.
    Conflict,
    /// The room was deleted.
    RoomGone,
    /// Somebody else wrote the message it would change.
    NotAuthor,
    /// There is no such message.
    NotFound,
    /// The message it would change is older than the log: the archive knows its author.
    Elsewhere,
    /// The archive's backlog is full.
    Backlog,
    /// A later claim writes this reply.
    Superseded,
}

/// What `post` answers of one draft.
pub(super) struct Outcome {
    pub posted: Posted,
    /// The nodes that a new event was handed to; `None` of what is no new event.
    pub receivers: Option<u64>,
    /// Whether its question found the outbox full.
    pub is_unqueued: bool,
}

impl Outcome {
    /// A line of texts: `status`, and of what is stored `status seq ts epoch receivers unqueued id`.
    fn read(line: &str) -> Option<Self> {
        let posted = match line {
            "conflict" => Posted::Conflict,
            "room_gone" => Posted::RoomGone,
            "not_author" => Posted::NotAuthor,
            "not_found" => Posted::NotFound,
            "elsewhere" => Posted::Elsewhere,
            "backlog" => Posted::Backlog,
            "superseded" => Posted::Superseded,
            _ => return Self::stored(line),
        };
        Some(Self {
            posted,
            receivers: None,
            is_unqueued: false,
        })
    }

    fn stored(line: &str) -> Option<Self> {
        // The id comes last, because that of an old message may be any text.
        let mut parts = line.splitn(7, ' ');
        let dup = match parts.next()? {
            "ok" => false,
            "dup" => true,
            _ => return None,
        };
        let (seq, ts, epoch) = (number(parts.next()?)?, number(parts.next()?)?, parts.next()?);
        let (receivers, unqueued) = (parts.next()?, parts.next()?);
        let receipt = Receipt {
            id: parts.next()?.to_owned(),
            seq,
            epoch: Epoch::from(epoch),
            ts,
            dup,
        };
        Some(Self {
            posted: Posted::Stored(receipt),
            receivers: number(receivers),
            is_unqueued: unqueued == "1",
        })
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// The epoch and the outcomes of so many drafts.
pub(super) fn read(answer: &[String], drafts: usize) -> Option<(&str, Vec<Outcome>)> {
    let (epoch, lines) = answer.split_first()?;
    let outcomes: Vec<Outcome> = lines.iter().map(|line| Outcome::read(line)).collect::<Option<_>>()?;
    (outcomes.len() == drafts).then_some((&**epoch, outcomes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(id: &str, dup: bool) -> Posted {
        Posted::Stored(Receipt {
            id: id.to_owned(),
            seq: 7,
            epoch: Epoch::from("e-1"),
            ts: 1700,
            dup,
        })
    }

    #[test]
    fn new_event_tells_who_got_it_and_whether_its_question_waits() {
        let found = Outcome::read("ok 7 1700 e-1 3 1 1700-7").unwrap();
        assert_eq!(found.posted, stored("1700-7", false));
        assert_eq!((found.receivers, found.is_unqueued), (Some(3), true));
    }

    #[test]
    fn repeated_event_was_handed_to_nobody() {
        let found = Outcome::read("dup 7 1700 e-1 - 0 1700-7").unwrap();
        assert_eq!(found.posted, stored("1700-7", true));
        assert_eq!((found.receivers, found.is_unqueued), (None, false));
    }

    #[test]
    fn id_of_an_old_message_may_have_spaces_and_line_ends() {
        let found = Outcome::read("ok 7 1700 e-1 0 0 an old\n id ").unwrap();
        assert_eq!(found.posted, stored("an old\n id ", false));
    }

    #[test]
    fn answer_with_too_few_lines_or_none_that_is_known_is_none() {
        let answer = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert!(read(&answer(&["e-1", "conflict"]), 1).is_some());
        for lines in [&["e-1"][..], &["e-1", "perhaps"], &["e-1", "ok 7 1700 e-1"], &[]] {
            assert!(read(&answer(lines), 1).is_none(), "{lines:?}");
        }
    }
}
