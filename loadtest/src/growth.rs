//! What a message costs as a deployment grows: more nodes, more rooms of a user, larger rooms.

mod resting;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub use resting::Rested;

use crate::compare::{Peer, Placement, Programs, Servers, enter, machine, talk};
use crate::deployment::plan::display_as_value;
use crate::fleet::tally::Percentiles;
use crate::harness::{HarnessError, Say, find_binary, run_in_folder};

/// Sockets that connect in a second.
const CONNECTS_PER_SECOND: f64 = 200.0;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Series {
    /// Nodes 1, 2, 4, 8; all members on one: the others must cost nothing
    NodesLocal,
    /// The same; the members of each room on different nodes
    NodesSpread,
    /// Rooms that each user belongs to: 1, 20, 200
    RoomsOfUser,
    /// Members of a room: 3, 30, 300, 3000, 10 000
    RoomSize,
    /// Messages a second in rooms of 3: 100, 300, 1000
    Rate,
    /// Sockets that come and then are idle for a minute: 500, 4000
    Resting,
}
display_as_value!(Series);

/// Measures roomcast at each size of a series: CPU of nodes and of Redis, and how long a message takes.
///
/// Exit code: 0 it was measured, 1 a message was lost, doubled or disordered, 2 it could not run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Only these series
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Series>,
    /// How long each load lasts, s
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Write every figure to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// roomcast [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
}

/// One size of a series.
struct Size {
    grown: u32,
    nodes: u16,
    rooms: u32,
    members: u32,
    more_rooms: u32,
    placement: Placement,
    rate: f64,
}

/// What a series begins with.
const BASE: Size = Size {
    grown: 1,
    nodes: 1,
    rooms: 100,
    members: 3,
    more_rooms: 0,
    placement: Placement::First,
    rate: 300.0,
};

impl Series {
    fn sizes(self) -> Vec<Size> {
        let nodes = |placement| {
            let size = |nodes: u16| Size {
                grown: nodes.into(),
                nodes,
                placement,
                ..BASE
            };
            [1, 2, 4, 8].map(size).into()
        };
        match self {
            Self::NodesLocal => nodes(Placement::First),
            Self::NodesSpread => nodes(Placement::Members),
            Self::RoomsOfUser => [1, 20, 200]
                .map(|grown| Size {
                    grown,
                    rooms: 20,
                    more_rooms: grown - 1,
                    ..BASE
                })
                .into(),
            // About as many deliveries each.
            Self::RoomSize => [3, 30, 300, 3000, 10_000]
                .map(|members| Size {
                    grown: members,
                    rooms: (300 / members).max(1),
                    members,
                    rate: (6000.0 / f64::from(members)).clamp(2.0, 600.0),
                    ..BASE
                })
                .into(),
            Self::Rate => [100, 300, 1000]
                .map(|grown| Size {
                    grown,
                    rooms: 200,
                    rate: grown.into(),
                    ..BASE
                })
                .into(),
            // Measured apart: nobody writes.
            Self::Resting => Vec::new(),
        }
    }
}

/// What was found at one size.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// What grew.
    pub series: Series,
    /// To what.
    pub grown: u32,
    /// Under this load.
    pub messages_per_second: f64,
    /// CPU of all nodes, µs.
    pub node_per_delivery: f64,
    /// CPU of all nodes, µs.
    pub node_per_message: f64,
    /// CPU of Redis, µs.
    pub redis_per_message: f64,
    /// CPU of the worker, which archives, µs.
    pub worker_per_message: f64,
    /// From when a message was due to its ack.
    pub ack: Percentiles,
    /// From the same moment to a member.
    pub delivery: Percentiles,
    /// Whether everything arrived, once and in order.
    pub clean: bool,
}

/// Everything that was found, as it is written to a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Growth {
    /// The machine, for readers: cores and kernel.
    pub machine: String,
    /// Seconds that each load lasted.
    pub seconds: u64,
    /// Under load.
    pub found: Vec<Found>,
    /// At rest.
    pub resting: Vec<Rested>,
}

