//! One process of a load test: its share of the rooms, so that sockets are not limited by what one process may open.
//!
//! It talks with who started it, an agent or the process that leads, over its standard streams, a line of JSON each way at a time: orders in,
//! [`Said`] out.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::time::{MissedTickBehavior, interval};

use super::line::read_line;
use super::scenario::Scenario;
use super::target::source;
use crate::fleet::tally::{Tally, Totals, histogram};
use crate::fleet::{Fleet, Seat, Talk, Verdict};

/// How long what is under way may take to arrive.
const SETTLED_MAX: Duration = Duration::from_secs(20);

/// Longest order, bytes: tokens of a few KiB for as many sockets as a process may have.
const ORDER_MAX: u64 = 256 * 1024 * 1024;

/// What a part has to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Which part, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// The whole test.
    pub scenario: Scenario,
    /// The nodes.
    pub servers: Vec<std::net::SocketAddr>,
    /// What rooms are called: `{}` stands for the number.
    pub room: String,
    /// CONNECT payloads of the part's sockets, in the order of its seats.
    pub auths: Vec<String>,
}

/// What a part says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// All its sockets are in their rooms, or have failed.
    Joined,
    /// What a second brought.
    Second(Second),
    /// It is over.
    Done(Outcome),
}

/// A second of a part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Second {
    /// The totals at its end.
    pub totals: Totals,
    /// Latencies of acks, as `(µs, how many)`.
    pub ack: Vec<(u64, u64)>,
    /// Latencies of deliveries.
    pub delivery: Vec<(u64, u64)>,
    /// Latencies of connects.
    pub connect: Vec<(u64, u64)>,
}

/// What became of a part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What became of its messages.
    pub verdict: Verdict,
    /// What was refused, by reason.
    pub refusals: std::collections::BTreeMap<String, u64>,
    /// Connections of slow readers that were cut.
    #[serde(default)]
    pub slow_cut: u64,
}

/// Which sockets a part has, by user: the rooms are dealt out, so that what is said in one is judged in one place.
pub fn users(scenario: &Scenario, part: u32, parts: u32) -> impl Iterator<Item = u32> {
    let rooms = scenario.rooms;
    (0..scenario.sockets()).filter(move |user| user % rooms % parts == part)
}

fn say(said: &Said) -> io::Result<()> {
    // Whoever listened may be gone, which is no reason to panic.
    let mut to = io::stdout().lock();
    writeln!(to, "{}", serde_json::to_string(said)?)?;
    to.flush()
}

fn second(tally: &Tally) -> Second {
    let counts = |latencies: &crate::fleet::tally::Latencies| {
        let taken = latencies.take();
        let each = taken.iter_recorded();
        each.map(|value| (value.value_iterated_to(), value.count_at_value()))
            .collect()
    };
    Second {
        totals: tally.totals(),
        ack: counts(&tally.ack),
        delivery: counts(&tally.delivery),
        connect: counts(&tally.connect),
    }
}

/// Does what the standard input orders, and says so on the standard output.
pub async fn serve() -> io::Result<()> {
    let mut orders = BufReader::new(tokio::io::stdin());
    let mut hear = async || {
        read_line(&mut orders, ORDER_MAX)
            .await?
            .ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))
    };
    let order = hear().await?;
    let order: Order = serde_json::from_str(&order)?;
    let scenario = &order.scenario;
    // The members of a room sit on different nodes, and each node has as many as the others.
    let server =
        |user: u32| order.servers[(user / scenario.rooms + user % scenario.rooms) as usize % order.servers.len()];
    let seat = |(user, auth): (u32, &String)| Seat {
        server: server(user),
        from: source(server(user), u8::try_from(order.part % 200).unwrap_or(0), user),
        room: order.room.replace("{}", &(user % scenario.rooms).to_string()).into(),
        auth: auth.as_str().into(),
        reads: scenario.reads(user),
    };
    let seats: Vec<Seat> = users(scenario, order.part, order.parts)
        .zip(&order.auths)
        .map(seat)
        .collect();
    let share = seats.len() as f64 / f64::from(scenario.sockets());
    let connects = scenario.connects_per_second * share;
    let writes: Vec<bool> = seats.iter().map(|seat| seat.reads.is_none()).collect();
    let fleet = Fleet::new(seats, |index| writes[index]);
    let tally = fleet.tally().clone();

    let seconds = async {
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            say(&Said::Second(second(&tally)))?;
        }
    };
    let work = async {
        fleet.connect(connects).await;
        say(&Said::Joined)?;
        // All parts begin together, and none where nobody leads them any more.
        hear().await?;
        let talk = Talking {
            fleet: &fleet,
            scenario,
            share,
            part: order.part,
        };
        talk.during(0..scenario.warm_up).await;
        let (begin, end) = (scenario.warm_up, scenario.warm_up + scenario.lasts);
        let half = begin + scenario.lasts / 2;
        let storm = async {
            if scenario.cut > 0.0 {
                fleet.cut((fleet.members().len() as f64 * scenario.cut) as usize).await;
                fleet.connect(connects).await;
            }
        };
        let all = async {
            talk.during(begin..half).await;
            tokio::join!(storm, talk.during(half..end));
        };
        tokio::select! {
            () = all => {}
            () = churn(&fleet, scenario.churn * share, connects) => {}
        }
        Ok::<_, io::Error>(fleet.settle(SETTLED_MAX).await)
    };
    let verdict = tokio::select! {
        verdict = work => verdict?,
        failed = seconds => return failed,
    };
    say(&Said::Second(second(&tally)))?;
    say(&Said::Done(Outcome {
        verdict,
        refusals: tally.refusals(),
        slow_cut: tally.slow_cut.load(Ordering::Relaxed),
    }))?;
    fleet.leave().await;
    Ok(())
}

/// What a part has to say.
struct Talking<'a> {
    fleet: &'a Fleet,
    scenario: &'a Scenario,
    share: f64,
    part: u32,
}

impl Talking<'_> {
    /// Talks during these seconds of the test, and waits where nobody does.
    async fn during(&self, seconds: Range<u64>) {
        if self.scenario.rates.is_empty() {
            return self.steady(seconds.start, seconds.end - seconds.start).await;
        }
        for second in seconds {
            self.steady(second, 1).await;
        }
    }

    async fn steady(&self, from: u64, seconds: u64) {
        let lasts = Duration::from_secs(seconds);
        let talk = Talk {
            rate: self.scenario.rate_at(from as f64) * self.share,
            lasts,
            bytes: self.scenario.bytes,
            poisson: self.scenario.poisson,
            seed: 1 + from * 1000 + u64::from(self.part),
        };
        tokio::join!(self.fleet.talk(talk), tokio::time::sleep(lasts));
    }
}

/// Lets sockets leave, so many a second, and come back; one after the other, whatever that does to the rate.
async fn churn(fleet: &Fleet, rate: f64, connects: f64) {
    if rate == 0.0 {
        return std::future::pending().await;
    }
    let mut leaves = interval(Duration::from_secs_f64(1.0 / rate));
    leaves.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for member in fleet.members().iter().cycle() {
        leaves.tick().await;
        fleet.part_with(member).await;
        fleet.connect(connects).await;
    }
}

/// Recorded latencies as a histogram again.
pub fn gather<'a>(counts: impl IntoIterator<Item = &'a (u64, u64)>) -> hdrhistogram::Histogram<u64> {
    let mut all = histogram();
    for (value, count) in counts {
        all.saturating_record_n(*value, *count);
    }
    all
}
