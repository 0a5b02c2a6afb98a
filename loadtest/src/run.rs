//! A load test: a scenario against a deployment of its own, from as many processes as its sockets need, with a verdict.

mod attack;
mod capacity;
mod crowd;
mod group;
mod page;
pub mod part;
mod result;
mod scenario;
mod table;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use attack::Attackers;
pub use attack::{Flood, Kind};
pub use capacity::{CapacityOptions, capacity};
pub use group::{Group, SlowReaders};
use part::{Order, Said, members};
pub use result::{Point, RunResult};
pub use scenario::{Limits, Scenario};

use crate::compare::machine;
use crate::deployment::{APP, Deployment, Durability, Plan, Topology};
use crate::flood::attack::User;
use crate::flood::proc::{cpu_seconds, memory};
use crate::harness::{HarnessError, Say, find_binary, run_in_folder};
use crate::questions::model::Model;

/// Sockets of one process: below the 20 000 files that many systems allow.
const SOCKETS_PER_PROCESS: u32 = 15_000;
/// Lines of the parts that wait.
const SAID_MAX: usize = 256;
/// How often it says how it stands.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// Runs a scenario against nodes that it starts itself, and checks that every acked message came to every member of its room
/// once and in order.
///
/// Exit code: 0 all is well, 1 a promise was broken or a limit missed, 2 it could not run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A file as in `loadtest/scenarios/`
    pub scenario: PathBuf,
    /// Another duration, s
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub lasts: Option<u64>,
    /// Processes for the clients [default: one for each 15 000 sockets]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub processes: Option<u32>,
    /// Write everything that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// The program under test [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
}

/// Makes a page of earlier runs; of several it compares them.
#[derive(Clone, Debug, Args)]
pub struct PageOptions {
    /// What `run --json` wrote
    #[arg(required = true)]
    pub results: Vec<PathBuf>,
    /// The page
    #[arg(long, value_name = "FILE", default_value = "report.html")]
    pub html: PathBuf,
}

/// Runs to the end and prints the verdict; false when something is to be complained of.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    let mut scenario = Scenario::read(&options.scenario)?;
    scenario.lasts = options.lasts.unwrap_or(scenario.lasts);
    let name = name_of(&options.scenario);
    let binary = find_binary(options.binary.as_deref())?;
    let say = Say { to_stderr: true };
    let work = async |dir: &Path| {
        let result = drive(&name, &scenario, options.processes, &binary, dir, say).await?;
        if let Some(file) = &options.json {
            let text = serde_json::to_string_pretty(&result).map_err(io::Error::other)?;
            std::fs::write(file, text)?;
        }
        if let Some(file) = &options.html {
            std::fs::write(file, page::page(std::slice::from_ref(&result)))?;
        }
        print!("{}", result.table());
        Ok(result.complaints().is_empty())
    };
    run_in_folder(None, "roomcast-load", options.keep, say, work).await
}