/// Runs to the end and prints the table; false when a promise was broken.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    let programs = Programs {
        roomcast: find_binary(options.binary.as_deref())?,
        node: PathBuf::new(),
        stock: PathBuf::new(),
    };
    let say = Say { to_stderr: true };
    let work = async |dir: &Path| drive(&options, &programs, dir, say).await;
    run_in_folder(None, "roomcast-growth", options.keep, say, work).await
}

async fn drive(options: &Options, programs: &Programs, dir: &Path, say: Say) -> Result<bool, HarnessError> {
    let series = match options.only.as_slice() {
        [] => Series::value_variants(),
        only => only,
    };
    let mut all = Vec::new();
    for series in series {
        for size in series.sizes() {
            let folder = dir.join(format!("{series}-{}", size.grown));
            std::fs::create_dir_all(&folder)?;
            let found = measure(*series, &size, programs, &folder, options.seconds).await?;
            say.line(&format!(
                "{series} {}: {:.1} µs a delivery",
                size.grown, found.node_per_delivery
            ));
            all.push(found);
        }
    }
    let mut rested = Vec::new();
    if series.contains(&Series::Resting) {
        for sockets in resting::SOCKETS {
            let folder = dir.join(format!("{}-{sockets}", Series::Resting));
            std::fs::create_dir_all(&folder)?;
            rested.push(resting::measure(sockets, programs, &folder).await?);
        }
    }
    if let Some(file) = &options.json {
        let growth = Growth {
            machine: machine()?,
            seconds: options.seconds,
            found: all.clone(),
            resting: rested.clone(),
        };
        let text = serde_json::to_string_pretty(&growth).map_err(io::Error::other)?;
        std::fs::write(file, text + "\n")?;
    }
    if !all.is_empty() {
        println!(
            "| | | nodes, µs a delivery | nodes, µs a message | Redis, µs a message | worker, µs a message | ack p50 / p99 ms | delivery p50 / p99 ms |\n|---|---|---|---|---|---|---|---|"
        );
    }
    for found in &all {
        println!(
            "| {} | {} | {:.1} | {:.0} | {:.0} | {:.0} | {:.1} / {:.1} | {:.1} / {:.1} |{}",
            found.series,
            found.grown,
            found.node_per_delivery,
            found.node_per_message,
            found.redis_per_message,
            found.worker_per_message,
            found.ack.p50,
            found.ack.p99,
            found.delivery.p50,
            found.delivery.p99,
            if found.clean { "" } else { " **broken**" }
        );
    }
    if !rested.is_empty() {
        println!("\n{}", resting::table(&rested));
    }
    Ok(all.iter().all(|found| found.clean))
}

async fn measure(series: Series, size: &Size, programs: &Programs, dir: &Path, seconds: u64) -> io::Result<Found> {
    let servers = Servers::start(Peer::Roomcast, programs, dir, size.nodes, size.rooms, size.members).await?;
    servers.add_rooms(size.more_rooms, size.rooms * size.members).await?;
    let seats = servers.seats(size.rooms, size.members, size.placement);
    let fleet = enter(Peer::Roomcast, seats, CONNECTS_PER_SECOND).await?;
    let cost = talk(&fleet, &servers, size.rate, Duration::from_secs(seconds)).await?;
    let tally = fleet.tally().clone();
    let found = Found {
        series,
        grown: size.grown,
        messages_per_second: cost.messages / seconds as f64,
        node_per_delivery: cost.servers * 1e6 / cost.deliveries,
        node_per_message: cost.servers * 1e6 / cost.messages,
        redis_per_message: cost.redis * 1e6 / cost.messages,
        worker_per_message: cost.workers * 1e6 / cost.messages,
        ack: Percentiles::of(&tally.ack.take()),
        delivery: Percentiles::of(&tally.delivery.take()),
        clean: fleet.settle(Duration::ZERO).await.is_clean(),
    };
    fleet.leave().await;
    Ok(found)
}
