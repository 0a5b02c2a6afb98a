//! What a run is asked to do.

use std::path::PathBuf;

use clap::Parser;

use super::fault::Kind;
use crate::checker::LostTail;
use crate::deployment::plan::display_as_value;
use crate::deployment::{Durability, Topology};

/// Runs a real deployment under seeded faults and proves that no message is lost, doubled or reordered.
///
/// Starts Redis, the reference services, nodes and a worker as child processes in a temporary folder, lets writers and
/// readers (protocol 2 and legacy) talk through them, and meanwhile kills, stops, cuts and fails over what can be. After
/// every fault a probe must be acked in every room and seen by every connected reader within 10 s of the healing. At the
/// end every ack, every reader's view and the archive are held against the rooms' logs as they stand in Redis.
///
/// The seed is printed first; with --seed the same faults come in the same order with the same parameters (what the
/// clients do meanwhile depends on the machine's timing). Exit code: 0 nothing missing, 1 violations, 2 it could not run.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "roomcast-chaos",
    version,
    after_help = "Examples:
  roomcast-chaos --minutes 5
  roomcast-chaos --minutes 10 --topology cluster
  roomcast-chaos --seed 42 --topology sentinel --durability replica --keep
  roomcast-chaos --minutes 2 --only node-kill,redis-restart --json > result.json"
)]
pub struct Options {
    /// Repeat the faults of an earlier run [default: drawn and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How long faults are drawn; starting, settling and judging come on top
    #[arg(long, default_value_t = 60.0)]
    pub minutes: f64,
    /// How Redis is set up
    #[arg(long, value_enum, default_value_t = Topology::Standalone)]
    pub topology: Topology,
    /// What an ack promises
    #[arg(long, value_enum, default_value_t = Durability::Memory)]
    pub durability: Durability,
    /// The program under test [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Chat nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=16))]
    pub nodes: u16,
    /// Rooms
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub rooms: u16,
    /// Members of each room: two of them write, half of the others speak protocol 2, the rest the legacy one
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(3..=200))]
    pub members: u16,
    /// Draw only these faults
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT")]
    pub only: Vec<Kind>,
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
    /// What a fault of this topology may take with it under this durability.
    pub fn lost_tail(&self) -> LostTail {
        match (self.topology, self.durability) {
            // A killed process loses no page that it wrote, and Redis writes before it answers.
            (Topology::Standalone, _) => LostTail::Never,
            (_, Durability::Replica) => LostTail::Unacked,
            // Replication is asynchronous, whatever the disk does.
            (_, Durability::Memory | Durability::Fsync) => LostTail::Acked,
        }
    }
}

display_as_value!(Kind);