/// A scenario is called as its file.
fn name_of(scenario: &Path) -> String {
    scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a page of earlier runs.
pub fn make_page(options: &PageOptions) -> Result<bool, HarnessError> {
    let mut results = Vec::new();
    for file in &options.results {
        let named = |error: &dyn std::fmt::Display| HarnessError::Setup(format!("{}: {error}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
        results.push(serde_json::from_str::<RunResult>(&text).map_err(|error| named(&error))?);
    }
    std::fs::write(&options.html, page::page(&results))?;
    println!("{}", options.html.display());
    Ok(true)
}

/// A process with a share of the sockets.
struct Part {
    process: Child,
    orders: ChildStdin,
}

async fn start_part(order: &Order) -> io::Result<(Part, Lines<BufReader<ChildStdout>>)> {
    let mut process = Command::new(std::env::current_exe()?)
        .arg("part")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let no_pipe = || io::Error::other("a part has no pipes");
    let mut orders = process.stdin.take().ok_or_else(no_pipe)?;
    let lines = BufReader::new(process.stdout.take().ok_or_else(no_pipe)?).lines();
    let order = format!("{}\n", serde_json::to_string(order)?);
    orders.write_all(order.as_bytes()).await?;
    Ok((Part { process, orders }, lines))
}

async fn drive(
    name: &str,
    scenario: &Scenario,
    processes: Option<u32>,
    binary: &Path,
    dir: &Path,
    say: Say,
) -> Result<RunResult, HarnessError> {
    let model = match scenario.asks() {
        true => Some(Model::start(scenario.model.pace()).await?),
        false => None,
    };
    let mut settings = vec![("ROOMCAST_LOG", "warn")];
    if scenario.floods.is_empty() {
        // All clients come from this machine.
        settings.push(("GUARD_ALLOW", "127.0.0.0/8"));
    }
    settings.extend(model.as_ref().map(|model| ("GPT_BASE_URL", model.url.as_str())));
    let plan = Plan {
        topology: Topology::Standalone,
        durability: Durability::Memory,
        nodes: scenario.nodes,
        // Rooms of groups differ in size: they are made one by one.
        rooms: scenario.rooms,
        users: scenario.sockets() + scenario.attackers(),
        workers: 1,
        proxied: false,
        settings: &settings,
    };
    say.line(&format!("{name}: {}", scenario.about));
    let mut deployment = Deployment::start(&plan, binary, dir).await?;
    make_rooms(scenario, &deployment).await?;
    let attackers = make_attackers(scenario, &deployment).await?;
    let mut attack = None;
    let pids: Vec<u32> = deployment.nodes.iter().filter_map(|node| node.process.pid()).collect();
    let servers: Result<Vec<SocketAddr>, _> = deployment
        .nodes
        .iter()
        .map(|node| node.url.trim_start_matches("http://").parse())
        .collect();
    let servers = servers.map_err(io::Error::other)?;
    let needed = scenario.sockets().div_ceil(SOCKETS_PER_PROCESS);
    let parts = processes.unwrap_or(needed).min(scenario.all_rooms());
    let groups = scenario.groups();
    let mut result = RunResult::new(name, scenario, machine()?, &pids)?;
    let (sender, mut said) = mpsc::channel(SAID_MAX);
    let (mut all, mut reading) = (Vec::new(), JoinSet::new());
    for part in 0..parts {
        let order = Order {
            part,
            parts,
            scenario: scenario.clone(),
            servers: servers.clone(),
            auths: members(&groups, part, parts)
                .map(|place| auth(&deployment, place.user))
                .collect(),
        };
        let (started, mut lines) = start_part(&order).await?;
        all.push(started);
        let sender = sender.clone();
        reading.spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(said) = serde_json::from_str::<Said>(&line) else {
                    break;
                };
                if sender.send((part as usize, said)).await.is_err() {
                    break;
                }
            }
        });
    }
    drop(sender);
    let (mut joined, mut done, mut told) = (0, 0, Instant::now());
    while let Some((part, line)) = said.recv().await {
        match line {
            Said::Joined => {
                joined += 1;
                if joined == parts {
                    result.begin(&pids)?;
                    say.line("the sockets are in their rooms; the talk begins");
                    attack = Some(Attackers::start(&scenario.floods, &servers, attackers.clone()));
                    for part in &mut all {
                        part.orders.write_all(b"go\n").await?;
                    }
                }
            }
            Said::Second(second) => {
                result.add(part, second);
                if part == 0 {
                    result.sample(&pids)?;
                }
                if told.elapsed() > STATUS_PERIOD {
                    told = Instant::now();
                    say.line(&result.status());
                }
            }
            Said::Done(outcome) => {
                // The first part that is done has what it was owed under attack.
                if let Some(attack) = attack.take() {
                    result.attacks = attack.reports();
                }
                result.end(&outcome);
                done += 1;
            }
        }
    }
    if done != parts {
        let lost = parts - done;
        return Err(HarnessError::Setup(format!(
            "{lost} of {parts} client processes ended by themselves"
        )));
    }
    for part in &mut all {
        part.process.wait().await?;
    }
    result.ended = deployment.unexpected_ends().await?;
    deployment.stop().await?;
    Ok(result)
}

/// The rooms of groups, with their members.
async fn make_rooms(scenario: &Scenario, deployment: &Deployment) -> io::Result<()> {
    let mut rooms: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for place in group::places(&scenario.groups) {
        rooms.entry(place.room).or_default().push(place.user as usize);
    }
    for (room, users) in rooms {
        deployment.create_room(&format!("room-{room}"), &users).await?;
    }
    Ok(())
}

/// The users of attackers, after those of everybody else, and the room that is theirs.
async fn make_attackers(scenario: &Scenario, deployment: &Deployment) -> io::Result<Vec<User>> {
    let users = scenario.sockets()..scenario.sockets() + scenario.attackers();
    if !users.is_empty() {
        let users: Vec<usize> = users.clone().map(|user| user as usize).collect();
        deployment.create_room(attack::ROOM, &users).await?;
    }
    let user = |user: u32| User {
        username: format!("user{user}"),
        token: deployment.tokens[user as usize].clone(),
        room: attack::ROOM.to_owned(),
    };
    Ok(users.map(user).collect())
}

fn auth(deployment: &Deployment, user: u32) -> String {
    json!({
        "accessToken": deployment.tokens[user as usize], "refreshToken": "none", "userAgent": APP, "username": format!("user{user}"),
    })
    .to_string()
}

/// CPU seconds and resident MiB of processes.
fn used(pids: &[u32]) -> io::Result<(f64, f64)> {
    let (mut cpu, mut mib) = (0.0, 0.0);
    for pid in pids {
        cpu += cpu_seconds(*pid)?;
        mib += memory(*pid)?.rss as f64 / 1024.0;
    }
    Ok((cpu, mib))
}
