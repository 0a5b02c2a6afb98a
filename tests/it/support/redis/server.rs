//! One server process: redis-server, valkey-server or a sentinel.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// How long a process may take to answer.
const START_MAX: Duration = Duration::from_secs(10);

/// A server with a folder of its own; its data survives a restart, not the test.
pub struct Server {
    pub port: u16,
    folder: tempfile::TempDir,
    program: PathBuf,
    args: Vec<String>,
    /// What redis-cli needs besides the port.
    cli_args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// Prepares a server that keeps every write on disk; it is not started yet.
    pub async fn new(program: impl Into<PathBuf>) -> Self {
        let (port, folder) = (free_port().await, tempfile::tempdir().unwrap());
        let mut server = Self {
            port,
            folder,
            program: program.into(),
            args: Vec::new(),
            cli_args: Vec::new(),
            child: None,
        };
        server.arg("--port", &port.to_string());
        for (name, value) in [
            ("--bind", "127.0.0.1"),
            ("--save", ""),
            ("--appendonly", "yes"),
            ("--appendfsync", "always"),
            ("--enable-debug-command", "local"),
            ("--repl-diskless-sync-delay", "0"),
        ] {
            server.arg(name, value);
        }
        let folder = server.folder().display().to_string();
        server.arg("--dir", &folder);
        server.arg("--unixsocket", "redis.sock");
        server
    }

    /// Prepares a sentinel that watches `primary`, a port, as `mymaster`.
    pub async fn sentinel(primary: u16) -> Self {
        let (port, folder) = (free_port().await, tempfile::tempdir().unwrap());
        let file = folder.path().join("sentinel.conf");
        let lines = [
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            format!("dir {}", folder.path().display()),
            format!("sentinel monitor mymaster 127.0.0.1 {primary} 2"),
            "sentinel down-after-milliseconds mymaster 1000".to_owned(),
            "sentinel failover-timeout mymaster 5000".to_owned(),
        ];
        std::fs::write(&file, lines.join("\n")).unwrap();
        Self {
            port,
            folder,
            program: "redis-sentinel".into(),
            args: vec![file.display().to_string()],
            cli_args: Vec::new(),
            child: None,
        }
    }

    /// Adds a command line option.
    pub fn arg(&mut self, name: &str, value: &str) {
        self.args.extend([name.to_owned(), value.to_owned()]);
    }

    /// Makes it speak TLS only, with these files.
    pub fn use_tls(&mut self, certificate: &Path, key: &Path, authority: &Path) {
        let port = self.port.to_string();
        let path = |path: &Path| path.display().to_string();
        self.args[1] = "0".to_owned();
        self.arg("--tls-port", &port);
        self.arg("--tls-cert-file", &path(certificate));
        self.arg("--tls-key-file", &path(key));
        self.arg("--tls-ca-cert-file", &path(authority));
        self.cli_args = ["--tls", "--cacert", "--cert", "--key"].map(str::to_owned).to_vec();
        self.cli_args.insert(2, path(authority));
        self.cli_args.insert(4, path(certificate));
        self.cli_args.push(path(key));
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Starts it, with what it had on disk, and waits until it answers.
    pub async fn start(&mut self) {
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        self.child = Some(child);
        let deadline = tokio::time::Instant::now() + START_MAX;
        while self.cli(&["PING"]).await != ["PONG"] {
            assert!(
                tokio::time::Instant::now() < deadline,
                "{} did not start",
                self.program.display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.unwrap();
        }
    }

    /// Runs a command on this server and returns its answer, a line each.
    pub async fn cli(&self, command: &[&str]) -> Vec<String> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(&self.cli_args)
            .args(command)
            .output()
            .await
            .expect("redis-cli is installed");
        let answer = String::from_utf8_lossy(&output.stdout);
        answer
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// A port for a server that may be stopped and started again: below those that connections get, so that none takes it
/// meanwhile, and with its cluster bus port, 10 000 higher, free as well.
pub async fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(11_000..22_000);
        let free = |port| async move { TcpListener::bind(("127.0.0.1", port)).await.is_ok() };
        if free(port).await && free(port + 10_000).await {
            return port;
        }
    }
}
