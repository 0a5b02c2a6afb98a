//! Workers that stood still, and go on with what they were at.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use roomcast::redis::{Claim, Found};

use super::{Run, WORKERS};

impl Run<'_> {
    /// Another one has taken over and begun anew.
    pub(super) async fn wake_late(&mut self, pick: Index, stores: bool) -> Result<(), TestCaseError> {
        let running = |(_, claim, number): &&(usize, Claim, usize)| self.model.is_running(*number, claim.generation);
        let running: Vec<_> = self.claims.iter().filter(running).cloned().collect();
        if running.is_empty() {
            return Ok(());
        }
        let (worker, late, number) = pick.get(&running).clone();
        self.take_over((worker + 1) % WORKERS.len(), 1000).await?;
        let last = self.claims.iter().rfind(|(_, _, other)| *other == number);
        let (_, claim, _) = last.unwrap().clone();
        prop_assert!(claim.generation > late.generation, "nobody took over");
        self.write(&claim, number, true).await?;
        if stores {
            self.store(&late, number).await
        } else {
            self.give_up(number, late.ender(), false).await
        }
    }

    /// Whoever saw the end of a claim's life does what is left to do; by now it may be the next life.
    pub(super) async fn finish_late(&mut self, pick: Index, buries: bool) -> Result<(), TestCaseError> {
        let seen = |(_, claim, number): &&(usize, Claim, usize)| self.model.has_seen_end(*number, claim.generation);
        let seen: Vec<_> = self.claims.iter().filter(seen).cloned().collect();
        if seen.is_empty() {
            return Ok(());
        }
        let (_, claim, number) = pick.get(&seen);
        if buries {
            self.bury(*number, claim.ender()).await
        } else {
            self.finish(*number, claim.ender()).await
        }
    }

    /// Somebody cancels what a worker is answering, or was when they looked.
    pub(super) async fn cancel_running(&mut self, pick: Index) -> Result<(), TestCaseError> {
        let Some(number) = self.pick(pick) else { return Ok(()) };
        let found = Found {
            question: self.question(number),
            is_running: true,
            first: pick.get(&self.model.asked[number].lives) + 1,
        };
        let noted = self.server.redis.cancel_running(&found).await.unwrap();
        prop_assert_eq!(noted, self.model.cancel_running(number, found.first));
        Ok(())
    }
}
