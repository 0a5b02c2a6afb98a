//! The attacker and the bare listener as processes of this very program.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpStream;

use super::attack::User;
use super::kind::Kind;
use crate::deployment::child::{Ports, Process, Program, wait_until};
use crate::harness::HarnessError;

/// How long the listener may take to listen.
const START_MAX: Duration = Duration::from_secs(10);

/// What the attacker is told.
pub struct Orders<'a> {
    /// The flood.
    pub kind: Kind,
    /// The core it is pinned to.
    pub core: usize,
    /// Host and port that are flooded.
    pub target: &'a str,
    /// For how long.
    pub length: Duration,
    /// The round, of how many.
    pub round: u8,
    /// All rounds.
    pub rounds: u8,
    /// Valid users in its hands.
    pub users: &'a [User],
}

/// The attacker, not yet started.
pub fn attacker(dir: &Path, name: &str, orders: &Orders<'_>) -> io::Result<Process> {
    let users = dir.join(format!("{name}.json"));
    std::fs::write(&users, serde_json::to_vec(orders.users)?)?;
    let Orders {
        kind,
        target,
        round,
        rounds,
        ..
    } = orders;
    let args = format!(
        "attack --kind {kind} --target {target} --seconds {} --round {round} --rounds {rounds} --users",
        orders.length.as_secs(),
    );
    let program = std::env::current_exe()?.display().to_string();
    let mut all = vec!["-c".to_owned(), orders.core.to_string(), program];
    all.extend(args.split(' ').map(str::to_owned));
    // Apart: a path may hold spaces.
    all.push(users.display().to_string());
    Ok(Process::new(Program {
        name: name.to_owned(),
        command: "taskset".into(),
        args: all,
        env: Vec::new(),
        dir: dir.to_owned(),
        log: dir.join(format!("{name}.log")),
    }))
}

/// Starts the bare listener and waits until it listens; with its port.
pub async fn start_listener(dir: &Path) -> Result<(Process, u16), HarnessError> {
    let port = Ports::new().free().await?;
    let mut process = Process::new(Program {
        name: "listener".to_owned(),
        command: std::env::current_exe()?,
        args: vec!["listen".to_owned(), format!("127.0.0.1:{port}")],
        env: Vec::new(),
        dir: dir.to_owned(),
        log: dir.join("listener.log"),
    });
    process.start()?;
    let is_up = wait_until(START_MAX, async || {
        TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    });
    if is_up.await {
        Ok((process, port))
    } else {
        Err(HarnessError::Setup(format!(
            "the bare listener does not answer:\n{}",
            process.tail(15)
        )))
    }
}
