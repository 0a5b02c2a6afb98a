//! The attacker: one thread that does as much harm as it can until its time is over, and then says what it did.
//!
//! It never waits on purpose but where slowness is the weapon: whoever refuses it is tried again at once. So it takes
//! all of its core whether the node or the bare listener is the target.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::kind::{ADDRESSES, IDLE, Kind, SLOW};
use super::options::AttackOptions;
use tally::{Report, Tally};

mod crowd;
mod handshakes;
mod oversize;
mod slow;
pub mod tally;
pub(crate) mod wire;

/// Handshakes under way: enough that the core never waits for an answer, few enough that none waits for long itself.
const HANDSHAKES: usize = 64;
/// Uploads under way.
const UPLOADS: usize = 32;
/// How much longer it may take to come from every address once.
const LEAST_MAX: Duration = Duration::from_secs(60);

/// A valid user in the attacker's hands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct User {
    /// The name.
    pub username: String,
    /// Its access token.
    pub token: String,
    /// A room it belongs to.
    pub room: String,
}

/// What every task of the attacker knows.
struct Attack {
    target: SocketAddr,
    kind: Kind,
    sources: Vec<Ipv4Addr>,
    /// The first of the distinct addresses of this round, and how many there are.
    addresses: (u32, u32),
    users: Vec<User>,
    deadline: Instant,
    tally: Tally,
}

impl Attack {
    fn new(options: &AttackOptions) -> io::Result<Self> {
        let kind = options.kind;
        let sources = match kind {
            // The trusted proxy itself.
            Kind::Addresses => vec![Ipv4Addr::LOCALHOST],
            _ => (1..=kind.sources())
                .map(|last| Ipv4Addr::new(127, 66, options.round, last))
                .collect(),
        };
        let share = ADDRESSES.div_ceil(u32::from(options.rounds));
        Ok(Self {
            target: options.target,
            kind,
            sources,
            addresses: (share * u32::from(options.round), share),
            users: read_users(&options.users)?,
            deadline: Instant::now() + Duration::from_secs(options.seconds),
            tally: Tally::default(),
        })
    }

    fn source(&self, number: usize) -> Ipv4Addr {
        self.sources[number % self.sources.len()]
    }

    /// Whether there is still time; for the distinct addresses also until each of them was used.
    fn goes_on(&self) -> bool {
        Instant::now() < self.deadline || (self.kind == Kind::Addresses && !self.used_all())
    }

    fn used_all(&self) -> bool {
        self.tally.tries.load(Ordering::Relaxed) >= u64::from(self.addresses.1)
    }
}

/// Floods until the time is over; says what it did.
pub(super) async fn run(options: &AttackOptions) -> io::Result<Report> {
    let attack = Arc::new(Attack::new(options)?);
    let mut tasks = JoinSet::new();
    match attack.kind {
        Kind::Handshakes | Kind::Banned | Kind::Addresses => {
            for number in 0..HANDSHAKES {
                tasks.spawn(handshakes::flood(attack.clone(), number, HANDSHAKES));
            }
        }
        Kind::Oversize => {
            for number in 0..UPLOADS {
                tasks.spawn(oversize::flood(attack.clone(), number));
            }
        }
        Kind::Slow => {
            let doors = slow::Doors::new();
            for number in 0..SLOW {
                if number % 2 == 0 {
                    tasks.spawn(slow::drip(attack.clone(), number, doors.clone()));
                } else {
                    tasks.spawn(slow::idle(attack.clone(), number, doors.clone()));
                }
            }
        }
        Kind::Idle => {
            let doors = slow::Doors::new();
            for number in 0..IDLE {
                tasks.spawn(slow::idle(attack.clone(), number, doors.clone()));
            }
        }
        Kind::Events | Kind::Crowd => {
            for number in 0..attack.kind.users() {
                tasks.spawn(crowd::flood(attack.clone(), number));
            }
        }
    }
    // The tasks look at the clock themselves where they can; what hangs in an answer is dropped.
    let end = match attack.kind {
        Kind::Addresses => attack.deadline + LEAST_MAX,
        _ => attack.deadline,
    };
    let all = async { while tasks.join_next().await.is_some() {} };
    let _ = timeout_at(end, all).await;
    Ok(attack.tally.report())
}

fn read_users(path: &Path) -> io::Result<Vec<User>> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use tokio::net::TcpListener;

    use super::super::listener;
    use super::*;

    #[tokio::test]
    async fn every_flood_is_told_403_by_the_bare_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let serving = tokio::spawn(listener::serve(listener));
        let users = std::env::temp_dir().join(format!("roomcast-flood-users-{}.json", std::process::id()));
        std::fs::write(&users, r#"[{"username":"user0","token":"t","room":"room-0"}]"#).unwrap();
        for kind in Kind::value_variants() {
            let options = AttackOptions {
                kind: *kind,
                target,
                seconds: 1,
                round: 0,
                // Few addresses a round.
                rounds: 255,
                users: users.clone(),
            };
            let report = run(&options).await.unwrap();
            assert!(report.forbidden > 0, "{kind}: {report:?}");
            // A slow head gets no answer while it lasts.
            let slow = if *kind == Kind::Slow { SLOW as u64 / 2 } else { 0 };
            assert!(report.accepted <= slow, "{kind}: {report:?}");
        }
        std::fs::remove_file(users).unwrap();
        serving.abort();
    }
}
