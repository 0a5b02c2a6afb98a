//! All innocent clients of a flood: they come, write, wait for what they are owed, and are judged.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::innocent::{Innocent, Profile, builder, enter};
use super::ledger::Ledger;
use super::meter::Phase;
use super::options::Options;
use crate::checker::Report;
use crate::deployment::Deployment;
use crate::deployment::child::wait_until;
use crate::deployment::logs::Logs;
use crate::harness::HarnessError;

/// Time over which it is looked whether the node has recovered.
const LOOK: Duration = Duration::from_secs(1);
/// Within this time after a flooding others wait no longer than before it.
pub const RECOVER_MAX: Duration = Duration::from_secs(30);
/// How long the last acks and deliveries may take after the last flood.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// The innocent clients; dropping it ends them.
pub struct Crowd {
    ledger: Arc<Ledger>,
    members: u64,
    per_second: f64,
    rooms: Vec<String>,
    stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Lets all connect and join, then write. Member *m* of room *r* is a user of that room.
    pub async fn start(
        options: &Options,
        deployment: &Deployment,
        rooms_in_all: u32,
        ledger: Arc<Ledger>,
    ) -> Result<Self, HarnessError> {
        let (rooms, members) = (usize::from(options.rooms), usize::from(options.members));
        let count = rooms * members;
        let period = Duration::from_secs_f64(1.0 / options.pace);
        let mut innocents = Vec::new();
        for index in 0..count {
            let (room, member) = (index % rooms, index / rooms);
            let user = room + member * rooms_in_all as usize;
            let profile = Profile {
                name: format!("innocent-{room}.{member}"),
                room: format!("room-{room}"),
                period,
                offset: period * index as u32 / count as u32,
            };
            let from = Ipv4Addr::new(127, 77, (index / 250) as u8, (index % 250) as u8 + 1);
            let builder = builder(&deployment.nodes[0].url, user, &deployment.tokens[user], from);
            let (client, events) = enter(builder, &profile.room)
                .await
                .map_err(|error| HarnessError::Setup(format!("{} did not get in: {error}", profile.name)))?;
            innocents.push(Innocent::new(ledger.clone(), profile, client, events));
        }
        let stop = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let start = Instant::now();
        for innocent in innocents {
            tasks.spawn(innocent.run(start, stop.subscribe()));
        }
        Ok(Self {
            ledger,
            members: members as u64,
            per_second: count as f64 * options.pace,
            rooms: (0..rooms).map(|room| format!("room-{room}")).collect(),
            stop,
            _tasks: tasks,
        })
    }

    /// Waits until others wait no longer than before the flood; `None` when that takes too long.
    ///
    /// What is measured next would else be what this flooding left behind.
    pub async fn recover(&self) -> Option<Duration> {
        let began = Instant::now();
        let calm = self.ledger.meter.calm_p99();
        // What goes for calm on a machine that others use too.
        let limit = calm * 3.0 + 10.0;
        let recovered = async {
            loop {
                self.ledger.meter.begin(Phase::Rest, LOOK);
                sleep(LOOK).await;
                // Those who still wait have not been counted yet.
                let has_settled = self.ledger.under_way() <= (self.per_second * limit / 1000.0) as u64 + 1;
                if has_settled && self.ledger.meter.end_rest() <= limit {
                    return began.elapsed();
                }
            }
        };
        timeout(RECOVER_MAX, recovered).await.ok()
    }

    /// Reads what is new in the logs of the innocent; those of the attacker may be long.
    pub async fn gather(&self, deployment: &Deployment, logs: &mut Logs) -> std::io::Result<()> {
        let wanted = |room: &str| self.rooms.iter().any(|ours| ours == room);
        logs.gather(&deployment.redis, wanted).await
    }

    /// Ends the writing, waits for what is owed and judges what came.
    pub async fn finish(self, deployment: &Deployment, logs: &mut Logs) -> std::io::Result<Report> {
        self.stop.send_replace(true);
        let ledger = &self.ledger;
        let all_is_here = async || {
            let sent = ledger.sent.load(Ordering::Relaxed);
            ledger.under_way() == 0 && ledger.received.load(Ordering::Relaxed) >= sent * self.members
        };
        // What does not come is named by the checker.
        wait_until(SETTLE_MAX, all_is_here).await;
        // Redis may still be busy with what the attacker left.
        let mut gathered = Ok(());
        wait_until(SETTLE_MAX, async || {
            gathered = self.gather(deployment, logs).await;
            gathered.is_ok()
        })
        .await;
        gathered?;
        let mut checker = ledger.checker();
        for room in &self.rooms {
            let log = logs.rooms.get(room).map_or(&[][..], Vec::as_slice);
            checker.log(room, log.iter().map(crate::deployment::logs::LogEntry::entry));
        }
        Ok(checker.finish())
    }
}
