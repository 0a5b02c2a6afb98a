//! `roomcast chat` as a script uses it: lines in, lines out, over pipes.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;

use crate::support::{USER_AGENT, World, send};

/// Longer than any answer on two busy cores.
const PATIENCE: Duration = Duration::from_secs(20);

/// A chat whose input and output are pipes.
struct Terminal {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    shown: Vec<String>,
}

impl Terminal {
    fn start(url: &str, world: &World, user: &str, more: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(["chat", "--url", url, "--backend", &world.services.url(), "--user", user])
            .args(if more.contains(&"--user-agent") {
                &[][..]
            } else {
                &["--user-agent", USER_AGENT]
            })
            .args(more)
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        Self {
            input: process.stdin.take(),
            output,
            process,
            shown: Vec::new(),
        }
    }

    async fn type_line(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Reads on until a line contains the text; that line.
    async fn expect(&mut self, text: &str) -> String {
        let found = tokio::time::timeout(PATIENCE, async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                self.shown.push(line.clone());
                if line.contains(text) {
                    return line;
                }
            }
            panic!("ended without {text:?}: {:?}", self.shown);
        });
        found
            .await
            .unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.shown))
    }

    /// Closes the input and waits for the end; its exit code and what it complained about.
    async fn end(mut self) -> (i32, Vec<String>, String) {
        drop(self.input.take());
        while let Some(line) = tokio::time::timeout(PATIENCE, self.output.next_line())
            .await
            .unwrap()
            .unwrap()
        {
            self.shown.push(line);
        }
        let ended = tokio::time::timeout(PATIENCE, self.process.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let complaint = String::from_utf8_lossy(&ended.stderr).into_owned();
        (ended.status.code().unwrap(), self.shown, complaint)
    }
}

/// A way to a node that can be shut: connections break, new ones are dropped.
struct Door {
    url: String,
    open: watch::Sender<bool>,
}

impl Door {
    async fn before(node: std::net::SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (open, state) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let mut node = TcpStream::connect(node).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut node) => {}
                        _ = state.changed() => {}
                    }
                });
            }
        });
        Self { url, open }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_says_changes_and_deletes_in_order() {
    let world = World::start(2).await;
    let mut watcher = Terminal::start(&world.url(1), &world, "user4", &[]);
    watcher.expect("this is room-0").await;
    let mut script = Terminal::start(&world.url(0), &world, "user0", &["--room", "room-0"]);
    for line in [
        "one",
        "two",
        "/edit two, better",
        "/delete #1",
        "/who",
        "/edit #7 x",
        "/dance",
        "//end",
    ] {
        script.type_line(line).await;
    }
    let (code, shown, complaint) = script.end().await;
    assert_eq!((code, complaint.as_str()), (0, ""), "{shown:?}");
    let texts: Vec<&str> = shown
        .iter()
        .map(|line| line.split_once("user0: ").map_or(line.as_str(), |(_, text)| text))
        .collect();
    let of_events: Vec<&str> = texts
        .iter()
        .copied()
        .filter(|line| !line.contains("/help"))
        .skip(1)
        .collect();
    assert_eq!(
        of_events[..4],
        ["one", "two", "* user0 changed #2: two, better", "* user0 deleted #1"],
        "{shown:?}"
    );
    assert!(
        of_events[4].contains("in the room: ") && of_events[4].contains("user4"),
        "{shown:?}"
    );
    assert_eq!(of_events[5..], ["* there is no #7 here", "/end"]);
    assert!(
        shown.iter().any(|line| line.contains("there is no /dance")),
        "{shown:?}"
    );
    watcher.expect("user0: one").await;
    watcher.expect("changed #2: two, better").await;
    watcher.expect("deleted #1").await;
    watcher.expect("user0: /end").await;
    let late = Terminal::start(&world.url(1), &world, "user8", &[]);
    let (_, shown, _) = late.end().await;
    assert!(
        shown[2].ends_with("user0: two, better (edited)") && shown[3].ends_with("user0: /end"),
        "{shown:?}"
    );
    assert_eq!(shown.len(), 4, "{shown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_missed_while_reconnecting_is_shown_once_and_typed_lines_are_sent_once() {
    let world = World::start(2).await;
    let door = Door::before(world.nodes[0].address).await;
    let mut terminal = Terminal::start(&door.url, &world, "user0", &[]);
    terminal.expect("this is room-0").await;
    let (other, _) = world.joined(1, 4, "room-0").await;
    send(&other, "room-0", "before").await;
    terminal.expect("user4: before").await;

    door.open.send_replace(false);
    terminal.expect("reconnecting…").await;
    terminal.type_line("typed meanwhile").await;
    for number in 0..3 {
        send(&other, "room-0", &format!("missed {number}")).await;
    }
    door.open.send_replace(true);
    terminal.expect("connected again").await;
    terminal.expect("while you were away (3)").await;
    terminal.expect("user0: typed meanwhile").await;
    terminal.type_line("/quit").await;
    let (code, shown, complaint) = terminal.end().await;
    assert_eq!((code, complaint.as_str()), (0, ""));
    for text in ["before", "missed 0", "missed 1", "missed 2", "typed meanwhile"] {
        let times = shown.iter().filter(|line| line.ends_with(&format!(": {text}"))).count();
        assert_eq!(times, 1, "{text}: {shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_explained_and_have_an_exit_code() {
    let world = World::start(1).await;
    let url = world.url(0);
    let refused = async |url: &str, user: &str, more: &[&str]| {
        let (code, _, complaint) = Terminal::start(url, &world, user, more).end().await;
        (code, complaint)
    };
    let (code, complaint) = refused(&url, "user1", &["--room", "room-0"]).await;
    assert!(
        code == 64 && complaint.contains("do not belong to room-0; yours are room-1"),
        "{complaint}"
    );
    let (code, complaint) = refused("http://127.0.0.1:9", "user1", &[]).await;
    assert!(code == 69 && complaint.contains("cannot be reached"), "{complaint}");
    let (code, complaint) = refused("https://127.0.0.1", "user1", &[]).await;
    assert!(code == 64 && complaint.contains("https"), "{complaint}");
    let (code, complaint) = refused(&url, "user1", &["--user-agent", "Nasty"]).await;
    assert!(code == 69 && complaint.contains("blocked for 60 s"), "{complaint}");
}
