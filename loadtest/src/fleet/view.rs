//! What one member saw of its room: each sender's messages once, in their order.

use std::collections::{HashMap, HashSet};

use super::mark::Mark;

/// A message that came, as it fits to those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The next of its sender, or after a hole that may still be filled.
    New,
    /// It had come before.
    Again,
    /// A later one of its sender had come before.
    Late,
}

/// What one member saw.
#[derive(Debug, Default)]
pub struct View {
    /// The newest number of each sender.
    newest: HashMap<u32, u32>,
    /// What is missing below that.
    missing: HashSet<(u32, u32)>,
}

impl View {
    /// Notes a message.
    pub fn note(&mut self, mark: Mark) -> Seen {
        let newest = self.newest.entry(mark.sender).or_insert(0);
        if mark.number > *newest {
            self.missing
                .extend((*newest + 1..mark.number).map(|number| (mark.sender, number)));
            *newest = mark.number;
            return Seen::New;
        }
        if self.missing.remove(&(mark.sender, mark.number)) {
            Seen::Late
        } else {
            Seen::Again
        }
    }

    /// What never came of a sender who sent `sent` messages.
    pub fn lost(&self, sender: u32, sent: u32) -> impl Iterator<Item = u32> {
        let newest = self.newest.get(&sender).copied().unwrap_or(0);
        let holes = self.missing.iter().filter(move |(of, _)| *of == sender);
        holes.map(|(_, number)| *number).chain(newest + 1..=sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sender: u32, number: u32) -> Mark {
        Mark {
            fleet: 1,
            sender,
            number,
            meant: 0,
        }
    }

    #[test]
    fn loss_repetition_and_disorder_are_told_apart() {
        let mut view = View::default();
        let seen = [1, 2, 2, 5, 4, 1].map(|number| view.note(mark(7, number)));
        assert_eq!(
            seen,
            [Seen::New, Seen::New, Seen::Again, Seen::New, Seen::Late, Seen::Again]
        );
        assert_eq!(view.note(mark(8, 1)), Seen::New);
        assert_eq!(view.lost(7, 7).collect::<Vec<_>>(), [3, 6, 7]);
        assert_eq!(view.lost(8, 1).count(), 0);
        assert_eq!(view.lost(9, 2).collect::<Vec<_>>(), [1, 2]);
    }
}
