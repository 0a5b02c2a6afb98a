//! What is measured: roomcast and what people would use instead, each as processes of its own on 127.0.0.1.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::deployment::child::{Ports, Process, Program, wait_until};
use crate::deployment::plan::display_as_value;
use crate::deployment::redis::Redis;
use crate::deployment::{APP, Deployment, Durability, Plan, Topology, auth};
use crate::fleet::{Seat, source};

/// How long a peer may take to listen.
const START_MAX: Duration = Duration::from_secs(8);
/// How often it is started.
const STARTS_MAX: u32 = 3;

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// roomcast, with Redis, its services and a worker
    Roomcast,
    /// The same with `appendfsync always`: a message is on disk before its ack
    RoomcastFsync,
    /// socket.io on Node.js with its Redis adapter
    Node,
    /// The same with its sharded adapter
    NodeSharded,
    /// socketioxide with its own Redis adapter
    Stock,
    /// A loop that writes one frame to each member, and nothing else
    Floor,
}
display_as_value!(Peer);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// roomcast.
    pub roomcast: PathBuf,
    /// The folder of `server.mjs` with its `node_modules`.
    pub node: PathBuf,
    /// The peer with socketioxide.
    pub stock: PathBuf,
}

/// Started servers; dropping it kills them.
pub struct Servers {
    /// The chat servers, in the order in which they were asked for.
    pub addresses: Vec<SocketAddr>,
    pids: Vec<u32>,
    redis: Option<u32>,
    workers: Vec<u32>,
    tokens: Vec<String>,
    kept: Kept,
}

/// What lives as long as the servers.
enum Kept {
    Roomcast(Box<Deployment>),
    Other {
        _processes: Vec<Process>,
        _redis: Option<Redis>,
    },
}

impl Servers {
    /// Starts `nodes` servers of a kind for so many rooms of so many members, all files in `dir`.
    pub async fn start(
        peer: Peer,
        programs: &Programs,
        dir: &Path,
        nodes: u16,
        rooms: u32,
        members: u32,
    ) -> io::Result<Self> {
        match peer {
            Peer::Roomcast => Self::roomcast(programs, dir, nodes, rooms, members, Durability::Memory).await,
            Peer::RoomcastFsync => Self::roomcast(programs, dir, nodes, rooms, members, Durability::Fsync).await,
            _ => Self::other(peer, programs, dir, nodes).await,
        }
    }

    async fn roomcast(
        programs: &Programs,
        dir: &Path,
        nodes: u16,
        rooms: u32,
        members: u32,
        durability: Durability,
    ) -> io::Result<Self> {
        let settings = [
            // All clients come from this machine.
            ("GUARD_ALLOW", "127.0.0.0/8"),
            ("ROOMCAST_LOG", "warn"),
        ];
        let plan = Plan {
            topology: Topology::Standalone,
            durability,
            nodes,
            rooms,
            users: rooms * members,
            workers: 1,
            proxied: false,
            settings: &settings,
        };
        let deployment = Deployment::start(&plan, &programs.roomcast, dir).await?;
        let mut addresses = Vec::new();
        for node in &deployment.nodes {
            let address = node.url.trim_start_matches("http://").parse();
            addresses.push(address.map_err(io::Error::other)?);
        }
        Ok(Self {
            addresses,
            pids: deployment.nodes.iter().filter_map(|node| node.process.pid()).collect(),
            redis: deployment.redis.servers[0].process.pid(),
            workers: deployment
                .workers
                .iter()
                .filter_map(|worker| worker.process.pid())
                .collect(),
            tokens: deployment.tokens.clone(),
            kept: Kept::Roomcast(Box::new(deployment)),
        })
    }

