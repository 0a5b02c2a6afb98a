//! Members that leave all the time, and come back after a while.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};

use super::member::Member;
use super::{Fleet, LOOK};
use crate::chaos::Rng;

/// Who leaves, how often, and for how long.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Of these members; those who read slowly stay.
    pub members: Range<usize>,
    /// How many leave in a second.
    pub rate: f64,
    /// For how long each is away.
    pub away: Duration,
    /// For how long members leave.
    pub lasts: Duration,
    /// Seed of who leaves.
    pub seed: u64,
}

impl Fleet {
    /// Has members leave, until the time is over and everybody is back or was refused.
    pub async fn churn(&self, churn: Churn) {
        if churn.rate <= 0.0 || churn.members.is_empty() {
            return;
        }
        let mut rng = Rng::new(churn.seed);
        let (began, mut leaves) = (Instant::now(), 0_u32);
        let mut away = FuturesUnordered::new();
        loop {
            let due = Duration::from_secs_f64(f64::from(leaves + 1) / churn.rate);
            tokio::select! {
                () = sleep_until(began + due), if due < churn.lasts => {
                    leaves += 1;
                    let members = &self.members[churn.members.clone()];
                    let first = rng.below(members.len());
                    let mut others = (0..members.len()).map(|step| &members[(first + step) % members.len()]);
                    if let Some(member) = others.find(|member| member.is_joined() && !member.is_slow()) {
                        away.push(self.send_away(member, churn.away));
                    }
                }
                Some(()) = away.next() => {}
                else => return,
            }
        }
    }

    async fn send_away(&self, member: &Arc<Member>, away: Duration) {
        self.tally.left.fetch_add(1, Ordering::Relaxed);
        member.leave().await;
        while member.is_staying() {
            sleep(LOOK).await;
        }
        sleep(away).await;
        let (entered, back) = oneshot::channel();
        let entered = move || {
            let _gone = entered.send(());
        };
        if self.enter(member, entered) {
            // Who is refused drops it, and is counted where that happens.
            let _refused = back.await;
        }
    }
}
