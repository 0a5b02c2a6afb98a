//! What a socket costs that comes, and then only is there: heartbeats, leases and memory.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::CONNECTS_PER_SECOND;
use crate::compare::{Peer, Placement, Programs, Servers, cpu, enter};
use crate::flood::proc::memory;

/// Two sizes, so that what a process costs by itself falls out of the difference.
pub const SOCKETS: [u32; 2] = [500, 4000];
/// Members of each room.
const MEMBERS: u32 = 20;
/// Two heartbeats of each socket, and every renewal that happens once a minute.
const RESTS: Duration = Duration::from_secs(60);

/// What was found for a number of sockets, in all.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rested {
    /// Sockets, joined.
    pub sockets: u32,
    /// CPU while they came, ms.
    pub node_connects_ms: f64,
    /// The same of Redis.
    pub redis_connects_ms: f64,
    /// CPU in the minute after, ms.
    pub node_minute_ms: f64,
    /// The same of Redis.
    pub redis_minute_ms: f64,
    /// Resident memory, KiB.
    pub node_kib: f64,
    /// The same of Redis.
    pub redis_kib: f64,
}

/// Has so many sockets join and rest on one node.
pub async fn measure(sockets: u32, programs: &Programs, dir: &Path) -> io::Result<Rested> {
    let rooms = sockets / MEMBERS;
    let servers = Servers::start(Peer::Roomcast, programs, dir, 1, rooms, MEMBERS).await?;
    let before = cpu(&servers)?;
    let seats = servers.seats(rooms, MEMBERS, Placement::First);
    let fleet = enter(Peer::Roomcast, seats, CONNECTS_PER_SECOND).await?;
    let joined = cpu(&servers)?;
    sleep(RESTS).await;
    let rested = cpu(&servers)?;
    let kib = |pid: Option<u32>| pid.map_or(Ok(0.0), |pid| Ok::<_, io::Error>(memory(pid)?.rss as f64));
    let found = Rested {
        sockets,
        node_connects_ms: (joined.0 - before.0) * 1e3,
        redis_connects_ms: (joined.1 - before.1) * 1e3,
        node_minute_ms: (rested.0 - joined.0) * 1e3,
        redis_minute_ms: (rested.1 - joined.1) * 1e3,
        node_kib: kib(servers.pids().first().copied())?,
        redis_kib: kib(servers.redis())?,
    };
    fleet.leave().await;
    Ok(found)
}

/// For people, as Markdown.
pub fn table(all: &[Rested]) -> String {
    let mut text = String::from(
        "| idle sockets | node: ms a connect | ms in the minute after | MiB | Redis: ms a connect | ms in the minute after | MiB |\n|---|---|---|---|---|---|---|\n",
    );
    for found in all {
        let sockets = f64::from(found.sockets);
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "| {} | {:.2} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} |",
            found.sockets,
            found.node_connects_ms / sockets,
            found.node_minute_ms,
            found.node_kib / 1024.0,
            found.redis_connects_ms / sockets,
            found.redis_minute_ms,
            found.redis_kib / 1024.0,
        );
    }
    text
}
