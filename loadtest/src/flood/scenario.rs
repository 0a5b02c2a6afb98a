//! One flood from an empty machine to its verdict.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::attack::User;
use super::attack::tally::Report as Attacked;
use super::crowd::{Crowd, RECOVER_MAX};
use super::kind::{CROWD, Kind};
use super::ledger::Ledger;
use super::meter::{Phase, Wait, Window};
use super::newcomer::Newcomers;
use super::options::Options;
use super::peers::{Orders, attacker, start_listener};
use super::proc::{Memory, cpu_seconds, memory};
use crate::checker::Report;
use crate::deployment::child::wait_until;
use crate::deployment::logs::Logs;
use crate::deployment::resp::call;
use crate::deployment::{Deployment, Durability, Plan as Deploy, Topology};
use crate::harness::{HarnessError, Say};

/// Before a window opens: the attacker has opened what it wants to hold, and the node has met it.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is left of the memory is looked at for so long.
const LEFT_AFTER: Duration = Duration::from_secs(15);
/// How long an attacker may take beyond its time: it uses up the distinct addresses, and drops what hangs.
const ATTACK_END: Duration = Duration::from_secs(90);

/// What is to be done.
pub struct Plan<'a> {
    /// As the run was asked for.
    pub options: &'a Options,
    /// The flood.
    pub kind: Kind,
    /// The program under test.
    pub binary: &'a Path,
    /// The attacker's core.
    pub core: usize,
    /// Where progress goes.
    pub say: Say,
}

/// What came of a flood.
pub struct Outcome {
    /// The flood.
    pub kind: Kind,
    /// What was measured.
    pub windows: Vec<Window>,
    /// What the attacker did to the node, all rounds.
    pub at_node: Attacked,
    /// The same to the listener.
    pub at_listener: Attacked,
    /// The node before the first flooding.
    pub before: Memory,
    /// The node some seconds after the last.
    pub after: Memory,
    /// Growth of Redis' data in bytes.
    pub redis_growth: i64,
    /// The longest time from the end of a flooding until nobody noticed it any more.
    pub recovered: Duration,
    /// What was sent and received.
    pub report: Report,
    /// What is wrong beside that.
    pub findings: Vec<String>,
    /// Newcomers that got in, and their tries that were refused.
    pub newcomers: (u64, u64),
}

/// The deployment, the listener and the clients of one flood.
struct Scene<'a> {
    plan: &'a Plan<'a>,
    dir: &'a Path,
    deployment: Deployment,
    listener_port: u16,
    ledger: Arc<Ledger>,
    crowd: Crowd,
    logs: Logs,
    /// The longest time from the end of a flooding until nobody noticed it any more.
    recovered: Duration,
}

/// Lets a node of its own suffer the flood.
pub async fn suffer(plan: &Plan<'_>, dir: &Path) -> Result<Outcome, HarnessError> {
    std::fs::create_dir_all(dir)?;
    let options = plan.options;
    // Two rooms more: one for newcomers, one for the attacker's users.
    let rooms = u32::from(options.rooms) + 2;
    let in_room = u32::from(options.members).max(CROWD as u32 * u32::from(options.rounds));
    let deploy = Deploy {
        topology: Topology::Standalone,
        durability: Durability::Memory,
        nodes: 1,
        rooms,
        users: rooms * in_room,
        workers: 1,
        proxied: false,
        settings: plan.kind.settings(),
    };
    plan.say.line(&format!("{}: starting", plan.kind));
    let deployment = Deployment::start(&deploy, plan.binary, dir).await?;
    let (_listener, listener_port) = start_listener(dir).await?;
    let ledger = Ledger::new().map_err(|error| HarnessError::Setup(error.to_string()))?;
    let ledger = Arc::new(ledger);
    let crowd = Crowd::start(options, &deployment, rooms, ledger.clone()).await?;
    let mut coming = JoinSet::new();
    coming.spawn(newcomers(&deployment, rooms, &ledger).run());
    let mut scene = Scene {
        plan,
        dir,
        deployment,
        listener_port,
        ledger,
        crowd,
        logs: Logs::default(),
        recovered: Duration::ZERO,
    };

    sleep(WARM_UP).await;
    scene.measure(Phase::Calm).await;
    let before = scene.memory()?;
    let redis_before = scene.redis_bytes().await?;
    let (mut at_node, mut at_listener) = (Attacked::default(), Attacked::default());
    'rounds: for round in 0..options.rounds {
        // In turn the other first: what one leaves behind must not always meet the same.
        let mut order = [Phase::Listener, Phase::Node];
        order.rotate_left(usize::from(round) % 2);
        for phase in order {
            let report = scene.flood(phase, round).await?;
            let sum = if phase == Phase::Node {
                &mut at_node
            } else {
                &mut at_listener
            };
            sum.add(&report);
            if !scene.recover(phase).await {
                // Whatever came next would be measured against what this one left behind.
                break 'rounds;
            }
        }
    }
    drop(coming);
    let limit = before.rss + options.max_left * 1024;
    wait_until(LEFT_AFTER, async || {
        scene.memory().is_ok_and(|memory| memory.rss <= limit)
    })
    .await;
    let after = scene.memory()?;
    let redis_growth = scene.redis_bytes().await? - redis_before;
    let Scene {
        mut deployment,
        crowd,
        ledger,
        mut logs,
        recovered,
        ..
    } = scene;
    let report = crowd.finish(&deployment, &mut logs).await?;
    deployment.stop().await?;
    Ok(Outcome {
        kind: plan.kind,
        windows: ledger.meter.all(),
        at_node,
        at_listener,
        before,
        after,
        redis_growth,
        recovered,
        report,
        findings: ledger.findings(),
        newcomers: (
            ledger.entered.load(Ordering::Relaxed),
            ledger.refused_entries.load(Ordering::Relaxed),
        ),
    })
}

