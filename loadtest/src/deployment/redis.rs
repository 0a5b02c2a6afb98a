//! Redis as child processes: standalone, with sentinels, or as a cluster; what it holds, and how it fails over.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::child::{Ports, Process, Program, wait_until};
use super::plan::{Durability, Topology};
use super::resp::{Reply, call, call_routed};

/// How long a start, a failover or the return of a replica may take.
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// One server and where it listens.
#[derive(Debug)]
pub struct Server {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The server itself.
    pub process: Process,
}

/// All servers of a run.
#[derive(Debug)]
pub struct Redis {
    /// How they belong together.
    pub topology: Topology,
    /// The servers that hold data.
    pub servers: Vec<Server>,
    sentinels: Vec<Server>,
}

impl Redis {
    /// Starts all servers and waits until they serve.
    pub async fn start(topology: Topology, durability: Durability, dir: &Path, ports: &mut Ports) -> io::Result<Self> {
        let count = match topology {
            Topology::Standalone => 1,
            Topology::Sentinel => 3,
            Topology::Cluster => 6,
        };
        let mut redis = Self {
            topology,
            servers: Vec::new(),
            sentinels: Vec::new(),
        };
        for index in 0..count {
            let port = ports.free().await?;
            let mut server = Server {
                port,
                process: Process::new(server_program(topology, durability, dir, index, port)?),
            };
            if topology == Topology::Sentinel && index > 0 {
                server.process.program.args.extend(replica_of(redis.servers[0].port));
            }
            server.process.start()?;
            redis.servers.push(server);
        }
        for index in 0..count {
            redis.wait_ping(index).await?;
        }
        match topology {
            Topology::Standalone => {}
            Topology::Sentinel => redis.start_sentinels(dir, ports).await?,
            Topology::Cluster => redis.create_cluster().await?,
        }
        redis.wait_replicas().await?;
        Ok(redis)
    }

    /// What the nodes are told; the proxy's port stands for the server's in the standalone topology.
    pub fn url(&self, proxy: Option<u16>) -> String {
        let more = |servers: &[Server]| -> String {
            let rest = servers.iter().skip(1);
            rest.map(|server| format!("node=127.0.0.1:{}", server.port))
                .collect::<Vec<_>>()
                .join("&")
        };
        let first = self.servers[0].port;
        match self.topology {
            Topology::Standalone => format!("redis://127.0.0.1:{}", proxy.unwrap_or(first)),
            Topology::Sentinel => format!(
                "redis-sentinel://127.0.0.1:{}?sentinelServiceName=chaos&{}",
                self.sentinels[0].port,
                more(&self.sentinels)
            ),
            Topology::Cluster => format!("redis-cluster://127.0.0.1:{first}?{}", more(&self.servers)),
        }
    }

    /// The servers that take writes now, by index; a cluster's only where they own slots.
    pub async fn masters(&self) -> Vec<usize> {
        match self.topology {
            Topology::Standalone => vec![0],
            Topology::Sentinel => self.sentinel_master().await.into_iter().collect(),
            Topology::Cluster => {
                for server in self.alive() {
                    if let Ok(nodes) = call(server.port, &["CLUSTER", "NODES"]).await {
                        return self.owners(nodes.text());
                    }
                }
                Vec::new()
            }
        }
    }

