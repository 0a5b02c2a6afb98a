//! A Redis of the test's own, in each form that can be deployed.

mod certificates;
mod cluster;
mod server;

use std::path::PathBuf;
use std::time::Duration;

use self::certificates::Certificates;
use self::server::Server;
pub use self::server::free_port;
use super::until;

/// How Redis is deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Standalone,
    /// A primary with a replica, watched by three sentinels.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
    /// A cluster of one server, which has all slots.
    ClusterOfOne,
    /// One server that speaks TLS and asks for a client certificate.
    Tls,
    /// One server of the other implementation.
    Valkey,
}

impl Topology {
    /// What `TEST_REDIS` names.
    pub fn chosen() -> Self {
        match std::env::var("TEST_REDIS").as_deref() {
            Err(_) | Ok("" | "standalone") => Self::Standalone,
            Ok("sentinel") => Self::Sentinel,
            Ok("cluster") => Self::Cluster,
            Ok("tls") => Self::Tls,
            Ok("valkey") => Self::Valkey,
            Ok(other) => panic!("TEST_REDIS={other}: use standalone, sentinel, cluster, tls or valkey"),
        }
    }
}

/// Private servers on free ports; their data survives a restart, not the test.
pub struct TestRedis {
    topology: Topology,
    servers: Vec<Server>,
    sentinels: Vec<Server>,
    certificates: Option<Certificates>,
}

/// How long a group of servers may take to agree: a sentinel that a busy machine held up does nothing for 30 s.
const AGREE_MAX: Duration = Duration::from_secs(60);
/// Commands without a key that mean the whole deployment.
const EVERYWHERE: [&str; 6] = ["--scan", "FLUSHALL", "SCRIPT", "CLIENT", "CONFIG", "DEBUG"];

impl TestRedis {
    /// Starts the topology that `TEST_REDIS` names.
    pub async fn start() -> Self {
        Self::start_as(Topology::chosen()).await
    }

