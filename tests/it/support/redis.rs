//! A redis-server of the test's own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::until;

/// A private server on a free port; its data survives a restart, not the test.
pub struct TestRedis {
    port: u16,
    /// The bus port of a cluster of one.
    cluster: Option<u16>,
    folder: tempfile::TempDir,
    child: Option<Child>,
}

impl TestRedis {
    pub async fn start() -> Self {
        Self::start_as(None).await
    }

    /// A cluster of one server, which has all slots.
    pub async fn start_cluster() -> Self {
        let redis = Self::start_as(Some(free_port().await)).await;
        redis.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
        redis.serves_slots().await;
        redis
    }

    async fn start_as(cluster: Option<u16>) -> Self {
        let mut redis = Self {
            port: free_port().await,
            cluster,
            folder: tempfile::tempdir().unwrap(),
            child: None,
        };
        redis.resume().await;
        redis
    }

    async fn serves_slots(&self) {
        until("the cluster serves its slots", Duration::from_secs(10), || async {
            let info = self.cli(&["CLUSTER", "INFO"]).await;
            info.iter().any(|line| line.trim() == "cluster_state:ok")
        })
        .await;
    }

    pub fn url(&self) -> String {
        let scheme = if self.cluster.is_some() {
            "redis-cluster"
        } else {
            "redis"
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server as a crash would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Starts the server again with what it had on disk.
    pub async fn resume(&mut self) {
        let cluster = self.cluster.map(|port| {
            // A server that has met no other does not know its own address.
            format!("--cluster-enabled yes --cluster-port {port} --cluster-announce-ip 127.0.0.1")
        });
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args([
                "--appendonly",
                "yes",
                "--appendfsync",
                "always",
                "--enable-debug-command",
                "local",
            ])
            .args(cluster.iter().flat_map(|options| options.split(' ')))
            .arg("--dir")
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() || self.cli(&["PING"]).await != ["PONG"] {
            assert!(tokio::time::Instant::now() < deadline, "redis-server did not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Forgets everything, as a server without persistence does in a restart.
    pub async fn wipe_disk(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
        }
    }

    /// Runs a command and returns its answer, a line each.
    pub async fn cli(&self, command: &[&str]) -> Vec<String> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(command)
            .output()
            .await
            .expect("redis-cli is installed");
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect();
        lines.retain(|line| !line.is_empty());
        lines
    }

    /// The members of a set, sorted.
    pub async fn members(&self, key: &str) -> Vec<String> {
        let mut members = self.cli(&["SMEMBERS", key]).await;
        members.sort();
        members
    }
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}
