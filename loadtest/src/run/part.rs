//! One process of a load test: its share of the rooms, so that sockets are not limited by what one process may open.
//!
//! It talks with who started it, an agent or the process that leads, over its standard streams, a line of JSON each way at a time: orders in,
//! [`Said`] out.

use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::crowd::Crowd;
use super::group::{Group, Place, places};
use super::line::read_line;
use super::scenario::Scenario;
use super::target::source;
use crate::fleet::tally::{Tally, Totals, histogram};
use crate::fleet::{Fleet, Seat, Verdict};

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
    /// Latencies of the first pieces of replies.
    #[serde(default)]
    pub first_delta: Vec<(u64, u64)>,
}

/// What became of a part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// What became of its messages.
    pub verdict: Verdict,
    /// What was refused, by reason.
    pub refusals: std::collections::BTreeMap<String, u64>,
    /// Slow readers.
    #[serde(default)]
    pub slow_readers: u64,
    /// Those of them that were not in their rooms at the end.
    #[serde(default)]
    pub slow_away: u64,
}

/// Which members a part has, group after group: the rooms are dealt out, so that what is said in one is judged in one place.
pub fn members(groups: &[Group], part: u32, parts: u32) -> impl Iterator<Item = Place> {
    places(groups).filter(move |place| place.room % parts == part)
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
        first_delta: counts(&tally.first_delta),
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
    let groups = scenario.groups();
    let places: Vec<Place> = members(&groups, order.part, order.parts).collect();
    // The members of a room sit on different nodes, and each node has as many as the others.
    let server = |place: &Place| order.servers[(place.member + place.room) as usize % order.servers.len()];
    let seat = |(place, auth): (&Place, &String)| Seat {
        server: server(place),
        from: match scenario.floods.is_empty() {
            true => source(server(place), u8::try_from(order.part % 200).unwrap_or(0), place.user),
            false => own_address(place.user),
        },
        room: order.room.replace("{}", &place.room.to_string()).into(),
        auth: auth.as_str().into(),
        slow: groups[place.group].slow(place.room_of_group, place.member),
    };
    let seats: Vec<Seat> = places.iter().zip(&order.auths).map(seat).collect();
    let share = seats.len() as f64 / f64::from(scenario.sockets());
    let connects = scenario.connects_per_second * share;
    let slow: Vec<bool> = seats.iter().map(|seat| seat.slow.is_some()).collect();
    let fleet = Fleet::new(seats, |index| !slow[index]);
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
        let crowds = groups.iter().enumerate().map(|(index, group)| {
            let begin = places.partition_point(|place| place.group < index);
            let end = places.partition_point(|place| place.group <= index);
            Crowd {
                group,
                fleet: &fleet,
                members: begin..end,
                seed: u64::from(order.part) + index as u64 * 1000,
            }
        });
        let crowds: Vec<Crowd<'_>> = crowds.collect();
        let storm = async {
            sleep(Duration::from_secs(scenario.warm_up + scenario.lasts / 2)).await;
            if scenario.cut > 0.0 {
                join_all(crowds.iter().map(|crowd| crowd.cut(scenario.cut))).await;
                fleet.connect(connects).await;
            }
        };
        let (warm_up, lasts) = (
            Duration::from_secs(scenario.warm_up),
            Duration::from_secs(scenario.lasts),
        );
        tokio::join!(storm, join_all(crowds.iter().map(|crowd| crowd.live(warm_up, lasts))));
        Ok::<_, io::Error>(fleet.settle(SETTLED_MAX).await)
    };
    let verdict = tokio::select! {
        verdict = work => verdict?,
        failed = seconds => return failed,
    };
    say(&Said::Second(second(&tally)))?;
    let (slow_readers, slow_away) = fleet.slow_readers();
    say(&Said::Done(Outcome {
        verdict,
        slow_readers,
        slow_away,
        refusals: tally.refusals(),
    }))?;
    fleet.leave().await;
    Ok(())
}

/// Where somebody comes from whom the guard must tell from attackers.
fn own_address(user: u32) -> Ipv4Addr {
    let [_, high, middle, low] = user.to_be_bytes();
    Ipv4Addr::new(127, 64 + high % 64, middle, low)
}

/// Recorded latencies as a histogram again.
pub fn gather<'a>(counts: impl IntoIterator<Item = &'a (u64, u64)>) -> hdrhistogram::Histogram<u64> {
    let mut all = histogram();
    for (value, count) in counts {
        all.saturating_record_n(*value, *count);
    }
    all
}