    pub async fn start_as(topology: Topology) -> Self {
        let program = match topology {
            Topology::Valkey => std::env::var("TEST_VALKEY_SERVER").expect("TEST_VALKEY_SERVER names a valkey-server"),
            _ => "redis-server".to_owned(),
        };
        let number = match topology {
            Topology::Cluster => 6,
            Topology::Sentinel => 2,
            _ => 1,
        };
        let mut redis = Self {
            topology,
            servers: Vec::new(),
            sentinels: Vec::new(),
            certificates: None,
        };
        for _ in 0..number {
            redis.servers.push(Server::new(&program).await);
        }
        match topology {
            Topology::Standalone | Topology::Valkey => {}
            Topology::Tls => {
                let server = &mut redis.servers[0];
                let files = Certificates::create(server.folder());
                server.use_tls(&files.certificate, &files.key, &files.authority);
                redis.certificates = Some(files);
            }
            Topology::Sentinel => {
                let primary = redis.servers[0].port;
                redis.servers[1].arg("--replicaof", &format!("127.0.0.1 {primary}"));
                for _ in 0..3 {
                    redis.sentinels.push(Server::sentinel(primary).await);
                }
            }
            Topology::ClusterOfOne => {
                redis.servers[0].arg("--cluster-enabled", "yes");
                // A server that has met no other does not know its own address.
                redis.servers[0].arg("--cluster-announce-ip", "127.0.0.1");
            }
            Topology::Cluster => {
                for server in &mut redis.servers {
                    server.arg("--cluster-enabled", "yes");
                    server.arg("--cluster-node-timeout", "2000");
                    // By default the whole cluster refuses while one primary is away.
                    server.arg("--cluster-require-full-coverage", "no");
                }
            }
        }
        for server in &mut redis.servers {
            server.start().await;
        }
        if topology == Topology::Cluster {
            redis.create_cluster().await;
        }
        if topology == Topology::ClusterOfOne {
            redis.cli_of(0, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        }
        redis.agree().await;
        for sentinel in &mut redis.sentinels {
            sentinel.start().await;
        }
        until("the sentinels know each other and the replica", AGREE_MAX, || async {
            for sentinel in &redis.sentinels {
                let quorum = sentinel.cli(&["SENTINEL", "CKQUORUM", "mymaster"]).await;
                let replicas = sentinel.cli(&["SENTINEL", "REPLICAS", "mymaster"]).await;
                if !quorum.concat().starts_with("OK 3") || replicas.is_empty() {
                    return false;
                }
            }
            true
        })
        .await;
        redis
    }

    /// The settings of a node that uses it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let nodes = |servers: &[Server]| {
            let others = servers[1..]
                .iter()
                .map(|server| format!("node=127.0.0.1:{}", server.port));
            format!("127.0.0.1:{}?{}", servers[0].port, others.collect::<Vec<_>>().join("&"))
        };
        let url = match self.topology {
            Topology::Standalone | Topology::Valkey => format!("redis://127.0.0.1:{}", self.servers[0].port),
            Topology::Tls => format!("rediss://127.0.0.1:{}", self.servers[0].port),
            Topology::Sentinel => format!(
                "redis-sentinel://{}&sentinelServiceName=mymaster",
                nodes(&self.sentinels)
            ),
            Topology::Cluster | Topology::ClusterOfOne => format!("redis-cluster://{}", nodes(&self.servers)),
        };
        let mut settings = vec![("REDIS_URL", url)];
        if let Some(files) = &self.certificates {
            let path = |path: &std::path::Path| path.display().to_string();
            settings.extend([
                ("REDIS_TLS_CA_FILE", path(&files.authority)),
                ("REDIS_TLS_CERT_FILE", path(&files.certificate)),
                ("REDIS_TLS_KEY_FILE", path(&files.key)),
            ]);
        }
        settings
    }

    /// The socket file of the first server.
    pub fn socket_file(&self) -> PathBuf {
        self.servers[0].folder().join("redis.sock")
    }

    /// Ends every server that holds data, as a crash would.
    pub async fn kill(&mut self) {
        for server in &mut self.servers {
            server.kill().await;
        }
    }

    /// Starts the servers again that do not run, with what they had on disk.
    pub async fn resume(&mut self) {
        for server in &mut self.servers {
            if !server.is_running() {
                server.start().await;
            }
        }
        self.agree().await;
    }

    /// Forgets everything, as a server without persistence does in a restart; a cluster keeps its layout.
    pub async fn wipe_disk(&mut self) {
        for server in &self.servers {
            for entry in std::fs::read_dir(server.folder()).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    std::fs::remove_dir_all(path).unwrap();
                } else if path.extension().is_some_and(|extension| extension == "rdb") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
    }

    /// Runs a command and returns its answer, a line each: on the server that owns the key, or on every primary.
    pub async fn cli(&self, command: &[&str]) -> Vec<String> {
        let everywhere = EVERYWHERE.contains(&command[0]);
        match self.topology {
            Topology::Cluster if !everywhere => {
                let redirected: Vec<&str> = [&["-c"], command].concat();
                self.running().cli(&redirected).await
            }
            Topology::Cluster | Topology::Sentinel => {
                let mut lines = Vec::new();
                for index in self.primaries().await {
                    lines.extend(self.servers[index].cli(command).await);
                }
                lines
            }
            _ => self.servers[0].cli(command).await,
        }
    }

    /// The members of a set, sorted.
    pub async fn members(&self, key: &str) -> Vec<String> {
        let mut members = self.cli(&["SMEMBERS", key]).await;
        members.sort();
        members
    }

    fn running(&self) -> &Server {
        self.servers.iter().find(|server| server.is_running()).unwrap()
    }

    /// The servers that are primaries now, by index.
    pub async fn primaries(&self) -> Vec<usize> {
        let mut primaries = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            if server.is_running() && server.cli(&["ROLE"]).await.first().is_some_and(|role| role == "master") {
                primaries.push(index);
            }
        }
        primaries
    }

    /// The port of the first server.
    pub fn port(&self) -> u16 {
        self.servers[0].port
    }

    /// One of the servers.
    pub async fn cli_of(&self, index: usize, command: &[&str]) -> Vec<String> {
        self.servers[index].cli(command).await
    }

    /// Ends one of the servers, as a crash would.
    pub async fn kill_one(&mut self, index: usize) {
        self.servers[index].kill().await;
    }

    /// Makes a sentinel replace the healthy primary: the one that the nodes would ask last.
    pub async fn order_failover(&self) -> Vec<String> {
        let sentinel = self.sentinels.last().unwrap();
        sentinel.cli(&["SENTINEL", "FAILOVER", "mymaster"]).await
    }

    /// Waits until every server knows its place.
    async fn agree(&self) {
        until("the servers agree", AGREE_MAX, || async {
            let mut replicas = 0;
            for server in &self.servers {
                if matches!(self.topology, Topology::Cluster | Topology::ClusterOfOne) {
                    let info = server.cli(&["CLUSTER", "INFO"]).await;
                    if !info.iter().any(|line| line.trim() == "cluster_state:ok") {
                        return false;
                    }
                }
                let role = server.cli(&["ROLE"]).await;
                if role.first().is_some_and(|role| role == "slave") {
                    replicas += usize::from(role[3] == "connected");
                }
            }
            replicas
                == match self.topology {
                    Topology::Cluster => 3,
                    Topology::Sentinel => 1,
                    _ => 0,
                }
        })
        .await;
    }
}
