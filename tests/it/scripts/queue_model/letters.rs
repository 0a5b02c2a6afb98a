//! Questions that were given up, and their second chance.

use roomcast::redis::Ender;

use super::{End, Model};

/// A question that was given up.
#[derive(Debug)]
pub struct Letter {
    /// Rises from letter to letter.
    id: u64,
    pub number: usize,
    pub generation: u64,
    pub attempts: u64,
}

/// What became of a letter that was to be tried again.
#[derive(Debug, PartialEq, Eq)]
pub enum Done {
    Asked,
    Before,
    Answered,
}

impl Model {
    /// Keeps a question that has ended for operators, if it is open, and lets its room and its user go on.
    pub fn bury(&mut self, number: usize, ender: Ender) {
        if self.is_of_later_life(number, ender) {
            return;
        }
        if let Some(job) = self.jobs.get(&number) {
            self.letters_ever += 1;
            self.buried.insert(number, job.generation.max(1));
            self.letters.push(Letter {
                id: self.letters_ever,
                number,
                generation: job.generation.max(1),
                attempts: job.generation - job.base,
            });
        }
        self.finish(number, ender);
    }

    pub fn ask_again(&mut self, at: usize) -> Done {
        let Letter {
            id, number, generation, ..
        } = self.letters[at];
        if self.again.get(&number).is_some_and(|last| *last >= id) {
            return Done::Before;
        } else if self.asked[number].ended == Some(End::Reply) {
            return Done::Answered;
        }
        self.again.insert(number, id);
        let asked = &mut self.asked[number];
        asked.ended = None;
        asked.lives.push(generation);
        self.written.insert(number, (generation + 1, None, String::new()));
        let partition = asked.partition;
        self.outboxes[partition].push_back((number, generation));
        Done::Asked
    }
}
