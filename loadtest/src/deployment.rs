//! A deployment of its own for a harness: Redis, the services, nodes and workers, all as child processes on 127.0.0.1.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

pub mod child;
pub mod haproxy;
pub mod logs;
pub mod plan;
pub mod proxy;
pub mod redis;
pub mod resp;

use child::{Ports, Process, Program, wait_until};
pub use plan::{Durability, Plan, Topology};
use proxy::Proxy;
use redis::Redis;

/// What the clients' `userAgent` contains.
pub const APP: &str = "RoomcastLoad";
/// The CONNECT payload of a user who speaks the first protocol.
pub fn auth(token: &str, username: &str, user_agent: &str) -> Value {
    json!({"accessToken": token, "refreshToken": "none", "userAgent": user_agent, "username": username})
}

/// Any secret of at least 32 bytes.
const SECRET: &str = "roomcast-load-secret-of-more-than-32-bytes";
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);
/// How long a drain may take.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// A chat node, its way to Redis and its addresses.
#[derive(Debug)]
pub struct Node {
    /// The node itself.
    pub process: Process,
    /// Its way to Redis, where one was asked for.
    pub proxy: Option<Proxy>,
    /// Where clients connect.
    pub url: String,
    ops: String,
}

/// A worker.
#[derive(Debug)]
pub struct Worker {
    /// The worker itself.
    pub process: Process,
    ops: String,
}

/// Everything under test; dropping it kills it all.
#[derive(Debug)]
pub struct Deployment {
    /// The data.
    pub redis: Redis,
    /// The room, message and auth services.
    pub backend: Process,
    /// Base address of the services.
    pub backend_url: String,
    /// The chat nodes.
    pub nodes: Vec<Node>,
    /// What archives, and answers questions.
    pub workers: Vec<Worker>,
    /// Access tokens of `user0`, `user1`…
    pub tokens: Vec<String>,
    http: reqwest::Client,
}

impl Deployment {
    /// Starts everything and waits until it is ready.
    pub async fn start(plan: &Plan<'_>, binary: &Path, dir: &Path) -> io::Result<Self> {
        let mut ports = Ports::new();
        let redis = Redis::start(plan.topology, plan.durability, dir, &mut ports).await?;
        let tokens = tokens(binary, plan.users).await?;

        let backend_port = ports.free().await?;
        let backend_url = format!("http://127.0.0.1:{backend_port}");
        let backend = Process::new(Program {
            args: words(&format!(
                "backend --listen 127.0.0.1:{backend_port} --database sqlite://backend.db --seed-users {} --seed-rooms {}",
                plan.users, plan.rooms
            )),
            env: pairs(&[("JWT_SECRET", SECRET)]),
            ..program("backend", binary, dir)
        });
        let durability = plan.durability.to_string();
        let mut common = pairs(&[
            ("JWT_SECRET", SECRET),
            ("AUTH_URL", &backend_url),
            ("API_URL", &backend_url),
            ("VISION_APP_INFO", APP),
            ("ROOMCAST_DURABILITY", &durability),
        ]);
        common.extend(pairs(plan.settings));
        let mut nodes = Vec::new();
        for index in 0..plan.nodes {
            let proxy = if plan.proxied {
                Some(Proxy::start(redis.servers[0].port).await?)
            } else {
                None
            };
            let (listen, ops) = (ports.free().await?, ports.free().await?);
            let mut env = common.clone();
            env.extend(pairs(&[
                ("REDIS_URL", &redis.url(proxy.as_ref().map(|proxy| proxy.port))),
                ("ROOMCAST_LISTEN", &format!("127.0.0.1:{listen}")),
                ("ROOMCAST_OPS_LISTEN", &format!("127.0.0.1:{ops}")),
            ]));
            nodes.push(Node {
                process: Process::new(Program {
                    args: words("node"),
                    env,
                    ..program(&format!("node-{index}"), binary, dir)
                }),
                proxy,
                url: format!("http://127.0.0.1:{listen}"),
                ops: format!("http://127.0.0.1:{ops}"),
            });
        }
        let mut workers = Vec::new();
        for index in 0..plan.workers {
            let ops = ports.free().await?;
            let mut env = common.clone();
            env.extend(pairs(&[
                ("REDIS_URL", &redis.url(None)),
                ("ROOMCAST_OPS_LISTEN", &format!("127.0.0.1:{ops}")),
            ]));
            workers.push(Worker {
                process: Process::new(Program {
                    args: words("worker"),
                    env,
                    ..program(&format!("worker-{index}"), binary, dir)
                }),
                ops: format!("http://127.0.0.1:{ops}"),
            });
        }
        let mut deployment = Self {
            redis,
            backend,
            backend_url,
            nodes,
            workers,
            tokens,
            http: reqwest::Client::new(),
        };
        deployment.start_backend().await?;
        for index in 0..deployment.nodes.len() {
            deployment.nodes[index].process.start()?;
        }
        for index in 0..deployment.workers.len() {
            deployment.start_worker(index).await?;
        }
        for index in 0..deployment.nodes.len() {
            deployment.wait_node(index).await?;
        }
        Ok(deployment)
    }

    /// Starts the services, on the data they had.
    pub async fn start_backend(&mut self) -> io::Result<()> {
        self.backend.start()?;
        let url = format!("{}/openapi.json", self.backend_url);
        self.wait_ok(&url, "the services do not answer", &self.backend).await
    }

