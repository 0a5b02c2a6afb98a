//! Child processes: output into files, signals, an end that leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How to start a program, again and again.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in messages and of its log.
    pub name: String,
    /// What is executed.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment, beside `PATH` and `HOME`.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub dir: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A program and, while it runs, its process; dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// How it is started.
    pub program: Program,
    child: Option<Child>,
}

impl Process {
    /// Not yet started.
    pub fn new(program: Program) -> Self {
        Self { program, child: None }
    }

    /// Starts it; its output is appended to its log.
    pub fn start(&mut self) -> io::Result<()> {
        let program = &self.program;
        let log = open_log(&program.log)?;
        // Nothing of the caller's environment but what programs need to run: settings must come from here.
        let inherited = ["PATH", "HOME"]
            .into_iter()
            .filter_map(|name| Some((name, std::env::var_os(name)?)));
        let child = Command::new(&program.command)
            .args(&program.args)
            .env_clear()
            .envs(inherited)
            .env("RUST_BACKTRACE", "1")
            .envs(program.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&program.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C of a terminal goes to its foreground group: we end them, in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot start {}: {error}", program.command.display()),
                )
            })?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it was started and not ended by us.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// How it ended although nobody asked it to.
    pub fn unexpected_end(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Sends a signal by its name, such as `STOP`.
    pub async fn signal(&self, name: &str) -> io::Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        // The shell's own `kill`: signals would need unsafe code or another dependency.
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status()
            .await?;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("cannot send {name} to {}", self.program.name)))
        }
    }

    /// Ends it as a crash would.
    pub async fn kill(&mut self) -> io::Result<()> {
        match self.child.take() {
            Some(mut child) => child.kill().await,
            None => Ok(()),
        }
    }

    /// Asks it to end; false when it had to be killed after `limit`.
    pub async fn terminate(&mut self, limit: Duration) -> io::Result<bool> {
        self.signal("TERM").await?;
        let Some(mut child) = self.child.take() else {
            return Ok(true);
        };
        match timeout(limit, child.wait()).await {
            Ok(status) => status.map(|_| true),
            Err(_) => child.kill().await.map(|()| false),
        }
    }

    /// Asks it to end and tells how it did; `None` when it had to be killed after `limit`.
    pub async fn drain(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal("TERM").await?;
        self.wait(limit).await
    }

    /// Waits until it has ended by itself; `None` when it had to be killed after `limit`.
    pub async fn wait(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        match timeout(limit, child.wait()).await {
            Ok(status) => status.map(Some),
            Err(_) => child.kill().await.map(|()| None),
        }
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.program.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.trim_end().lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Hands out ports nobody listens on, below the ephemeral ones: an outgoing connection would take those again.
#[derive(Debug)]
pub struct Ports {
    next: u16,
}

impl Ports {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 9_000;

    /// Begins somewhere else in every process.
    pub fn new() -> Self {
        let start = std::process::id().wrapping_mul(97) % u32::from(Self::COUNT);
        Self { next: start as u16 }
    }

    /// A free port; the one 10 000 above it, where a cluster talks to itself, is free too.
    pub async fn free(&mut self) -> io::Result<u16> {
        for _ in 0..Self::COUNT {
            let port = Self::FIRST + self.next;
            self.next = (self.next + 1) % Self::COUNT;
            let near = TcpListener::bind(("127.0.0.1", port)).await;
            let far = TcpListener::bind(("127.0.0.1", port + 10_000)).await;
            if near.is_ok() && far.is_ok() {
                return Ok(port);
            }
        }
        Err(io::Error::other("no free port"))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self::new()
    }
}

/// Asks `look` until it says true; false when the time is over.
pub async fn wait_until(limit: Duration, mut look: impl AsyncFnMut() -> bool) -> bool {
    let looking = async {
        while !look().await {
            // Between two looks; fast enough to time a recovery.
            sleep(Duration::from_millis(25)).await;
        }
    };
    timeout(limit, looking).await.is_ok()
}
