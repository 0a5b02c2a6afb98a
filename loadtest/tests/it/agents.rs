//! A load test on something that runs already, from processes that agents give: all of it real processes.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::verdict::server;

pub const SECRET: &str = "a secret that only these tests know";
const SLOW: Duration = Duration::from_secs(60);

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_roomcast-load"));
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("ROOMCAST_LOAD_SECRET")
        .env_remove("ROOMCAST_LOAD_SECRET_FILE")
        .kill_on_drop(true);
    program
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file.to_string_lossy().into_owned()
}

/// An agent on a port of its own, and where it listens.
async fn agent(folder: &Path) -> (Child, String) {
    let secret = write(folder, "secret", SECRET);
    let mut agent = program();
    agent.args(["agent", "--listen", "127.0.0.1:0", "--secret-file", &secret]);
    let mut agent = agent.spawn().unwrap();
    let mut said = BufReader::new(agent.stdout.take().unwrap()).lines();
    let line = timeout(SLOW, said.next_line()).await.unwrap().unwrap().unwrap();
    let address = line.rsplit(' ').next().unwrap().to_owned();
    (agent, address)
}

/// A run of so many seconds on the bare write loop.
pub fn run(folder: &TempDir, server: SocketAddr, lasts: u32, agents: &[&str], secret: &str) -> Command {
    let folder = folder.path();
    let scenario = format!("about: x\nrooms: 4\nmembers: 3\nconnects_per_second: 500\nrate: 60\nlasts: {lasts}\n");
    let scenario = write(folder, "scenario.yaml", &scenario);
    let tokens: String = (0..12).map(|user| format!("token{user} user{user}\n")).collect();
    let tokens = write(folder, "tokens", &tokens);
    let secret = write(folder, "proof", secret);
    let mut run = program();
    run.args([
        "run",
        &scenario,
        "--url",
        &format!("http://{server}"),
        "--tokens",
        &tokens,
    ]);
    if !agents.is_empty() {
        run.args(["--agents", &agents.join(","), "--secret-file", &secret]);
    }
    run
}

/// Sends a signal by its name.
pub async fn signal(process: &Child, name: &str) {
    let pid = process.id().unwrap().to_string();
    let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status().await;
    assert!(sent.unwrap().success());
}

async fn end(mut run: Command) -> (Option<i32>, String, String) {
    let output = timeout(SLOW, run.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_find_what_processes_of_this_machine_find() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let ((_one, first), (_two, second)) = (agent(folder.path()).await, agent(folder.path()).await);
    for agents in [&[][..], &[first.as_str(), second.as_str()]] {
        let (code, table, errors) = end(run(&folder, server, 2, agents, SECRET)).await;
        assert_eq!(code, Some(0), "{table}{errors}");
        assert!(
            table.contains("12 sockets") && table.contains("every promise and every limit was kept"),
            "{table}"
        );
        assert!(
            table.contains("copies 3") && table.contains("memory    not measured"),
            "{table}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_the_secret_gets_nothing() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let (_agent, address) = agent(folder.path()).await;
    let (code, _, errors) = end(run(&folder, server, 2, &[&address], "another secret than theirs")).await;
    assert_eq!(code, Some(2));
    assert!(
        errors.contains(&address) && errors.contains("it has another secret"),
        "{errors}"
    );
    assert!(
        !errors.contains("another secret than"),
        "secrets are not told: {errors}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_dies_ends_the_run_with_its_name() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let ((_one, first), (mut two, second)) = (agent(folder.path()).await, agent(folder.path()).await);
    let mut run = run(&folder, server, 60, &[&first, &second], SECRET).spawn().unwrap();
    let mut said = BufReader::new(run.stderr.take().unwrap()).lines();
    let mut all = String::new();
    while let Some(line) = timeout(SLOW, said.next_line()).await.unwrap().unwrap() {
        if line.contains("the talk begins") {
            two.kill().await.unwrap();
        }
        all += &line;
    }
    assert_eq!(timeout(SLOW, run.wait()).await.unwrap().unwrap().code(), Some(2));
    assert!(all.contains(&second) && !all.contains(&first), "{all}");
}

/// Reads what a program says until a line has `what` in it.
async fn wait_for(said: &mut (impl tokio::io::AsyncBufRead + Unpin), what: &str) -> String {
    let mut all = String::new();
    while !all.contains(what) {
        let read = timeout(SLOW, said.read_line(&mut all)).await.unwrap().unwrap();
        assert_ne!(read, 0, "it ended without {what:?}: {all}");
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_serves_one_run_and_the_next_when_who_led_it_is_gone() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let (mut one, address) = agent(folder.path()).await;
    let mut log = BufReader::new(one.stderr.take().unwrap());
    let mut first = run(&folder, server, 60, &[&address], SECRET).spawn().unwrap();
    wait_for(&mut BufReader::new(first.stderr.take().unwrap()), "the talk begins").await;

    let (code, _, errors) = end(run(&folder, server, 2, &[&address], SECRET)).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("another run, led from 127.0.0.1") && errors.contains(&address),
        "{errors}"
    );

    first.kill().await.unwrap();
    wait_for(&mut log, "it has ended").await;
    let (code, table, errors) = end(run(&folder, server, 2, &[&address], SECRET)).await;
    assert_eq!(code, Some(0), "{table}{errors}");

    // As Kubernetes ends it.
    signal(&one, "TERM").await;
    assert_eq!(timeout(SLOW, one.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_says_that_it_is_an_agent_is_given_no_tokens() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let impostor = tokio::spawn(async move {
        let mut stream = BufReader::new(listener.accept().await.unwrap().0);
        stream.write_all(b"{\"nonce\":\"00\"}\n").await.unwrap();
        let mut heard = String::new();
        stream.read_line(&mut heard).await.unwrap();
        stream.write_all(b"{\"proof\":\"00\"}\n").await.unwrap();
        stream.read_to_string(&mut heard).await.unwrap();
        heard
    });
    let (code, _, errors) = end(run(&folder, server, 2, &[&address], SECRET)).await;
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains(&address) && errors.contains("does not know the secret"),
        "{errors}"
    );
    let heard = timeout(SLOW, impostor).await.unwrap().unwrap();
    assert!(heard.contains("proof") && !heard.contains("token"), "{heard}");
    assert!(!heard.contains(SECRET), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_may_stand_in_the_environment() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let mut nobody = program();
    nobody.args(["agent", "--listen", "127.0.0.1:0"]);
    let (code, _, errors) = end(nobody).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("ROOMCAST_LOAD_SECRET"), "{errors}");

    let (_agent, address) = agent(folder.path()).await;
    let mut run = run(&folder, server, 2, &[], SECRET);
    run.args(["--agents", &address]).env("ROOMCAST_LOAD_SECRET", SECRET);
    let (code, table, errors) = end(run).await;
    assert_eq!(code, Some(0), "{table}{errors}");
}