    /// Starts a worker and waits until it is ready.
    pub async fn start_worker(&mut self, index: usize) -> io::Result<()> {
        self.workers[index].process.start()?;
        let worker = &self.workers[index];
        let url = format!("{}/readyz", worker.ops);
        self.wait_ok(&url, "the worker does not get ready", &worker.process)
            .await
    }

    /// Starts a node and waits until it is ready.
    pub async fn start_node(&mut self, index: usize) -> io::Result<()> {
        self.nodes[index].process.start()?;
        self.wait_node(index).await
    }

    /// Waits until a node says that it is ready.
    pub async fn wait_node(&self, index: usize) -> io::Result<()> {
        let node = &self.nodes[index];
        let url = format!("{}/readyz", node.ops);
        self.wait_ok(&url, "the node does not get ready", &node.process).await
    }

    /// Asks a node to end; an error when it does not in time.
    pub async fn drain_node(&mut self, index: usize) -> io::Result<()> {
        if self.nodes[index].process.terminate(DRAIN_MAX).await? {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "node-{index} did not end within {DRAIN_MAX:?} of SIGTERM"
            )))
        }
    }

    /// Whatever ended although nobody asked it to, and is started again.
    pub async fn unexpected_ends(&mut self) -> io::Result<Vec<String>> {
        let mut ends = self.redis.unexpected_ends();
        let nodes = self.nodes.iter_mut().map(|node| &mut node.process);
        let workers = self.workers.iter_mut().map(|worker| &mut worker.process);
        for process in nodes.chain(workers).chain([&mut self.backend]) {
            if let Some(status) = process.unexpected_end() {
                ends.push(format!(
                    "{} ended by itself: {status}\n{}",
                    process.program.name,
                    process.tail(15)
                ));
                process.start()?;
            }
        }
        Ok(ends)
    }

    /// Ends everything in an orderly way, nodes first.
    pub async fn stop(&mut self) -> io::Result<()> {
        for node in &mut self.nodes {
            node.process.terminate(DRAIN_MAX).await?;
        }
        for worker in &mut self.workers {
            worker.process.terminate(DRAIN_MAX).await?;
        }
        self.backend.terminate(DRAIN_MAX).await?;
        Ok(())
    }

    /// Makes a room of these users, by their index.
    pub async fn create_room(&self, room: &str, users: &[usize]) -> io::Result<()> {
        let participants = users
            .iter()
            .map(|user| json!({ "platformid": format!("p{user}"), "nickname": format!("user{user}") }));
        let participants: Vec<_> = participants.collect();
        let room = json!({ "roomID": room, "participants": participants });
        let request = self.http.post(format!("{}/api/rooms/create-room", self.backend_url));
        let request = request
            .header("content-type", "application/json")
            .body(room.to_string());
        let answer = request.send().await.map_err(io::Error::other)?;
        answer.error_for_status().map_err(io::Error::other)?;
        Ok(())
    }

    /// The sum of a node's metric, whatever its labels; `None` when the node does not answer or has no such metric.
    pub async fn metric(&self, index: usize, name: &str) -> Option<f64> {
        let url = format!("{}/metrics", self.nodes[index].ops);
        let request = self.http.get(url).timeout(Duration::from_secs(2));
        let page = request.send().await.ok()?.text().await.ok()?;
        let of_metric = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = page.lines().filter(of_metric);
        let values: Vec<f64> = values
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// A room's messages in the archive, all pages, as JSON objects.
    pub async fn archived(&self, room: &str) -> io::Result<Vec<serde_json::Value>> {
        let mut all: Vec<serde_json::Value> = Vec::new();
        let mut since = 0;
        loop {
            let url = format!(
                "{}/api/messages/get-messages/{room}?type=new&timestamp={since}&limit=1000",
                self.backend_url
            );
            let body = self.http.get(url).send().await.map_err(io::Error::other)?;
            let body = body.error_for_status().map_err(io::Error::other)?;
            let text = body.text().await.map_err(io::Error::other)?;
            let page: Vec<serde_json::Value> = serde_json::from_str(&text)?;
            let Some(last) = page.last() else { return Ok(all) };
            let reached = last["ts"].as_u64().unwrap_or(0);
            all.extend(page);
            if reached <= since {
                return Ok(all);
            }
            since = reached;
        }
    }

    async fn wait_ok(&self, url: &str, otherwise: &str, process: &Process) -> io::Result<()> {
        let ready = wait_until(START_MAX, async || {
            let request = self.http.get(url).timeout(Duration::from_secs(2));
            request.send().await.is_ok_and(|answer| answer.status().is_success())
        });
        if ready.await {
            return Ok(());
        }
        let (name, tail) = (&process.program.name, process.tail(15));
        Err(io::Error::other(format!("{otherwise} ({name}):\n{tail}")))
    }
}

async fn tokens(binary: &Path, count: u32) -> io::Result<Vec<String>> {
    let output = Command::new(binary)
        .args(["token", "--count", &count.to_string(), "--ttl", "24h"])
        .env("JWT_SECRET", SECRET)
        .kill_on_drop(true)
        .output()
        .await?;
    let tokens: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    if output.status.success() && tokens.len() == count as usize {
        Ok(tokens)
    } else {
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn program(name: &str, binary: &Path, dir: &Path) -> Program {
    Program {
        name: name.to_owned(),
        command: PathBuf::from(binary),
        args: Vec::new(),
        env: Vec::new(),
        dir: dir.to_owned(),
        log: dir.join(format!("{name}.log")),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}
