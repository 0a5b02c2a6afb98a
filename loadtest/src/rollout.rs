//! A rolling restart behind a real HAProxy: every node goes and comes back while thousands are connected and some talk; when
//! clients had to reconnect, and what became of the messages.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::time::sleep;

mod options;
mod report;

use options::How;
pub use options::Options;
use report::{Outcome, Round};

use crate::chaos::asker::Present;
use crate::chaos::crowd::Crowd;
use crate::chaos::member::Habits;
use crate::chaos::verdict;
use crate::checker::LostTail;
use crate::deployment::child::wait_until;
use crate::deployment::haproxy::Haproxy;
use crate::deployment::logs::Logs;
use crate::deployment::{Deployment, Durability, Plan, Topology};
use crate::harness::{HarnessError, Say, find_binary, run_in_folder};

/// Sockets that connect in a second at the beginning: one machine has to verify, look up and join them all.
const CONNECTS_PER_SECOND: u32 = 250;
/// How long everybody may take to be in their rooms, beyond the ramp or the window of a drain.
const JOINED_MAX: Duration = Duration::from_secs(60);
/// What a drain may take beyond notice and spread.
const DRAIN_RESERVE: Duration = Duration::from_secs(30);
/// How long the load balancer takes to see that a node is back.
const SEEN_BACK: Duration = Duration::from_secs(1);
/// Descriptors that this program needs beside its sockets.
const SPARE_FILES: u32 = 100;

/// Runs to the end and prints the verdict; true when nothing is to be complained of.
///
/// All processes it starts end with it, also when it is interrupted or panics.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    let say = Say {
        to_stderr: options.json,
    };
    require_files(options.sockets() + SPARE_FILES)?;
    let binary = find_binary(options.binary.as_deref())?;
    let work = async |dir: &Path| drive(&options, &binary, dir, say).await;
    run_in_folder(options.dir.as_deref(), "roomcast-rollout", options.keep, say, work).await
}

async fn drive(options: &Options, binary: &Path, dir: &Path, say: Say) -> Result<bool, HarnessError> {
    let (spread, notice) = (format!("{}s", options.spread), format!("{}s", options.notice));
    // Everybody comes from one address.
    let settings = [
        ("GUARD_ALLOW", "127.0.0.0/8"),
        ("ROOMCAST_DRAIN_SPREAD", &spread),
        ("ROOMCAST_DRAIN_NOTICE", &notice),
    ];
    let plan = Plan {
        topology: Topology::Standalone,
        durability: Durability::Memory,
        nodes: options.nodes,
        rooms: u32::from(options.rooms),
        users: options.sockets(),
        workers: 1,
        proxied: false,
        settings: &settings,
    };
    let mut deployment = Deployment::start(&plan, binary, dir).await?;
    let haproxy = Haproxy::start(&deployment, options.sockets(), dir).await?;
    let habits = Habits {
        urls: vec![haproxy.url.clone()],
        ramp: Duration::from_secs_f64(f64::from(options.sockets()) / f64::from(CONNECTS_PER_SECOND)),
        writes_every: options.writes_every(),
        patient: true,
    };
    let ramp = habits.ramp;
    let (rooms, members) = (usize::from(options.rooms), usize::from(options.members));
    let mut crowd = Crowd::start(rooms, members, habits, &deployment.tokens, 0);
    if !crowd.wait_joined(ramp + JOINED_MAX).await {
        return Err(HarnessError::Setup("not all members could join".into()));
    }
    let (took, late) = crowd.converge().await;
    if !late.is_empty() {
        let late = late.join("; ");
        return Err(HarnessError::Setup(format!(
            "no delivery before the first node goes: {late}"
        )));
    }
    say.line(&format!(
        "{} sockets on {} nodes ({:?}), a probe took {:.2} s",
        options.sockets(),
        options.nodes,
        sockets(&deployment).await,
        took.as_secs_f64()
    ));
    let mut rounds = Vec::new();
    for how in &options.how {
        for node in 0..deployment.nodes.len() {
            say.line(&format!("node-{node}: {how}"));
            rounds.push(replace(&mut deployment, &crowd, node, *how, options).await?);
            for end in deployment.unexpected_ends().await? {
                crowd.history.find(end);
            }
            if crowd.has_broken() {
                return Err(HarnessError::Setup("a member panicked".into()));
            }
        }
    }
    say.line("waiting for the last acks, deliveries and the archive");
    let report = verdict::judge(
        &deployment,
        &crowd,
        &Present::default(),
        &mut Logs::default(),
        LostTail::Never,
    )
    .await?;
    let findings = crowd.history.findings().into_iter().map(|(_, finding)| finding);
    let outcome = Outcome {
        sockets: options.sockets(),
        rounds,
        report,
        findings: findings.collect(),
        took: crowd.history.elapsed(),
    };
    // Clients first: the end of the nodes is none of their troubles.
    drop(crowd);
    if options.json {
        println!("{}", outcome.json());
    } else {
        outcome.print();
    }
    Ok(outcome.is_clean())
}

/// One node goes and comes back; returns when everybody hears everybody again.
async fn replace(
    deployment: &mut Deployment,
    crowd: &Crowd,
    node: usize,
    how: How,
    options: &Options,
) -> Result<Round, HarnessError> {
    let history = &crowd.history;
    let (at, began) = (history.elapsed(), Instant::now());
    let refused = || history.tally.refused.load(Ordering::Relaxed);
    let refused_before = refused();
    let notice = Duration::from_secs(options.notice);
    let window = match how {
        How::Drain => (notice, notice + options.spread()),
        How::Kill => (Duration::ZERO, Duration::ZERO),
    };
    let process = &mut deployment.nodes[node].process;
    match how {
        How::Drain => {
            let limit = window.1 + DRAIN_RESERVE;
            let status = process.drain(limit).await?;
            if !status.is_some_and(|status| status.success()) {
                history.find(format!("node-{node} did not end well within {limit:?}: {status:?}"));
            }
        }
        How::Kill => process.kill().await?,
    }
    let took = began.elapsed();
    let everybody = || {
        history
            .members
            .iter()
            .all(|member| member.joined.load(Ordering::Relaxed))
    };
    if !wait_until(JOINED_MAX, async || everybody()).await {
        history.find(format!(
            "not everybody is back {JOINED_MAX:?} after the end of node-{node}"
        ));
    }
    let refused = refused() - refused_before;
    deployment.start_node(node).await?;
    sleep(SEEN_BACK).await;
    let (converged, late) = crowd.converge().await;
    for late in late {
        history.find(format!("{late}, 10 s after node-{node} was replaced"));
    }
    Ok(Round {
        node,
        how,
        at,
        took,
        returns: history.returns_since(at),
        refused,
        converged,
        sockets: sockets(deployment).await,
        window,
    })
}

/// Sockets of each node.
async fn sockets(deployment: &Deployment) -> Vec<u64> {
    let mut all = Vec::new();
    for node in 0..deployment.nodes.len() {
        let sockets = deployment.metric(node, "roomcast_connections").await;
        all.push(sockets.unwrap_or_default() as u64);
    }
    all
}

/// Every socket is a file of this process.
fn require_files(needed: u32) -> Result<(), HarnessError> {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let limit: Option<u32> = line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    match limit {
        Some(limit) if limit < needed => Err(HarnessError::Setup(format!(
            "this process may open {limit} files and needs {needed}; raise the limit with `ulimit -n {needed}`, or take fewer --rooms or --members"
        ))),
        _ => Ok(()),
    }
}
