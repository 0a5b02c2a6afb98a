//! Messages at a set rate, whatever the server does: each is due at its own moment, and late ones count from there.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

use super::Fleet;
use super::curve::Curve;
use super::member::Member;
use crate::chaos::Rng;

/// How often the pacer looks what is due.
const TICK: Duration = Duration::from_millis(1);
/// Sends that may wait for their sockets at once; beyond it they are counted as refused.
const WAITING_MAX: usize = 10_000;

/// What is said.
#[derive(Clone, Debug)]
pub struct Talk {
    /// Who may write, of those who do.
    pub members: Range<usize>,
    /// Messages a second, of all together.
    pub rate: Curve,
    /// For how long.
    pub lasts: Duration,
    /// Bytes of a message's text.
    pub bytes: usize,
    /// Share of the messages that are questions to the model.
    pub questions: f64,
    /// Whether messages come at random (Poisson) instead of evenly.
    pub poisson: bool,
    /// Seed of what is random.
    pub seed: u64,
}

impl Fleet {
    /// Lets members write, one after the other in a shuffled order, until the time is over.
    ///
    /// A socket that does not take its message holds up nobody: it waits apart, and its message counts from when it was due.
    pub async fn talk(&self, talk: Talk) {
        let writers = self.writers.iter().filter(|index| talk.members.contains(index));
        let mut writers: Vec<&Arc<Member>> = writers.map(|index| &self.members[*index]).collect();
        if writers.is_empty() {
            return;
        }
        let mut rng = Rng::new(talk.seed);
        for index in (1..writers.len()).rev() {
            writers.swap(index, rng.below(index + 1));
        }
        let mut gaps = Gaps {
            poisson: talk.poisson,
            rng,
        };
        let mut asking = Rng::new(talk.seed.wrapping_add(1 << 32));
        let waiting = Arc::new(Semaphore::new(WAITING_MAX));
        let (began, epoch) = (Instant::now(), self.tally.clock.now());
        let lasts = talk.lasts.as_secs_f64();
        let mut after = |due: f64| talk.rate.after(due, gaps.next()).unwrap_or(f64::INFINITY);
        let (mut due, mut next) = (after(0.0), 0);
        while due < lasts {
            while due <= began.elapsed().as_secs_f64() && due < lasts {
                // Who is away at the moment does not write.
                let mut others = (0..writers.len()).map(|step| (next + step) % writers.len());
                let writer = others.find(|index| writers[*index].is_joined()).unwrap_or(next);
                next = (writer + 1) % writers.len();
                let writer = writers[writer].clone();
                let meant = epoch + (due * 1e6) as u64;
                due = after(due);
                let asks = (asking.below(1 << 30) as f64) < talk.questions * f64::from(1 << 30);
                match waiting.clone().try_acquire_owned() {
                    Ok(place) => self.send_apart(writer, (meant, talk.bytes, asks), place).await,
                    Err(_) => self.tally.refused("not sent: too many sends wait"),
                }
            }
            sleep_until(Instant::now() + TICK).await;
        }
    }

    async fn send_apart(
        &self,
        writer: Arc<Member>,
        (meant, bytes, asks): (u64, usize, bool),
        place: tokio::sync::OwnedSemaphorePermit,
    ) {
        let mut send = Box::pin(async move {
            // A connection that breaks is noted where it is read.
            let _broken = writer.send(meant, bytes, asks).await;
            drop(place);
        });
        // Nearly always the socket takes it at once; a task of its own is for the others.
        if futures::poll!(send.as_mut()).is_pending() {
            tokio::spawn(send);
        }
    }
}

/// How far messages are apart, in mean distances.
struct Gaps {
    poisson: bool,
    rng: Rng,
}

impl Gaps {
    fn next(&mut self) -> f64 {
        if !self.poisson {
            return 1.0;
        }
        // Exponential, from a number in (0, 1].
        let uniform = (self.rng.below(1 << 30) + 1) as f64 / f64::from(1 << 30);
        -uniform.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_pauses_have_the_mean_of_even_ones() {
        let mut gaps = Gaps {
            poisson: true,
            rng: Rng::new(1),
        };
        let pauses: Vec<f64> = (0..20_000).map(|_| gaps.next()).collect();
        let mean = pauses.iter().sum::<f64>() / pauses.len() as f64;
        assert!((0.97..1.03).contains(&mean), "{mean}");
        // An even pace has no pause of twice its length; this one has a share of e^-2.
        let long = pauses.iter().filter(|pause| **pause > 2.0).count();
        assert!((2400..3000).contains(&long), "{long}");
    }
}
