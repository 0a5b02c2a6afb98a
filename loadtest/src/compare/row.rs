//! What is measured: a load, the same for everybody, and what it costs the servers.

use std::io;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::peer::{Peer, Placement, Servers};
use crate::deployment::plan::display_as_value;
use crate::fleet::tally::Percentiles;
use crate::fleet::{Curve, Fleet, Seat, Talk, Verdict};
use crate::flood::proc::used;

/// How long what is under way may take to arrive.
const SETTLED_MAX: Duration = Duration::from_secs(15);
/// Bytes of a message's text: a short sentence.
const BYTES: usize = 80;
/// Messages before the measuring begins.
const WARM_UP: Duration = Duration::from_secs(2);
/// One in so many sockets of a peer may not get into its room: more is a peer that does not work.
const MISSED_SHARE: usize = 20;
/// How long idle sockets are left alone before their memory is read: allocators give back late.
const REST: Duration = Duration::from_secs(3);

/// A load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// Ten rooms of 100 on one server, 100 messages a second
    #[value(name = "rooms-100")]
    #[serde(rename = "rooms-100")]
    Rooms100,
    /// One room of 100 with 200 messages a second
    Hot,
    /// 100 rooms of 3 on one server, 300 messages a second
    #[value(name = "rooms-3")]
    #[serde(rename = "rooms-3")]
    Rooms3,
    /// The same beside a second server without members
    #[value(name = "rooms-3-of-2")]
    #[serde(rename = "rooms-3-of-2")]
    Rooms3Of2,
    /// The same beside two servers without members
    #[value(name = "rooms-3-of-3")]
    #[serde(rename = "rooms-3-of-3")]
    Rooms3Of3,
    /// 1000 messages a second in rooms of 3: how long acks take
    Ack,
    /// Sockets that connect and join, 200 a second
    Connect,
    /// 4000 sockets that are joined and idle
    Idle,
}
display_as_value!(Row);

/// The shape of a load.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Servers.
    pub servers: u16,
    /// Rooms, all on the first server.
    pub rooms: u32,
    /// Members of each.
    pub members: u32,
    /// Messages a second in all rooms together.
    pub rate: f64,
}

impl Row {
    /// What it consists of.
    pub fn shape(self) -> Shape {
        let shape = |servers, rooms, members, rate| Shape {
            servers,
            rooms,
            members,
            rate,
        };
        match self {
            Self::Rooms100 => shape(1, 10, 100, 100.0),
            Self::Hot => shape(1, 1, 100, 200.0),
            Self::Rooms3 => shape(1, 100, 3, 300.0),
            Self::Rooms3Of2 => shape(2, 100, 3, 300.0),
            Self::Rooms3Of3 => shape(3, 100, 3, 300.0),
            Self::Ack => shape(1, 400, 3, 1000.0),
            Self::Connect => shape(1, 20, 100, 0.0),
            Self::Idle => shape(1, 40, 100, 0.0),
        }
    }

    /// The unit of its figure.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Connect => "ms of CPU per connect",
            Self::Idle => "KiB per socket",
            Self::Ack => "ms to the ack, p99",
            _ => "µs of CPU per delivery",
        }
    }

    /// Whether a peer takes part: the floor has neither a second server nor memory worth a look.
    pub fn is_for(self, peer: Peer) -> bool {
        match peer {
            Peer::Floor => matches!(self, Self::Rooms100 | Self::Hot | Self::Rooms3),
            Peer::RoomcastFsync => self == Self::Ack,
            _ => true,
        }
    }
}

/// What one run of a load found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// The load.
    pub row: Row,
    /// The server.
    pub peer: Peer,
    /// The figure of the row, in its unit.
    pub value: f64,
    /// CPU of Redis in the same unit, where the row is about CPU.
    pub redis: Option<f64>,
    /// Resident memory of the first server before the clients came, MiB.
    pub base_mib: f64,
    /// From when a message was due to its ack.
    pub ack: Percentiles,
    /// From the same moment to a member.
    pub delivery: Percentiles,
    /// What became of the messages.
    pub verdict: Verdict,
    /// Sockets that connected and never got into their room; roomcast may have none.
    #[serde(default)]
    pub not_joined: u64,
    /// What was refused, by reason.
    pub refusals: std::collections::BTreeMap<String, u64>,
}

/// CPU of the servers and of Redis, seconds.
pub(crate) fn cpu(servers: &Servers) -> io::Result<(f64, f64)> {
    Ok((used(servers.pids())?.cpu, used(servers.redis().as_slice())?.cpu))
}