    /// The linked replicas of a master, by index.
    pub async fn replicas_of(&self, master: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let Ok(role) = call(server.port, &["ROLE"]).await else {
                continue;
            };
            if let [Reply::Text(role), _, Reply::Int(port), Reply::Text(state), ..] = role.list()
                && (role, state.as_str()) == (&"slave".to_owned(), "connected")
                && *port == i64::from(self.servers[master].port)
            {
                found.push(index);
            }
        }
        found
    }

    /// Starts a server that was killed; with sentinels it comes back as a replica.
    pub async fn restart(&mut self, index: usize) -> io::Result<()> {
        if self.topology == Topology::Sentinel {
            let master = self.sentinel_master().await;
            let master = master.ok_or_else(|| io::Error::other("the sentinels know no master"))?;
            let port = self.servers[master].port;
            let args = &mut self.servers[index].process.program.args;
            args.retain(|arg| arg != "--replicaof" && !arg.starts_with("127.0.0.1 "));
            args.extend(replica_of(port));
        }
        self.servers[index].process.start()?;
        self.wait_ping(index).await
    }

    /// Waits until somebody else serves in the place of a dead master.
    pub async fn wait_failed_over(&self, dead: usize) -> io::Result<()> {
        let moved = wait_until(SETTLE_MAX, async || match self.topology {
            Topology::Standalone => true,
            Topology::Sentinel => match self.sentinel_master().await {
                Some(master) if master != dead => self.is_master(master).await,
                _ => false,
            },
            Topology::Cluster => self.is_whole(Some(dead)).await,
        });
        settled(moved.await, "no failover in time")
    }

    /// Waits until a server is master; the order to become it was given.
    pub async fn wait_master(&self, index: usize) -> io::Result<()> {
        let whole = wait_until(SETTLE_MAX, async || {
            self.is_master(index).await && (self.topology != Topology::Cluster || self.is_whole(None).await)
        });
        settled(whole.await, "no graceful failover in time")
    }

    /// Waits until every server that is no master follows one.
    pub async fn wait_replicas(&self) -> io::Result<()> {
        let expected = match self.topology {
            Topology::Standalone => return Ok(()),
            Topology::Sentinel => 2,
            Topology::Cluster => 3,
        };
        let linked = wait_until(SETTLE_MAX, async || {
            let mut linked = 0;
            for master in self.masters().await {
                linked += self.replicas_of(master).await.len();
            }
            linked == expected
        });
        settled(linked.await, "the replicas do not follow")
    }

    /// Orders the sentinels to replace a healthy master.
    pub async fn order_failover(&self) -> io::Result<()> {
        // Right after another failover they refuse for a moment.
        let obeyed = wait_until(SETTLE_MAX, async || {
            call(self.sentinels[0].port, &["SENTINEL", "FAILOVER", "chaos"])
                .await
                .is_ok()
        });
        settled(obeyed.await, "the sentinels refuse to fail over")
    }

    /// Every room's name with the key of its log, and the port that owns it.
    pub async fn room_logs(&self) -> io::Result<Vec<(String, String, u16)>> {
        let mut found = Vec::new();
        for master in self.masters().await {
            let port = self.servers[master].port;
            let mut cursor = "0".to_owned();
            loop {
                let page = call(port, &["SCAN", &cursor, "MATCH", "rc:{p*}:room:*:log", "COUNT", "1000"]).await?;
                for key in page.list().get(1).map_or(&[][..], Reply::list) {
                    let room = key
                        .text()
                        .split_once(":room:")
                        .and_then(|(_, rest)| rest.strip_suffix(":log"));
                    if let Some(room) = room {
                        found.push((room.to_owned(), key.text().to_owned(), port));
                    }
                }
                page.list().first().map_or("0", Reply::text).clone_into(&mut cursor);
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// The questions of a room that ended without a reply, as far as Redis remembers.
    pub async fn failed_questions(&self, room: &str) -> io::Result<Vec<String>> {
        let mut failed = Vec::new();
        for master in self.masters().await {
            let (port, mut cursor) = (self.servers[master].port, "0".to_owned());
            loop {
                let pattern = format!("rc:{{p*}}:gpt:end:{room}:*");
                let page = call(port, &["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"]).await?;
                for key in page.list().get(1).map_or(&[][..], Reply::list) {
                    // A reply leaves a mark that says where it is.
                    let mark = call(port, &["GET", key.text()]).await?;
                    if mark.text().starts_with("gpt|")
                        && let Some((_, question)) = key.text().rsplit_once(':')
                    {
                        failed.push(question.to_owned());
                    }
                }
                cursor = page.list().first().map_or("0", Reply::text).to_owned();
                if cursor == "0" {
                    break;
                }
            }
        }
        Ok(failed)
    }

    /// The members of a set, wherever it is.
    pub async fn members(&self, key: &str) -> io::Result<Vec<String>> {
        let masters = self.masters().await;
        let first = masters.first().ok_or_else(|| io::Error::other("no master answers"))?;
        let members = call_routed(self.servers[*first].port, &["SMEMBERS", key]).await?;
        Ok(members.list().iter().map(|member| member.text().to_owned()).collect())
    }

    /// A page of a log from the server that owns it.
    pub async fn range(&self, port: u16, key: &str, from: &str) -> io::Result<Vec<Reply>> {
        let page = call_routed(port, &["XRANGE", key, from, "+", "COUNT", "1000"]).await?;
        Ok(page.list().to_vec())
    }

    /// Whatever ended although nobody asked it to.
    pub fn unexpected_ends(&mut self) -> Vec<String> {
        let all = self.servers.iter_mut().chain(&mut self.sentinels);
        all.filter_map(|server| {
            let status = server.process.unexpected_end()?;
            Some(format!("{} ended by itself: {status}", server.process.program.name))
        })
        .collect()
    }

    fn alive(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.process.is_started())
    }

    async fn is_master(&self, index: usize) -> bool {
        let role = call(self.servers[index].port, &["ROLE"]).await;
        role.is_ok_and(|role| role.list().first().is_some_and(|role| role.text() == "master"))
    }

    async fn sentinel_master(&self) -> Option<usize> {
        for sentinel in &self.sentinels {
            let address = call(sentinel.port, &["SENTINEL", "get-master-addr-by-name", "chaos"]).await;
            let Ok(address) = address else { continue };
            let port = address.list().get(1).and_then(|port| port.text().parse::<u16>().ok())?;
            return self.servers.iter().position(|server| server.port == port);
        }
        None
    }

    fn owners(&self, nodes: &str) -> Vec<usize> {
        let owner = |line: &str| {
            let fields: Vec<_> = line.split(' ').collect();
            let serves = fields.len() > 8 && fields[2].contains("master") && !fields[2].contains("fail");
            let port = fields
                .get(1)?
                .split('@')
                .next()?
                .rsplit(':')
                .next()?
                .parse::<u16>()
                .ok()?;
            serves.then(|| self.servers.iter().position(|server| server.port == port))?
        };
        nodes.lines().filter_map(owner).collect()
    }

    /// Whether every live server of a cluster sees three serving masters, none of them the dead one.
    async fn is_whole(&self, dead: Option<usize>) -> bool {
        for server in self.alive() {
            let state = call(server.port, &["CLUSTER", "INFO"]).await;
            let nodes = call(server.port, &["CLUSTER", "NODES"]).await;
            let (Ok(state), Ok(nodes)) = (state, nodes) else {
                return false;
            };
            let owners = self.owners(nodes.text());
            let served = owners.len() == 3 && !owners.iter().any(|owner| Some(*owner) == dead);
            if !served || !state.text().contains("cluster_state:ok") {
                return false;
            }
        }
        true
    }

    async fn wait_ping(&self, index: usize) -> io::Result<()> {
        let port = self.servers[index].port;
        let answers = wait_until(SETTLE_MAX, async || call(port, &["PING"]).await.is_ok());
        settled(answers.await, "Redis does not answer PING")
    }

    async fn start_sentinels(&mut self, dir: &Path, ports: &mut Ports) -> io::Result<()> {
        for index in 0..3 {
            let (name, port) = (format!("sentinel-{index}"), ports.free().await?);
            let home = dir.join(&name);
            fs::create_dir_all(&home)?;
            let config = home.join("sentinel.conf");
            let text = format!(
                "bind 127.0.0.1\nport {port}\nsentinel monitor chaos 127.0.0.1 {} 2\n\
                 sentinel down-after-milliseconds chaos 1000\nsentinel failover-timeout chaos 5000\n",
                self.servers[0].port
            );
            fs::write(&config, text)?;
            let mut process = Process::new(Program {
                args: vec![config.display().to_string(), "--sentinel".to_owned()],
                ..program(&name, "redis-server", dir, home)
            });
            process.start()?;
            self.sentinels.push(Server { port, process });
        }
        // They find each other, and the replicas, through the master.
        let met = wait_until(SETTLE_MAX, async || {
            for sentinel in &self.sentinels {
                let Ok(info) = call(sentinel.port, &["INFO", "sentinel"]).await else {
                    return false;
                };
                if !info.text().contains("slaves=2,sentinels=3") {
                    return false;
                }
            }
            true
        });
        settled(met.await, "the sentinels do not find each other")
    }

    async fn create_cluster(&self) -> io::Result<()> {
        let addresses = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        let whole = wait_until(SETTLE_MAX, async || self.is_whole(None).await);
        settled(whole.await, "the cluster does not come up")
    }
}

fn settled(done: bool, otherwise: &str) -> io::Result<()> {
    if done { Ok(()) } else { Err(io::Error::other(otherwise)) }
}

fn replica_of(port: u16) -> [String; 2] {
    ["--replicaof".to_owned(), format!("127.0.0.1 {port}")]
}

fn program(name: &str, command: &str, dir: &Path, home: std::path::PathBuf) -> Program {
    Program {
        name: name.to_owned(),
        command: command.into(),
        args: Vec::new(),
        env: Vec::new(),
        log: dir.join(format!("{name}.log")),
        dir: home,
    }
}

fn server_program(
    topology: Topology,
    durability: Durability,
    dir: &Path,
    index: usize,
    port: u16,
) -> io::Result<Program> {
    let name = format!("redis-{index}");
    let home = dir.join(&name);
    fs::create_dir_all(&home)?;
    let fsync = if durability == Durability::Fsync {
        "always"
    } else {
        "everysec"
    };
    let mut args = format!("--bind 127.0.0.1 --port {port} --appendonly yes --appendfsync {fsync}");
    if durability == Durability::Replica {
        args.push_str(" --min-replicas-to-write 1 --min-replicas-max-lag 2");
    }
    if topology != Topology::Standalone {
        // The default of 5 s before a full resync begins would dominate every recovery.
        args.push_str(" --repl-diskless-sync-delay 0 --repl-ping-replica-period 1");
    }
    if topology == Topology::Cluster {
        args.push_str(" --cluster-enabled yes --cluster-node-timeout 2000 --cluster-replica-validity-factor 0");
    }
    let mut args: Vec<_> = args.split(' ').map(str::to_owned).collect();
    args.extend(["--save".to_owned(), String::new()]);
    Ok(Program {
        args,
        ..program(&name, "redis-server", dir, home)
    })
}
