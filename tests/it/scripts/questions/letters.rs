//! What operators do to the queue: it stands still for a while, and what was given up is asked once more.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use roomcast::redis::{Again, Ended, Ender, Letter};

use super::{HOUR_MS, Run};
use crate::scripts::queue_model::letters::Done;

/// Why questions are given up here.
const REASON: &str = "stalled";

impl Run<'_> {
    /// Ends a question with an error and keeps it for operators; whoever does it may die in between.
    pub(super) async fn give_up(&mut self, number: usize, ender: Ender, dies: bool) -> Result<(), TestCaseError> {
        match self.fail(number, ender).await? {
            Ended::Superseded => Ok(()),
            _ if dies => Ok(()),
            Ended::Before => self.finish(number, ender).await,
            Ended::Now => self.bury(number, ender).await,
        }
    }

    pub(super) async fn bury(&mut self, number: usize, ender: Ender) -> Result<(), TestCaseError> {
        let question = self.question(number);
        self.server.redis.bury_question(&question, ender, REASON).await.unwrap();
        self.model.bury(number, ender);
        Ok(())
    }

    async fn letters(&self) -> Vec<Letter> {
        self.server.redis.dead_between("-", "+", 1000).await.unwrap()
    }

    /// There is a dead letter of what was given up, and of nothing else.
    pub(super) async fn letters_match(&mut self) -> Result<(), TestCaseError> {
        let found = self.letters().await;
        prop_assert_eq!(found.len(), self.model.letters.len(), "dead letters: {:?}", found);
        for (found, expected) in found.into_iter().zip(&self.model.letters) {
            prop_assert_eq!(found.to_question(), self.question(expected.number));
            prop_assert_eq!(found.reason, REASON);
            prop_assert_eq!(
                (found.generation, found.attempts),
                (expected.generation, expected.attempts)
            );
        }
        Ok(())
    }

    pub(super) async fn ask_again(&mut self, pick: Index, dies: bool) -> Result<(), TestCaseError> {
        if self.model.letters.is_empty() {
            return Ok(());
        }
        let at = pick.index(self.model.letters.len());
        self.ask_again_for(at, dies).await
    }

    pub(super) async fn ask_again_and_again(&mut self, pick: Index) -> Result<(), TestCaseError> {
        if self.model.letters.is_empty()
            && let Some(number) = self.pick(pick)
        {
            self.give_up(number, self.finder(number), false).await?;
        }
        if self.model.letters.is_empty() {
            return Ok(());
        }
        let at = pick.index(self.model.letters.len());
        let (number, generation) = (self.model.letters[at].number, self.model.letters[at].generation);
        self.ask_again_for(at, true).await?;
        if self.model.asked[number].ended.is_none() {
            self.enqueue(number, generation).await?;
            self.give_up(number, self.finder(number), false).await?;
            self.ask_again_for(self.model.letters.len() - 1, true).await?;
            self.ask_again_for(at, false).await?;
        }
        Ok(())
    }

    async fn ask_again_for(&mut self, at: usize, dies: bool) -> Result<(), TestCaseError> {
        let letters = self.letters().await;
        let json = serde_json::json!({ "id": letters[at].to_question().reply() }).to_string();
        let done = self.server.redis.ask_again(&letters[at], ("gpt:reset", &json)).await;
        let done = match done.unwrap() {
            Again::Asked => Done::Asked,
            Again::Before => Done::Before,
            Again::Answered => Done::Answered,
        };
        prop_assert_eq!(done, self.model.ask_again(at));
        if !dies {
            let forgotten = self.server.redis.forget_dead(vec![letters[at].id.clone()]).await;
            prop_assert_eq!(forgotten.unwrap(), 1);
            self.model.letters.remove(at);
        }
        Ok(())
    }

    pub(super) async fn pause(&mut self) -> Result<(), TestCaseError> {
        let new = self.server.redis.pause_questions("me", "why").await.unwrap();
        prop_assert_eq!(new, !self.model.paused);
        self.model.paused = true;
        self.pause_matches().await
    }

    /// Lets an hour of a pause pass: no question's time may pass with it.
    pub(super) async fn resume(&mut self) -> Result<(), TestCaseError> {
        if self.model.paused {
            // To the queue it is the same when everything that it remembers was an hour earlier.
            let earlier = format!("-{HOUR_MS}");
            let wire = &mut self.server.wire;
            wire.call(&["HINCRBY", "rc:{gpt}:pause", "since", &earlier]).await;
            for number in self.model.jobs.keys() {
                let job = self.model.asked[*number].question.job();
                let key = format!("rc:{{gpt}}:job:{job}");
                wire.call(&["HINCRBY", &key, "deadline", &earlier]).await;
                wire.call(&["ZINCRBY", "rc:{gpt}:open", &earlier, &job]).await;
            }
            prop_assert_eq!(self.server.redis.due_questions().await.unwrap(), vec![]);
        }
        let paused = self.server.redis.resume_questions().await.unwrap();
        prop_assert_eq!(paused.is_some(), self.model.paused);
        prop_assert!(paused.is_none_or(|paused| paused.as_millis() >= u128::from(HOUR_MS)));
        self.model.paused = false;
        prop_assert_eq!(self.server.redis.due_questions().await.unwrap(), vec![]);
        self.pause_matches().await
    }

    async fn pause_matches(&mut self) -> Result<(), TestCaseError> {
        let holds = self.server.redis.question_holds().await.unwrap();
        prop_assert_eq!(holds.pause.is_some(), self.model.paused);
        Ok(())
    }
}