/// Resident memory of the first server, KiB.
fn resident(servers: &Servers) -> io::Result<f64> {
    Ok(used(&servers.pids()[..1])?.mib * 1024.0)
}

/// What messages cost, under a load that has warmed up.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// CPU of the servers, s.
    pub servers: f64,
    /// CPU of Redis, s.
    pub redis: f64,
    /// CPU of the workers, which archive, s.
    pub workers: f64,
    /// Messages sent.
    pub messages: f64,
    /// Copies that members received.
    pub deliveries: f64,
}

/// Has the members of a fleet write for `lasts`, and says what it cost; the tally has the latencies of that time only.
pub async fn talk(fleet: &Fleet, servers: &Servers, rate: f64, lasts: Duration) -> io::Result<Cost> {
    let tally = fleet.tally();
    let talk = |lasts, seed| Talk {
        members: 0..fleet.members().len(),
        rate: Curve::flat(rate),
        lasts,
        bytes: BYTES,
        questions: 0.0,
        poisson: true,
        seed,
    };
    fleet.talk(talk(WARM_UP, 1)).await;
    fleet.settle(SETTLED_MAX).await;
    let _warm_up = (tally.ack.take(), tally.delivery.take());
    let (before, counted) = (cpu(servers)?, tally.totals());
    let workers = used(servers.workers())?.cpu;
    fleet.talk(talk(lasts, 2)).await;
    fleet.settle(SETTLED_MAX).await;
    let (after, totals) = (cpu(servers)?, tally.totals());
    Ok(Cost {
        servers: after.0 - before.0,
        redis: after.1 - before.1,
        workers: used(servers.workers())?.cpu - workers,
        messages: (totals.sent - counted.sent) as f64,
        deliveries: (totals.received - counted.received) as f64,
    })
}

/// A fleet in these seats, all of it in its rooms. Of others a few may stay out, which is told and does not end the run.
pub async fn enter(peer: Peer, seats: Vec<Seat>, rate: f64) -> io::Result<Fleet> {
    let sockets = seats.len();
    let fleet = Fleet::new(seats, |_| true);
    fleet.connect(rate).await;
    let joined = fleet.tally().totals().joined;
    let may_miss = match peer {
        Peer::Roomcast | Peer::RoomcastFsync => 0,
        _ => sockets / MISSED_SHARE,
    };
    if joined as usize + may_miss < sockets {
        let why = fleet.tally().refusals();
        return Err(io::Error::other(format!(
            "{peer}: {joined} of {sockets} sockets joined: {why:?}"
        )));
    }
    Ok(fleet)
}

/// Puts the load on started servers for `lasts`, and measures.
pub async fn measure(row: Row, peer: Peer, servers: &Servers, lasts: Duration) -> io::Result<Finding> {
    let shape = row.shape();
    let sockets = f64::from(shape.rooms * shape.members);
    let (base, before) = (resident(servers)?, cpu(servers)?);
    let seats = servers.seats(shape.rooms, shape.members, Placement::First);
    let fleet = enter(peer, seats, if row == Row::Idle { 500.0 } else { 200.0 }).await?;
    let joined = fleet.tally().totals().joined as f64;
    let not_joined = (sockets - joined) as u64;
    let sockets = joined;
    let (mut value, mut redis);
    match row {
        Row::Connect => {
            let after = cpu(servers)?;
            value = (after.0 - before.0) * 1e3 / sockets;
            redis = Some((after.1 - before.1) * 1e3 / sockets);
        }
        Row::Idle => {
            sleep(REST).await;
            value = (resident(servers)? - base) / sockets;
            redis = None;
        }
        _ => {
            let cost = talk(&fleet, servers, shape.rate, lasts).await?;
            value = cost.servers * 1e6 / cost.deliveries;
            redis = Some(cost.redis * 1e6 / cost.deliveries);
        }
    }
    let tally = fleet.tally().clone();
    let verdict = fleet.settle(Duration::ZERO).await;
    let ack = Percentiles::of(&tally.ack.take());
    if row == Row::Ack {
        (value, redis) = (ack.p99, None);
    }
    let finding = Finding {
        row,
        peer,
        value,
        redis,
        base_mib: base / 1024.0,
        ack,
        delivery: Percentiles::of(&tally.delivery.take()),
        verdict,
        not_joined,
        refusals: tally.refusals(),
    };
    fleet.leave().await;
    Ok(finding)
}
