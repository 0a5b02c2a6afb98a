//! A deployment of its own under seeded faults: processes die and stop, connections are cut, Redis restarts and fails
//! over, while writers and readers talk; the delivery checker judges what came of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

mod child;
mod crowd;
mod deploy;
mod fault;
mod history;
mod inject;
mod logs;
mod member;
mod options;
mod proxy;
mod reader;
mod redis;
mod resp;
mod rng;
mod summary;
mod verdict;
mod writer;

use crowd::Crowd;
use deploy::Deployment;
use fault::{Fault, Schedule};
use history::History;
use inject::Afterwards;
use logs::Logs;
pub use options::{Durability, Options, Topology};
use summary::{FaultRecord, Outcome, clock};

/// How often it says how it stands.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// It could not be started, or asked for the impossible.
    #[error("{0}")]
    Setup(String),
    /// Something of this program itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Runs to the end and prints the verdict; true when nothing is to be complained of.
///
/// All processes it starts end with it, also when it is interrupted or panics.
pub async fn run(options: Options) -> Result<bool, ChaosError> {
    let seed = options.seed.unwrap_or_else(|| history::unix_ms() % 1_000_000);
    let say = Say {
        to_stderr: options.json,
    };
    say.line(&format!(
        "seed {seed} ({}, {}, {} nodes, {} rooms of {}, {} min)",
        options.topology, options.durability, options.nodes, options.rooms, options.members, options.minutes
    ));
    let binary = binary(&options)?;
    let schedule = Schedule::new(seed, options.topology, &options.only);
    let schedule =
        schedule.ok_or_else(|| ChaosError::Setup("none of these faults is possible in this topology".into()))?;
    let parent = options.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = parent.join(format!("roomcast-chaos-{seed}-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    // Programs run inside of it.
    let dir = dir.canonicalize()?;

    let outcome = tokio::select! {
        outcome = drive(&options, seed, schedule, &binary, &dir, say) => outcome,
        () = interrupted() => Err(ChaosError::Interrupted),
    };
    let keep = options.keep || matches!(&outcome, Ok(false) | Err(ChaosError::Setup(_) | ChaosError::Io(_)));
    if keep {
        say.line(&format!("logs and data are in {}", dir.display()));
    } else {
        fs::remove_dir_all(&dir)?;
    }
    outcome
}

async fn drive(
    options: &Options,
    seed: u64,
    mut schedule: Schedule,
    binary: &Path,
    dir: &Path,
    say: Say,
) -> Result<bool, ChaosError> {
    let mut deployment = Deployment::start(options, binary, dir).await?;
    let mut crowd = Crowd::start(options, &deployment, seed);
    let history = crowd.history.clone();
    if !crowd.wait_joined().await {
        return Err(ChaosError::Setup(
            "not all members could join before the first fault".into(),
        ));
    }
    let (took, late) = crowd.converge().await;
    if !late.is_empty() {
        return Err(ChaosError::Setup(format!(
            "no delivery before the first fault: {}",
            late.join("; ")
        )));
    }
    say.line(&format!(
        "{} everybody has joined, the first probe took {:.2} s",
        clock(history.elapsed()),
        took.as_secs_f64()
    ));

    let mut status = JoinSet::new();
    status.spawn(report_status(history.clone(), say));
    let (mut faults, mut logs) = (Vec::new(), Logs::default());
    let deadline = Instant::now() + Duration::from_secs_f64(options.minutes.max(0.0) * 60.0);
    while Instant::now() < deadline {
        let fault = schedule.draw();
        sleep(fault.gap).await;
        faults.push(suffer(&mut deployment, &crowd, &fault, faults.len() + 1, options, say).await);
        for end in deployment.unexpected_ends().await? {
            history.find(end);
        }
        if let Err(error) = logs.gather(&deployment.redis).await {
            say.line(&format!(
                "{} the logs could not be read: {error}",
                clock(history.elapsed())
            ));
        }
        if crowd.has_broken() {
            return Err(ChaosError::Setup("a member panicked".into()));
        }
    }
    say.line(&format!(
        "{} all is healed, waiting for the last acks, deliveries and the archive",
        clock(history.elapsed())
    ));
    let judging = verdict::judge(&deployment, &crowd, &mut logs, options.lost_tail());
    let report = judging.await?;
    drop(status);
    let took = history.elapsed();
    // Clients first: the end of the nodes is none of their troubles.
    drop(crowd);
    deployment.stop().await?;
    let outcome = Outcome {
        faults,
        report,
        findings: history.findings(),
        logs,
        took,
    };
    let clean = outcome.is_clean();
    if options.json {
        let kept = (!clean || options.keep).then_some(dir);
        println!("{}", outcome.json(seed, options, &history, kept));
    } else {
        outcome.print(seed, &history);
    }
    Ok(clean)
}

/// One fault: carried out, healed, converged, and the victim back.
async fn suffer(
    deployment: &mut Deployment,
    crowd: &Crowd,
    fault: &Fault,
    number: usize,
    options: &Options,
    say: Say,
) -> FaultRecord {
    let history = &crowd.history;
    let (at, at_ms, began) = (history.elapsed(), history::unix_ms(), Instant::now());
    say.line(&format!("{} #{number} {fault}", clock(at)));
    let beside = async {
        if let Some(kind) = fault.beside {
            inject::suffer(crowd, kind, fault).await;
        }
    };
    let injecting = async { tokio::join!(inject::inject(deployment, crowd, fault, options.durability), beside).0 };
    let (target, afterwards) = match injecting.await {
        Ok(done) => done,
        Err(error) => {
            history.find(format!("#{number} {fault} did not heal: {error}"));
            ("?".to_owned(), Afterwards::Nothing)
        }
    };
    let lasted = began.elapsed();
    let (converged, late) = crowd.converge().await;
    say.line(&format!(
        "{} #{number} {target}: converged {:.2} s after {:.1} s{}",
        clock(history.elapsed()),
        converged.as_secs_f64(),
        lasted.as_secs_f64(),
        if late.is_empty() {
            String::new()
        } else {
            format!(" LATE: {}", late.join("; "))
        }
    ));
    let returned = async {
        match afterwards {
            Afterwards::Nothing => Ok(()),
            Afterwards::StartNode(node) => deployment.start_node(node).await,
            Afterwards::StartRedis(server) => {
                deployment.redis.restart(server).await?;
                deployment.redis.wait_replicas().await
            }
        }
    };
    if let Err(error) = returned.await {
        history.find(format!("#{number} {target} did not come back: {error}"));
    }
    FaultRecord {
        number,
        what: fault.to_string(),
        target,
        at,
        at_ms,
        lasted,
        converged,
        late,
    }
}

/// Says every ten seconds how it stands.
async fn report_status(history: Arc<History>, say: Say) {
    let mut ticks = interval(STATUS_PERIOD);
    loop {
        ticks.tick().await;
        let joined = history
            .members
            .iter()
            .filter(|member| member.joined.load(Ordering::Relaxed))
            .count();
        say.line(&format!(
            "{} acked {}, received {}, {joined} of {} members joined, {} findings",
            clock(history.elapsed()),
            history.tally.acked.load(Ordering::Relaxed),
            history.tally.received.load(Ordering::Relaxed),
            history.members.len(),
            history.findings().len()
        ));
    }
}

async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

fn binary(options: &Options) -> Result<PathBuf, ChaosError> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("roomcast"),
    };
    binary.canonicalize().map_err(|error| {
        ChaosError::Setup(format!(
            "cannot find the program under test, {}: {error}",
            binary.display()
        ))
    })
}

/// Where progress goes.
#[derive(Clone, Copy, Debug)]
struct Say {
    to_stderr: bool,
}

impl Say {
    fn line(self, text: &str) {
        if self.to_stderr {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}
