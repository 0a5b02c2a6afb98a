//! roomcast and what people would use instead, under the same load in the same run, one after the other, again and again.
//!
//! Figures are processor time of the servers (from `/proc`), so that what else the machine does matters little; each peer
//! has its turn in every round, in another order, and the spread is told.

pub mod floor;
mod page;
mod peer;
mod report;
mod row;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum as _};

pub use peer::{Peer, Placement, Programs, Servers};
pub use report::Comparison;
pub(crate) use row::cpu;
pub use row::{Cost, Finding, Row, Shape, enter, measure, talk};

use crate::chaos::Rng;
use crate::harness::{HarnessError, Say, find_binary, read_json, run_in_folder};

/// Puts the same load on roomcast, on socket.io for Node.js, on socketioxide with its own adapter and on a bare write loop,
/// and prints what each costs.
///
/// Exit code: 0 it was measured, 1 roomcast lost, doubled or disordered a message, 2 it could not run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How often everything is repeated
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Draws the order of turns
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How long each load lasts, s
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Only these loads
    #[arg(long, value_enum, value_delimiter = ',')]
    pub only: Vec<Row>,
    /// Only these servers
    #[arg(long, value_enum, value_delimiter = ',')]
    pub peers: Vec<Peer>,
    /// Write every figure to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with a bar for each server to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Read what `--json` wrote, of one run or several on one machine, instead of measuring
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub from: Vec<PathBuf>,
    /// roomcast [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// The folder of the peer for Node.js, after `npm ci` in it
    #[arg(long, value_name = "PATH", default_value = "loadtest/peers/node")]
    pub node: PathBuf,
    /// The peer with socketioxide
    #[arg(
        long,
        value_name = "PATH",
        default_value = "loadtest/peers/stock/target/release/roomcast-peer-stock"
    )]
    pub stock: PathBuf,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
}

/// Runs to the end and prints the tables; false when roomcast broke a promise.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    if !options.from.is_empty() {
        return show(&read(&options.from)?, &options);
    }
    let peers = chosen(&options.peers, Peer::value_variants());
    let needs = |peer: &[Peer]| peers.iter().any(|chosen| peer.contains(chosen));
    let programs = Programs {
        roomcast: find_binary(options.binary.as_deref())?,
        node: needed(
            &options.node,
            &options.node.join("node_modules/socket.io"),
            "--node",
            needs(&[Peer::Node, Peer::NodeSharded]),
        )?,
        stock: needed(&options.stock, &options.stock, "--stock", needs(&[Peer::Stock]))?,
    };
    let say = Say { to_stderr: true };
    let work = async |dir: &Path| drive(&options, &peers, &programs, dir, say).await;
    run_in_folder(None, "roomcast-compare", options.keep, say, work).await
}

fn chosen<T: Copy>(some: &[T], all: &[T]) -> Vec<T> {
    if some.is_empty() { all } else { some }.to_vec()
}

fn needed(path: &Path, sign: &Path, option: &str, is_needed: bool) -> Result<PathBuf, HarnessError> {
    if !is_needed || sign.exists() {
        // Programs run in a folder of their own.
        return Ok(std::path::absolute(path)?);
    }
    Err(HarnessError::Setup(format!(
        "{} is missing; `make peers` makes it, or name it with {option}, or leave it out with --peers",
        sign.display()
    )))
}

async fn drive(
    options: &Options,
    peers: &[Peer],
    programs: &Programs,
    dir: &Path,
    say: Say,
) -> Result<bool, HarnessError> {
    let rows = chosen(&options.only, Row::value_variants());
    let mut comparison = Comparison {
        machine: machine()?,
        seconds: options.seconds,
        findings: Vec::new(),
    };
    let mut rng = Rng::new(options.seed);
    for round in 1..=options.rounds {
        let mut turns: Vec<(Row, Peer)> = Vec::new();
        for row in &rows {
            turns.extend(peers.iter().filter(|peer| row.is_for(**peer)).map(|peer| (*row, *peer)));
        }
        rng.shuffle(&mut turns);
        for (turn, (row, peer)) in turns.iter().enumerate() {
            let folder = dir.join(format!("{round}-{row}-{peer}"));
            std::fs::create_dir_all(&folder)?;
            let shape = row.shape();
            let servers = Servers::start(*peer, programs, &folder, shape.servers, shape.rooms, shape.members).await?;
            let found = measure(*row, *peer, &servers, Duration::from_secs(options.seconds)).await?;
            say.line(&format!(
                "round {round} of {}, {} of {}: {row} {peer}: {:.2} {}{}",
                options.rounds,
                turn + 1,
                turns.len(),
                found.value,
                row.unit(),
                if found.verdict.is_clean() {
                    String::new()
                } else {
                    format!(" {:?}", found.verdict)
                },
            ));
            comparison.findings.push(found);
            // So that what is measured is on disk whatever happens next.
            if let Some(file) = &options.json {
                write_json(&comparison, file)?;
            }
        }
    }
    show(&comparison, options)
}

/// Prints the tables and writes the files.
fn show(comparison: &Comparison, options: &Options) -> Result<bool, HarnessError> {
    if let Some(file) = &options.json {
        write_json(comparison, file)?;
    }
    if let Some(file) = &options.html {
        std::fs::write(file, comparison.page())?;
    }
    println!("{}", comparison.table());
    Ok(comparison.is_clean())
}

fn write_json(comparison: &Comparison, file: &Path) -> io::Result<()> {
    let text = serde_json::to_string_pretty(comparison).map_err(io::Error::other)?;
    std::fs::write(file, text + "\n")
}

/// Several runs as one.
fn read(files: &[PathBuf]) -> Result<Comparison, HarnessError> {
    let mut all = Comparison::default();
    for file in files {
        let one: Comparison = read_json(file)?;
        if !all.findings.is_empty() && (&one.machine, one.seconds) != (&all.machine, all.seconds) {
            return Err(HarnessError::Setup(format!(
                "{}: it is of another machine, or its loads lasted for another time",
                file.display()
            )));
        }
        all.machine = one.machine;
        all.seconds = one.seconds;
        all.findings.extend(one.findings);
    }
    Ok(all)
}

/// Cores and kernel.
pub(crate) fn machine() -> io::Result<String> {
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    Ok(format!(
        "{cores} cores of {}, Linux {}",
        model.unwrap_or("an unknown processor"),
        kernel.trim()
    ))
}