    async fn other(peer: Peer, programs: &Programs, dir: &Path, nodes: u16) -> io::Result<Self> {
        let mut ports = Ports::new();
        let redis = match peer {
            Peer::Floor => None,
            _ => Some(Redis::start(Topology::Standalone, Durability::Memory, dir, &mut ports).await?),
        };
        let (mut addresses, mut processes) = (Vec::new(), Vec::new());
        for index in 0..nodes {
            let port = ports.free().await?;
            let (command, args) = match peer {
                Peer::Node | Peer::NodeSharded => ("node".into(), vec![text(&programs.node.join("server.mjs"))]),
                Peer::Stock => (programs.stock.clone(), vec![]),
                _ => (
                    std::env::current_exe()?,
                    vec!["floor".to_owned(), format!("127.0.0.1:{port}")],
                ),
            };
            let mut env = vec![
                ("PORT".to_owned(), port.to_string()),
                ("NODE_ENV".to_owned(), "production".to_owned()),
            ];
            if let Some(redis) = &redis {
                env.push(("REDIS_URL".to_owned(), redis.url(None)));
            }
            if peer == Peer::NodeSharded {
                env.push(("ADAPTER".to_owned(), "sharded".to_owned()));
            }
            let name = format!("{peer}-{index}");
            let mut process = Process::new(Program {
                command,
                args,
                env,
                dir: dir.to_owned(),
                log: dir.join(format!("{name}.log")),
                name,
            });
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            start_listening(&mut process, address).await?;
            addresses.push(address);
            processes.push(process);
        }
        Ok(Self {
            addresses,
            pids: processes.iter().filter_map(Process::pid).collect(),
            redis: redis.as_ref().and_then(|redis| redis.servers[0].process.pid()),
            workers: Vec::new(),
            tokens: Vec::new(),
            kept: Kept::Other {
                _processes: processes,
                _redis: redis,
            },
        })
    }

    /// The processes of the chat servers.
    pub fn pids(&self) -> &[u32] {
        &self.pids
    }

    /// The process of Redis, where there is one.
    pub fn redis(&self) -> Option<u32> {
        self.redis
    }

    /// The processes of the workers, where there are such.
    pub fn workers(&self) -> &[u32] {
        &self.workers
    }

    /// Seats of so many rooms of so many members.
    pub fn seats(&self, rooms: u32, members: u32, placement: Placement) -> Vec<Seat> {
        // `user<i>` belongs to `room-<i mod rooms>`.
        let seat = |user: u32| {
            let room = user % rooms;
            let token = self.tokens.get(user as usize).map_or("", String::as_str);
            let auth = auth(token, &format!("user{user}"), APP);
            let server = match placement {
                Placement::First => 0,
                Placement::Rooms => room,
                Placement::Members => user / rooms,
            };
            Seat {
                server: self.addresses[server as usize % self.addresses.len()],
                from: source(0, user),
                room: format!("room-{room}").into(),
                auth: Arc::from(auth.to_string()),
                slow: None,
            }
        };
        (0..rooms * members).map(seat).collect()
    }

    /// Makes rooms of the first `users` users, beside the one that each belongs to; only roomcast knows of such.
    pub async fn add_rooms(&self, rooms: u32, users: u32) -> io::Result<()> {
        if let Kept::Roomcast(deployment) = &self.kept {
            let users: Vec<usize> = (0..users as usize).collect();
            for room in 0..rooms {
                deployment.create_room(&format!("more-{room}"), &users).await?;
            }
        }
        Ok(())
    }
}

/// Which server a member connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// All to the first.
    First,
    /// Each room to one of them.
    Rooms,
    /// The members of a room to different ones.
    Members,
}

/// Starts a server and waits until it listens. A client of Redis that hangs at its start gets a second chance.
async fn start_listening(process: &mut Process, address: SocketAddr) -> io::Result<()> {
    for _ in 0..STARTS_MAX {
        process.start()?;
        let listens = wait_until(START_MAX, async || {
            tokio::net::TcpStream::connect(address).await.is_ok()
        });
        if listens.await {
            return Ok(());
        }
        process.kill().await?;
    }
    let (name, tail) = (&process.program.name, process.tail(15));
    Err(io::Error::other(format!("{name} does not listen:\n{tail}")))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
