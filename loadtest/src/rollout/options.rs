//! What a run is asked to do.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::deployment::plan::display_as_value;

/// How a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// SIGTERM: it drains
    Drain,
    /// kill -9
    Kill,
}

/// Replaces every node behind a real HAProxy while people talk, and proves that no acked message is lost.
///
/// Starts Redis, the reference services, nodes, a worker and HAProxy as child processes in a temporary folder. Two members
/// of each room write; of the readers one half speaks protocol 2 and leaves when `server:drain` says so, the other half is
/// legacy: it notices the end of its connection, and comes back with the pauses of the official client. Then every node
/// goes and comes back, one after the other. For each it is told when clients had to reconnect; at the end every ack,
/// every reader's view and the archive are held against the rooms' logs as they stand in Redis.
///
/// Exit code: 0 all is well, 1 something was lost, crowded or told to stay away, 2 it could not run.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "roomcast-rollout",
    version,
    after_help = "Examples:
  roomcast-rollout
  roomcast-rollout --rooms 20 --members 15 --spread 4 --notice 2 --how drain"
)]
pub struct Options {
    /// Rooms
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rooms: u16,
    /// Members of each room, a socket each: HAProxy takes two descriptors for each of them
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(4..=500))]
    pub members: u16,
    /// Chat nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=16))]
    pub nodes: u16,
    /// Messages a second, of all writers together
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub rate: u32,
    /// ROOMCAST_DRAIN_SPREAD of the nodes, seconds
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub spread: u64,
    /// ROOMCAST_DRAIN_NOTICE of the nodes, seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub notice: u64,
    /// How the nodes go: one round of each
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [How::Drain, How::Kill])]
    pub how: Vec<How>,
    /// The program under test [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Print the result as JSON on the standard output; the progress goes to the standard error
    #[arg(long)]
    pub json: bool,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
    /// Where the folder with logs and data is made [default: the system's folder for temporary files]
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

impl Options {
    /// Sockets in all.
    pub fn sockets(&self) -> u32 {
        u32::from(self.rooms) * u32::from(self.members)
    }

    /// The time over which a draining node sends its sockets away.
    pub fn spread(&self) -> Duration {
        Duration::from_secs(self.spread)
    }

    /// The shortest and the longest pause of a writer, ms.
    pub fn writes_every(&self) -> (u64, u64) {
        // One writer of a room writes one message at a time, the other one to four.
        let mean = 3500 * u64::from(self.rooms) / u64::from(self.rate);
        (mean / 2, mean * 3 / 2)
    }
}

display_as_value!(How);
