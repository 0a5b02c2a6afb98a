//! Carries faults out, and heals them.

use std::io;
use std::time::Duration;

use tokio::time::sleep;

use super::crowd::Crowd;
use super::fault::{Fault, Kind};
use super::member::Suffer;
use crate::deployment::proxy::Mode;
use crate::deployment::resp::{Reply, call};
use crate::deployment::{Deployment, Durability, Topology};

/// What is still to be done once the system has converged without the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing.
    Nothing,
    /// Start the node again.
    StartNode(usize),
    /// Start the Redis server again.
    StartRedis(usize),
}

/// Carries a fault out; returns when it is healed, with what was hit.
pub async fn inject(
    deployment: &mut Deployment,
    crowd: &Crowd,
    fault: &Fault,
    durability: Durability,
) -> io::Result<(String, Afterwards)> {
    let node = fault.pick % deployment.nodes.len();
    let on_node = Ok((format!("node-{node}"), Afterwards::Nothing));
    match fault.kind {
        Kind::NodeKill => {
            deployment.nodes[node].process.kill().await?;
            Ok((format!("node-{node}"), Afterwards::StartNode(node)))
        }
        Kind::NodeDrain => {
            deployment.drain_node(node).await?;
            Ok((format!("node-{node}"), Afterwards::StartNode(node)))
        }
        Kind::NodeStop => {
            let process = &deployment.nodes[node].process;
            process.signal("STOP").await?;
            sleep(fault.hold).await;
            process.signal("CONT").await?;
            on_node
        }
        Kind::NetDelay | Kind::NetCut | Kind::BlackHole => {
            let mode = match fault.kind {
                Kind::NetDelay => Mode::Delay(fault.strength),
                Kind::NetCut => Mode::Cut,
                _ => Mode::BlackHole,
            };
            if let Some(proxy) = &deployment.nodes[node].proxy {
                proxy.set(mode);
                sleep(fault.hold).await;
                proxy.set(Mode::Pass);
            }
            on_node
        }
        Kind::WorkerKill => {
            let worker = fault.pick % deployment.workers.len();
            deployment.workers[worker].process.kill().await?;
            sleep(fault.hold).await;
            deployment.start_worker(worker).await?;
            Ok((format!("worker-{worker}"), Afterwards::Nothing))
        }
        Kind::BackendKill => {
            deployment.backend.kill().await?;
            sleep(fault.hold).await;
            deployment.start_backend().await?;
            Ok(("backend".to_owned(), Afterwards::Nothing))
        }
        Kind::BackendStop => {
            deployment.backend.signal("STOP").await?;
            sleep(fault.hold).await;
            deployment.backend.signal("CONT").await?;
            Ok(("backend".to_owned(), Afterwards::Nothing))
        }
        Kind::SlowReaders | Kind::ClientFlap => {
            let who = suffer(crowd, fault.kind, fault).await;
            Ok((who, Afterwards::Nothing))
        }
        _ => hit_redis(deployment, fault, durability).await,
    }
}

/// Makes a third of the readers of a room, or of all members, suffer; returns when it is over.
pub async fn suffer(crowd: &Crowd, kind: Kind, fault: &Fault) -> String {
    let rooms = crowd.history.rooms.len();
    let room = fault.pick % rooms;
    let hold = fault.hold.max(Duration::from_secs(2));
    let count = if kind == Kind::SlowReaders {
        let readers: Vec<_> = crowd.readers_of(room).collect();
        // The slow room must leave somebody who reads.
        let some = &readers[..readers.len().div_ceil(2)];
        crowd.history.rooms[room]
            .loud
            .store(true, std::sync::atomic::Ordering::Relaxed);
        some.iter()
            .for_each(|member| crowd.suffer(*member, Suffer::Pause(hold)));
        some.len()
    } else {
        let all = 0..crowd.history.members.len();
        let some: Vec<_> = all.filter(|member| (member + fault.pick).is_multiple_of(3)).collect();
        some.iter()
            .for_each(|member| crowd.suffer(*member, Suffer::Offline(hold)));
        some.len()
    };
    sleep(hold).await;
    crowd.history.rooms[room]
        .loud
        .store(false, std::sync::atomic::Ordering::Relaxed);
    if kind == Kind::SlowReaders {
        format!("{count} readers of room-{room}")
    } else {
        format!("{count} clients")
    }
}

