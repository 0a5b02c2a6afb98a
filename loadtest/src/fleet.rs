//! Thousands of stock Socket.IO clients in one process, by websocket, which check that what was sent arrives: once, in order.
//!
//! A fleet has a [`Member`] for each socket. [`Fleet::connect`] brings them into their rooms at a set rate, [`Fleet::talk`]
//! has them write at another, [`Fleet::settle`] waits for what is under way and judges. Each message carries a
//! [`mark::Mark`]; latencies count from when it was meant to go.

mod churn;
pub mod curve;
mod entry;
mod incoming;
pub mod mark;
pub mod member;
mod pace;
mod question;
mod talk;
pub mod tally;
mod view;
pub mod wire;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

pub use churn::Churn;
pub use curve::Curve;
pub use member::{Member, Seat};
pub use talk::Talk;
use tally::Tally;

/// Sockets that are on their way into their rooms at once; a server that falls behind is not drowned.
const ENTERING_MAX: usize = 500;
/// Sockets of one source address: well below the ports there are for one.
const SOCKETS_PER_ADDRESS: u32 = 10_000;
/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The sockets, and what they count.
#[derive(Debug)]
pub struct Fleet {
    members: Vec<Arc<Member>>,
    /// Who writes, by index.
    writers: Vec<usize>,
    tally: Arc<Tally>,
    /// One task for each connection.
    staying: Mutex<JoinSet<()>>,
}

/// What became of the messages of a fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Copies of acked messages that members were to receive.
    pub expected: u64,
    /// Those of them that never came.
    pub lost: u64,
    /// Questions that were asked and have neither reply nor error.
    #[serde(default)]
    pub unreplied: u64,
    /// Copies that came again.
    pub doubled: u64,
    /// Copies that came after a later message of their sender.
    pub disordered: u64,
    /// Messages that were neither acked nor refused in time.
    pub unanswered: u64,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn is_clean(&self) -> bool {
        (
            self.lost,
            self.doubled,
            self.disordered,
            self.unanswered,
            self.unreplied,
        ) == (0, 0, 0, 0, 0)
    }
}

/// An address of 127.0.0.0/8 for a socket, so that a process is not limited to the ports of one.
pub fn source(process: u8, socket: u32) -> Ipv4Addr {
    let block = socket / SOCKETS_PER_ADDRESS;
    Ipv4Addr::new(127, 10 + process % 200, (block / 250) as u8, 1 + (block % 250) as u8)
}

impl Fleet {
    /// A fleet whose sockets are not connected yet; `writes` says who writes.
    pub fn new(seats: Vec<Seat>, writes: impl Fn(usize) -> bool) -> Self {
        let (tally, fleet) = (Arc::new(Tally::default()), rand::random());
        let writers = (0..seats.len()).filter(|index| writes(*index)).collect();
        let members = (0..)
            .zip(seats)
            .map(|(index, seat)| Arc::new(Member::new(fleet, index, seat, tally.clone())));
        Self {
            members: members.collect(),
            writers,
            tally,
            staying: Mutex::default(),
        }
    }

    /// What it counts.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Its members.
    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Connects those who are not, `rate` a second, and waits until each is in its room or has failed.
    pub async fn connect(&self, rate: f64) {
        let entering = Arc::new(Semaphore::new(ENTERING_MAX));
        let began = Instant::now();
        let absent: Vec<Arc<Member>> = self
            .members
            .iter()
            .filter(|member| !member.is_staying())
            .cloned()
            .collect();
        for (index, member) in (0_u32..).zip(absent) {
            sleep_until(began + Duration::from_secs_f64(f64::from(index) / rate)).await;
            let Ok(place) = entering.clone().acquire_owned().await else {
                break;
            };
            self.enter(&member, move || drop(place));
        }
        // Who fails gives its place back as well.
        let _all = entering.acquire_many(ENTERING_MAX as u32).await;
    }

    /// Starts the task of a member; `false` when it has one.
    fn enter(&self, member: &Arc<Member>, entered: impl FnOnce() + Send + 'static) -> bool {
        if !member.may_stay() {
            return false;
        }
        let member = member.clone();
        let mut staying = self.staying.lock().unwrap_or_else(PoisonError::into_inner);
        staying.spawn(async move { member.stay(entered).await });
        while staying.try_join_next().is_some() {}
        true
    }

    /// Breaks the connections of the first `count` of these members who are not slow, as a lost network would.
    pub async fn cut(&self, members: Range<usize>, count: usize) {
        let quick = self.members[members]
            .iter()
            .filter(|member| !member.is_slow())
            .take(count);
        let cut: Vec<&Arc<Member>> = quick.filter(|member| member.is_joined()).collect();
        for member in &cut {
            member.leave().await;
        }
        while cut.iter().any(|member| member.is_staying()) {
            sleep(LOOK).await;
        }
    }

    /// Lets the slow readers among these members read as others do from now on.
    pub fn wake(&self, members: Range<usize>) {
        for member in &self.members[members] {
            member.wake();
        }
    }

    /// Slow readers, and how many of them are not in their rooms.
    pub fn slow_readers(&self) -> (u64, u64) {
        let slow = || self.members.iter().filter(|member| member.is_slow());
        let away = slow().filter(|member| !member.is_joined()).count();
        (slow().count() as u64, away as u64)
    }

    /// Waits until everything acked has come and the slow readers are back, `limit` at most, and judges.
    pub async fn settle(&self, limit: Duration) -> Verdict {
        let began = Instant::now();
        loop {
            let verdict = self.judge();
            let is_settled =
                (verdict.lost, verdict.unanswered, verdict.unreplied) == (0, 0, 0) && self.slow_readers().1 == 0;
            if is_settled || began.elapsed() > limit {
                return verdict;
            }
            sleep(LOOK * 10).await;
        }
    }

    fn judge(&self) -> Verdict {
        let mut rooms: HashMap<&str, (Vec<&Member>, Vec<&Member>)> = HashMap::new();
        for member in &self.members {
            let (all, writers) = rooms.entry(&member.seat.room).or_default();
            all.push(member);
            if member.sent() > 0 {
                writers.push(member);
            }
        }
        let totals = self.tally.totals();
        let mut verdict = Verdict {
            doubled: totals.doubled,
            disordered: totals.disordered,
            ..Verdict::default()
        };
        for (all, writers) in rooms.values() {
            let readers: Vec<&&Member> = all.iter().filter(|member| member.is_joined()).collect();
            for writer in writers {
                let open = writer.open() as u64;
                let acked = u64::from(writer.sent()) - open - writer.refusals();
                verdict.unanswered += open;
                verdict.unreplied += writer.questions() as u64;
                verdict.expected += acked * readers.len() as u64;
                verdict.lost += readers.iter().map(|reader| reader.lost_of(writer)).sum::<u64>();
            }
        }
        verdict
    }

    /// Ends all connections.
    pub async fn leave(&self) {
        for member in &self.members {
            member.leave().await;
        }
        let mut staying = std::mem::take(&mut *self.staying.lock().unwrap_or_else(PoisonError::into_inner));
        staying.shutdown().await;
        self.tally.joined.store(0, Ordering::Relaxed);
    }
}
