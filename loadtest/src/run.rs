//! A load test: a scenario against a deployment of its own, from as many processes as its sockets need, with a verdict.

pub mod agent;
mod attack;
mod capacity;
mod crowd;
mod group;
mod line;
mod page;
pub mod part;
mod progress;
mod proof;
mod result;
mod scenario;
mod screen;
mod table;
mod target;
mod view;

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use line::{Orders, Sayings};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use attack::Attackers;
pub use attack::{Flood, Kind};
pub use capacity::{CapacityOptions, capacity};
pub use group::{Group, SlowReaders};
use part::{Order, Said, members};
use progress::Progress;
use proof::SecretOptions;
pub use result::{Point, RunResult};
pub use scenario::{Limits, Scenario, schema};
use target::TargetOptions;

use crate::compare::machine;
use crate::harness::{HarnessError, Say, read_json, run_in_folder};

/// Sockets of one process: below the 20 000 files that many systems allow.
const SOCKETS_PER_PROCESS: u32 = 15_000;
/// Lines of the parts that wait.
const SAID_MAX: usize = 256;

/// Runs a scenario against nodes that it starts itself, or that run already, and checks that every acked message came to every
/// member of its room once and in order.
///
/// Exit code: 0 all is well, 1 a promise was broken or a limit missed, 2 it could not run.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// A file as in `loadtest/scenarios/`
    pub scenario: PathBuf,
    /// Another duration, s
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub lasts: Option<u64>,
    /// Write everything that was measured to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write a page with charts to this file
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// By what means
    #[command(flatten)]
    pub means: Means,
}

/// Where clients come from, and what they are put on.
#[derive(Clone, Debug, Args)]
pub struct Means {
    /// Processes for the clients [default: one for each 15 000 sockets, and for each agent]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub processes: Option<u32>,
    /// Agents on other machines, `host:port`, which give the processes (`roomcast-load agent`)
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    pub agents: Vec<String>,
    #[command(flatten)]
    pub secret: SecretOptions,
    #[command(flatten)]
    pub target: TargetOptions,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
    /// Say how it stands in lines, also where the standard error is a terminal
    #[arg(long)]
    pub plain: bool,
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
    let say = Say { to_stderr: true };
    let work = async |dir: &Path| {
        let result = drive(&name, &scenario, &options.means, dir, say).await?;
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
    run_in_folder(None, "roomcast-load", options.means.keep, say, work).await
}

/// A scenario is called as its file.
fn name_of(scenario: &Path) -> String {
    scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Writes a page of earlier runs.
pub fn make_page(options: &PageOptions) -> Result<bool, HarnessError> {
    let results: Result<Vec<RunResult>, _> = options.results.iter().map(|file| read_json(file)).collect();
    let results = results?;
    std::fs::write(&options.html, page::page(&results))?;
    println!("{}", options.html.display());
    Ok(true)
}

async fn drive(
    name: &str,
    scenario: &Scenario,
    means: &Means,
    dir: &Path,
    say: Say,
) -> Result<RunResult, HarnessError> {
    say.line(&format!("{name}: {}", scenario.about));
    let needed = scenario
        .sockets()
        .div_ceil(SOCKETS_PER_PROCESS)
        .max(means.agents.len() as u32);
    let parts = means.processes.unwrap_or(needed).min(scenario.all_rooms());
    let groups = scenario.groups();
    let machine = machine()?;
    let mut result = RunResult::new(name, scenario, machine.clone(), None);
    let mut progress = Progress::open(means.plain, say, dir);
    let mut lines = Vec::new();
    let run = proof::nonce();
    for part in 0..parts {
        lines.push(means.start(part, &run, &progress).await?);
    }
    let starting = means.target.prepare(scenario, dir);
    let (mut target, servers) = progress.during(&result, starting).await?;
    let mut attack = None;
    result = RunResult::new(name, scenario, machine, target.used().await?);
    progress.connecting();
    let (sender, mut said) = mpsc::channel(SAID_MAX);
    let (mut all, mut reading) = (Vec::new(), JoinSet::new());
    for (part, (mut orders, sayings)) in (0..).zip(lines) {
        let order = Order {
            part,
            parts,
            scenario: scenario.clone(),
            servers: servers.clone(),
            room: means.target.room.clone(),
            auths: members(&groups, part, parts)
                .map(|place| target.auth(place.user))
                .collect(),
        };
        orders.give(&order).await?;
        all.push(orders);
        reading.spawn(listen(sayings, part as usize, sender.clone()));
    }
    drop(sender);
    let (mut joined, mut done) = (0, 0);
    while done < parts {
        let said = tokio::select! {
            said = said.recv() => said,
            () = progress.due() => {
                progress.show(&result);
                continue;
            }
        };
        let Some((part, line)) = said else { break };
        match line? {
            Said::Joined => {
                joined += 1;
                if joined == parts {
                    result.begin(target.used().await?);
                    progress.begin();
                    attack = Some(Attackers::start(&scenario.floods, &servers, target.attackers(scenario)));
                    for orders in &mut all {
                        orders.go().await?;
                    }
                }
            }
            Said::Second(second) => {
                result.add(part, second);
                if part == 0 {
                    result.sample(target.used().await?);
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
    progress.ending();
    let ended = progress.during(&result, async {
        // They leave by themselves, and are not measured any more.
        while reading.join_next().await.is_some() {}
        target.end().await
    });
    result.ended = ended.await?;
    Ok(result)
}

impl Means {
    async fn start(&self, part: u32, run: &str, progress: &Progress) -> Result<(Orders, Sayings), HarnessError> {
        match self.agents.as_slice() {
            [] => Ok(line::local(progress.complaints()?)?),
            agents => {
                let (agent, secret) = (&agents[part as usize % agents.len()], self.secret.read()?);
                agent::remote(agent, &secret, run, self.target.url.is_empty()).await
            }
        }
    }
}

/// Passes on what a part says, up to its end.
async fn listen(mut sayings: Sayings, part: usize, to: mpsc::Sender<(usize, io::Result<Said>)>) {
    loop {
        let said = sayings.next().await;
        let is_last = matches!(said, Ok(Said::Done(_)) | Err(_));
        if to.send((part, said)).await.is_err() {
            return;
        }
        if is_last {
            return sayings.end().await;
        }
    }
}