async fn hit_redis(
    deployment: &mut Deployment,
    fault: &Fault,
    durability: Durability,
) -> io::Result<(String, Afterwards)> {
    let redis = &mut deployment.redis;
    let masters = redis.masters().await;
    if masters.is_empty() {
        return Err(io::Error::other("no Redis takes writes"));
    }
    let master = masters[fault.pick % masters.len()];
    let port = redis.servers[master].port;
    let name = format!("redis-{master}");
    match fault.kind {
        Kind::RedisRestart => {
            redis.servers[master].process.kill().await?;
            sleep(fault.hold).await;
            redis.restart(master).await?;
        }
        Kind::RedisStop => {
            redis.servers[master].process.signal("STOP").await?;
            sleep(fault.hold).await;
            redis.servers[master].process.signal("CONT").await?;
            // Where it was replaced meanwhile, it has to learn that first.
            redis.wait_replicas().await?;
        }
        Kind::Failover => {
            redis.servers[master].process.kill().await?;
            redis.wait_failed_over(master).await?;
            // Without it the new master of a cluster has no replica, and must not take writes.
            if durability == Durability::Replica && redis.topology == Topology::Cluster {
                redis.restart(master).await?;
                redis.wait_replicas().await?;
                return Ok((name, Afterwards::Nothing));
            }
            return Ok((name, Afterwards::StartRedis(master)));
        }
        Kind::GracefulFailover => {
            let replicas = redis.replicas_of(master).await;
            let Some(replica) = replicas.get(fault.pick % replicas.len().max(1)).copied() else {
                return Err(io::Error::other(format!("{name} has no replica to hand over to")));
            };
            if redis.topology == Topology::Cluster {
                call(redis.servers[replica].port, &["CLUSTER", "FAILOVER"]).await?;
                redis.wait_master(replica).await?;
            } else {
                redis.order_failover().await?;
                redis.wait_failed_over(master).await?;
            }
            redis.wait_replicas().await?;
        }
        Kind::BusCut => {
            let killed = cut_bus(port, fault.pick).await?;
            return Ok((format!("{name}, client {killed}"), Afterwards::Nothing));
        }
        Kind::PubsubKill | Kind::ScriptFlush => {
            for master in masters {
                let port = redis.servers[master].port;
                match fault.kind {
                    Kind::PubsubKill => call(port, &["CLIENT", "KILL", "TYPE", "pubsub"]).await?,
                    _ => call(port, &["SCRIPT", "FLUSH"]).await?,
                };
            }
        }
        _ => {}
    }
    Ok((name, Afterwards::Nothing))
}

/// Kills one connection that has a room's channel; tells which.
async fn cut_bus(port: u16, pick: usize) -> io::Result<String> {
    let clients = call(port, &["CLIENT", "LIST"]).await?;
    let is_bus = |line: &&str| {
        let mut fields = line.split(' ').filter_map(|field| field.split_once('='));
        fields.any(|(name, value)| matches!(name, "sub" | "ssub") && value != "0")
    };
    let buses: Vec<_> = clients.text().lines().filter(is_bus).collect();
    let Some(bus) = buses.get(pick % buses.len().max(1)) else {
        return Ok("none".to_owned());
    };
    let id = bus
        .split(' ')
        .find_map(|field| field.strip_prefix("id="))
        .unwrap_or_default();
    // Gone already counts as cut.
    let _: Result<Reply, _> = call(port, &["CLIENT", "KILL", "ID", id]).await;
    Ok(id.to_owned())
}
