//! A deployment of its own under seeded faults: processes die and stop, connections are cut, Redis restarts and fails
//! over, while writers and readers talk; the delivery checker judges what came of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

pub(crate) mod asker;
pub(crate) mod crowd;
mod fault;
pub(crate) mod history;
mod inject;
pub(crate) mod member;
mod options;
mod reader;
mod rng;
mod summary;
pub(crate) mod verdict;
mod writer;

use asker::Askers;
use crowd::Crowd;
use fault::{Fault, Schedule};
use history::History;
use inject::Afterwards;
use member::Habits;
pub use options::Options;
pub use rng::Rng;
use summary::{FaultRecord, Outcome, clock};

use crate::deployment::logs::Logs;
use crate::deployment::{Deployment, Plan, Topology};
use crate::harness::{HarnessError, Say, find_binary, run_in_folder};
use crate::questions::model::{Model, Pace};

/// Every client here comes from one address, and reconnects far more often than people do.
const SETTINGS: [(&str, &str); 5] = [
    // A question that is lost must not be waited for so long.
    ("GPT_DEADLINE", "40s"),
    ("GUARD_ALLOW", "127.0.0.0/8"),
    ("GUARD_TOKEN_REQUESTS", "1000000"),
    ("GUARD_STRIKES", "1000000"),
    ("ROOMCAST_DRAIN_SPREAD", "2s"),
];
/// One takes over what the other leaves behind.
const WORKERS: u16 = 2;
/// A reply takes long enough for its worker to die in the middle of some.
const PACE: Pace = Pace {
    words: 10,
    pause: Duration::from_millis(30),
};
/// How often it says how it stands.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// Runs to the end and prints the verdict; true when nothing is to be complained of.
///
/// All processes it starts end with it, also when it is interrupted or panics.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    let seed = options.seed.unwrap_or_else(|| history::unix_ms() % 1_000_000);
    let say = Say {
        to_stderr: options.json,
    };
    say.line(&format!(
        "seed {seed} ({}, {}, {} nodes, {} rooms of {}, {} min)",
        options.topology, options.durability, options.nodes, options.rooms, options.members, options.minutes
    ));
    let binary = find_binary(options.binary.as_deref())?;
    let schedule = Schedule::new(seed, options.topology, &options.only);
    let schedule =
        schedule.ok_or_else(|| HarnessError::Setup("none of these faults is possible in this topology".into()))?;
    let name = format!("roomcast-chaos-{seed}");
    let work = async |dir: &Path| drive(&options, seed, schedule, &binary, dir, say).await;
    run_in_folder(options.dir.as_deref(), &name, options.keep, say, work).await
}

async fn drive(
    options: &Options,
    seed: u64,
    mut schedule: Schedule,
    binary: &Path,
    dir: &Path,
    say: Say,
) -> Result<bool, HarnessError> {
    let model = Model::start(PACE).await?;
    let settings = [&SETTINGS[..], &[("GPT_BASE_URL", model.url.as_str())]].concat();
    let plan = Plan {
        topology: options.topology,
        durability: options.durability,
        nodes: options.nodes,
        rooms: u32::from(options.rooms),
        users: u32::from(options.rooms) * u32::from(options.members) + asker::ASKERS,
        workers: WORKERS,
        proxied: options.topology == Topology::Standalone,
        settings: &settings,
    };
    let mut deployment = Deployment::start(&plan, binary, dir).await?;
    let habits = Habits {
        urls: deployment.nodes.iter().map(|node| node.url.clone()).collect(),
        ramp: Duration::ZERO,
        writes_every: (100, 400),
        patient: false,
    };
    let (rooms, members) = (usize::from(options.rooms), usize::from(options.members));
    let mut crowd = Crowd::start(rooms, members, habits, &deployment.tokens, seed);
    let history = crowd.history.clone();
    let mut askers = Askers::start(&deployment, seed).await?;
    if !crowd.wait_joined(crowd::GIVE_UP).await {
        return Err(HarnessError::Setup(
            "not all members could join before the first fault".into(),
        ));
    }
    let (took, late) = crowd.converge().await;
    if !late.is_empty() {
        return Err(HarnessError::Setup(format!(
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
        let gathered = async {
            logs.gather(&deployment.redis, |room| crowd.talks_in(room)).await?;
            askers.gather(&deployment).await
        };
        if let Err(error) = gathered.await {
            say.line(&format!(
                "{} the logs could not be read: {error}",
                clock(history.elapsed())
            ));
        }
        if crowd.has_broken() {
            return Err(HarnessError::Setup("a member panicked".into()));
        }
    }
    say.line(&format!(
        "{} all is healed, waiting for the last acks, deliveries and the archive",
        clock(history.elapsed())
    ));
    let others = askers.present();
    let (report, answers) = tokio::join!(
        verdict::judge(&deployment, &crowd, &others, &mut logs, options.lost_tail()),
        askers.close(&deployment, options.topology),
    );
    let (report, answers) = (report?, answers?);
    for finding in &answers.findings {
        history.find(finding.clone());
    }
    drop(status);
    let took = history.elapsed();
    // Clients first: the end of the nodes is none of their troubles.
    drop((crowd, askers));
    deployment.stop().await?;
    let outcome = Outcome {
        faults,
        report,
        answers,
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