impl Scene<'_> {
    /// One flooding: warm up, measure, let the attacker end, rest.
    async fn flood(&mut self, phase: Phase, round: u8) -> Result<Attacked, HarnessError> {
        let target = match phase {
            Phase::Node => self.deployment.nodes[0].url.trim_start_matches("http://").to_owned(),
            _ => format!("127.0.0.1:{}", self.listener_port),
        };
        let length = WARM_UP + Duration::from_secs(u64::from(self.plan.options.seconds));
        let name = format!("attack-{round}-{}", phase.name());
        let orders = Orders {
            kind: self.plan.kind,
            core: self.plan.core,
            target: &target,
            length,
            round,
            rounds: self.plan.options.rounds,
            users: &self.users(round),
        };
        let mut attacker = attacker(self.dir, &name, &orders)?;
        attacker.start()?;
        sleep(WARM_UP).await;
        self.measure(phase).await;
        let status = attacker.wait(ATTACK_END).await?;
        let report = serde_json::from_str(&attacker.tail(1)).ok();
        let Some(report) = report.filter(|_| status.is_some_and(|status| status.success())) else {
            return Err(HarnessError::Setup(format!(
                "the attacker failed:\n{}",
                attacker.tail(15)
            )));
        };
        for end in self.deployment.unexpected_ends().await? {
            self.ledger.find(end);
        }
        self.say(phase, &report);
        // The log is long enough to be read at the end; along the way only what a long run would trim.
        if let Err(error) = self.crowd.gather(&self.deployment, &mut self.logs).await {
            self.plan
                .say
                .line(&format!("{}: the logs could not be read: {error}", self.plan.kind));
        }
        Ok(report)
    }

    /// Waits until nobody notices the last flooding any more; false when that takes too long.
    async fn recover(&mut self, phase: Phase) -> bool {
        let recovered = self.crowd.recover().await;
        match recovered {
            Some(time) => self.recovered = self.recovered.max(time),
            None => self.ledger.find(format!(
                "{RECOVER_MAX:?} after the flooding of the {} others still waited longer than before it; the rounds left are \
                 dropped",
                phase.name()
            )),
        }
        recovered.is_some()
    }

    /// Opens a window and lets it pass.
    async fn measure(&self, phase: Phase) {
        let length = Duration::from_secs(u64::from(self.plan.options.seconds));
        let (began, cpu) = (Instant::now(), self.cpu());
        self.ledger.meter.begin(phase, length);
        sleep_until((began + length).into()).await;
        let used = self.cpu() - cpu;
        self.ledger.meter.note_cpu(used / began.elapsed().as_secs_f64());
    }

    /// The attacker's users of a round: others each time, so that none begins blocked.
    fn users(&self, round: u8) -> Vec<User> {
        let count = self.plan.kind.users();
        let rooms = usize::from(self.plan.options.rooms) + 2;
        let room = rooms - 1;
        let users = (0..count).map(|number| {
            let user = room + (usize::from(round) * CROWD + number) * rooms;
            User {
                username: format!("user{user}"),
                token: self.deployment.tokens[user].clone(),
                room: format!("room-{room}"),
            }
        });
        users.collect()
    }

    fn node_pid(&self) -> u32 {
        self.deployment.nodes[0].process.pid().unwrap_or_default()
    }

    fn cpu(&self) -> f64 {
        // A node that just died is found elsewhere.
        cpu_seconds(self.node_pid()).unwrap_or_default()
    }

    fn memory(&self) -> std::io::Result<Memory> {
        memory(self.node_pid())
    }

    async fn redis_bytes(&self) -> std::io::Result<i64> {
        let port = self.deployment.redis.servers[0].port;
        let mut info = call(port, &["INFO", "memory"]).await;
        // It may still be busy with what the attacker left.
        wait_until(RECOVER_MAX, async || {
            if info.is_err() {
                info = call(port, &["INFO", "memory"]).await;
            }
            info.is_ok()
        })
        .await;
        let info = info?;
        let used = info.text().lines().find_map(|line| line.strip_prefix("used_memory:"));
        let used = used.and_then(|used| used.trim().parse().ok());
        used.ok_or_else(|| std::io::Error::other("Redis does not say what memory it uses"))
    }

    fn say(&self, phase: Phase, report: &Attacked) {
        let Some(window) = self.ledger.meter.all().pop() else {
            return;
        };
        self.plan.say.line(&format!(
            "{}: {:<8} ack p99 {:>8.1} ms, delivery p99 {:>8.1} ms, node {:>3.0} % cpu; attacker: {} tries, {} accepted, {} refused, {} failed",
            self.plan.kind,
            phase.name(),
            window.p99(Wait::Ack),
            window.p99(Wait::Delivery),
            window.node_cpu * 100.0,
            report.tries,
            report.accepted,
            report.forbidden + report.throttled + report.unavailable + report.other,
            report.failed,
        ));
    }
}

fn newcomers(deployment: &Deployment, rooms: u32, ledger: &Arc<Ledger>) -> Newcomers {
    let (rooms, room) = (rooms as usize, rooms as usize - 2);
    let users = deployment.tokens.iter().enumerate();
    let users = users.filter(|(user, _)| user % rooms == room);
    Newcomers {
        ledger: ledger.clone(),
        url: deployment.nodes[0].url.clone(),
        room: format!("room-{room}"),
        users: users.map(|(user, token)| (user, token.clone())).collect(),
    }
}
