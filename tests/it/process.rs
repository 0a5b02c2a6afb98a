//! `roomcast node` as a process of its own: what it makes of what the machine gives it.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::support::until;

/// Soft and hard limit of the open files of a process, as Linux tells them.
fn file_limits(process: u32) -> Option<(String, String)> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let mut words = line.split_whitespace().skip(3);
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

#[tokio::test]
async fn a_node_opens_as_many_files_as_it_may() {
    // Nobody answers as Redis: a node waits for it, and listens meanwhile.
    let node = Command::new("sh")
        .args(["-c", "ulimit -Sn 300; ulimit -Hn 2000; exec \"$0\" node"])
        .arg(env!("CARGO_BIN_EXE_roomcast"))
        .env_clear()
        .envs([
            ("REDIS_URL", "redis://127.0.0.1:1"),
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("JWT_SECRET", "s3cret-s3cret"),
            ("VISION_APP_INFO", "Vision"),
            ("ROOMCAST_LISTEN", "127.0.0.1:0"),
            ("ROOMCAST_OPS_LISTEN", "127.0.0.1:0"),
        ])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let process = node.id().unwrap();
    let raised = Some(("2000".to_owned(), "2000".to_owned()));
    let limits = || async { file_limits(process) == raised };
    until("the soft limit is the hard one", Duration::from_secs(20), limits).await;
}
