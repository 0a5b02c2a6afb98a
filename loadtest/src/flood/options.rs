//! What a run is asked to do, and the two other processes of the same program.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::kind::Kind;

/// Floods a node and proves that other clients hardly notice.
///
/// For each flood it starts a deployment of its own: Redis, the reference services, a worker and one node with the
/// default limits. Innocent clients, each with its own loopback address, write to each other at a steady pace; what
/// they wait for an ack and for a delivery is counted from when they meant to send. Meanwhile an attacker pinned to one
/// core floods in turn the node and, as the measure, a bare listener that answers every request with 403 and closes.
/// The p99 under the first must stay below twice the p99 under the second; no innocent client may lose a message or
/// its connection, newcomers must get in, and the node's memory must stay bounded.
///
/// Exit code: 0 all limits held, 1 one was missed, 2 it could not run.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "roomcast-flood",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  roomcast-flood
  roomcast-flood --only handshakes,idle --rounds 5
  roomcast-flood --only crowd --keep --json > result.json
How to read the table: docs/flood.md"
)]
pub struct Options {
    #[command(subcommand)]
    pub(super) role: Option<Role>,
    /// Only these floods
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FLOOD")]
    pub only: Vec<Kind>,
    /// Times that node and listener are flooded in turn; the median round is judged
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub rounds: u8,
    /// Seconds measured of each flooding
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Rooms of innocent clients
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rooms: u16,
    /// Innocent clients in each room
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub members: u16,
    /// Messages a second of each innocent client
    #[arg(long, default_value_t = 2.0, value_parser = pace)]
    pub pace: f64,
    /// Limit of the ratio of the p99 under a flood of the node to the p99 under the same flood of the bare listener
    #[arg(long, default_value_t = 2.0)]
    pub max_ratio: f64,
    /// Limit of the growth of the node's memory at its peak, in MiB
    #[arg(long, default_value_t = 256)]
    pub max_peak: u64,
    /// Limit of the growth that is left 15 s after the last flooding, in MiB
    #[arg(long, default_value_t = 64)]
    pub max_left: u64,
    /// The attacker's core [default: the last of those we may use]
    #[arg(long)]
    pub core: Option<usize>,
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

/// The other processes of a run.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum Role {
    /// The attacker
    #[command(hide = true)]
    Attack(AttackOptions),
    /// The bare listener
    #[command(hide = true)]
    Listen {
        /// Where it listens
        listen: SocketAddr,
    },
}

/// What the attacker is told.
#[derive(Clone, Debug, Args)]
pub(super) struct AttackOptions {
    /// The flood
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Who is flooded
    #[arg(long)]
    pub target: SocketAddr,
    /// For how long
    #[arg(long)]
    pub seconds: u64,
    /// Each round has its own addresses, so that none begins with a block
    #[arg(long)]
    pub round: u8,
    /// All rounds, which share the distinct addresses
    #[arg(long)]
    pub rounds: u8,
    /// Users as JSON: `[{username, token, room}]`
    #[arg(long)]
    pub users: PathBuf,
}

fn pace(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(pace) if (0.1..=100.0).contains(&pace) => Ok(pace),
        _ => Err("a number from 0.1 to 100".to_owned()),
    }
}
