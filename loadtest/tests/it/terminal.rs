//! A run whose standard error is a terminal: it paints, and gives the terminal back.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::agents::{SECRET, run, signal};
use super::verdict::server;

const SLOW: Duration = Duration::from_secs(60);
/// The alternate screen of xterm, and the way back.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

/// A terminal of 60 columns and 15 lines; what is written on it, until it is closed or `until` is read.
struct Terminal {
    ours: File,
    theirs: OwnedFd,
}

impl Terminal {
    fn open() -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = File::options().read(true).write(true).open(name).unwrap();
        let size = Winsize {
            ws_row: 15,
            ws_col: 60,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&theirs, size).unwrap();
        Self {
            ours: ours.into(),
            theirs: theirs.into(),
        }
    }

    fn start(self, mut run: Command) -> (Child, File) {
        let on_it = |terminal: &OwnedFd| Stdio::from(terminal.try_clone().unwrap());
        run.env("TERM", "xterm")
            .stdout(on_it(&self.theirs))
            .stderr(on_it(&self.theirs));
        (run.spawn().unwrap(), self.ours)
    }
}

/// Reads until `until` was written, or nobody can write any more.
async fn read(mut terminal: File, until: &'static str) -> (File, String) {
    let reading = tokio::task::spawn_blocking(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        // A terminal that is closed is an error, not an end.
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
            if !until.is_empty() && String::from_utf8_lossy(&all).contains(until) {
                break;
            }
        }
        (terminal, String::from_utf8_lossy(&all).into_owned())
    });
    timeout(SLOW, reading).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_shows_a_run_and_then_its_table() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let (mut run, terminal) = Terminal::open().start(run(&folder, server, 2, &[], SECRET));
    let (_, text) = read(terminal, "").await;
    assert_eq!(run.wait().await.unwrap().code(), Some(0), "{text}");
    let (before, rest) = text.split_once(ENTER).unwrap();
    let (picture, after) = rest.split_once(LEAVE).unwrap();
    assert!(before.contains("scenario: x"), "{before}");
    for part in ["talk, ", "of the last 36 s", "nodes: not measured"] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    assert!(!text.contains("the talk begins"), "{text}");
    assert!(after.contains("every promise and every limit was kept"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_gives_the_terminal_back() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let (mut run, terminal) = Terminal::open().start(run(&folder, server, 60, &[], SECRET));
    let (terminal, picture) = read(terminal, "talk, ").await;
    assert!(picture.contains(ENTER) && !picture.contains(LEAVE), "{picture}");
    signal(&run, "INT").await;
    let (_, rest) = read(terminal, "").await;
    assert_eq!(run.wait().await.unwrap().code(), Some(2), "{rest}");
    let (_, after) = rest.split_once(LEAVE).unwrap();
    assert!(after.contains("interrupted") && after.contains("\x1b[?25h"), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_lines_gets_lines() {
    let (folder, server) = (tempfile::tempdir().unwrap(), server().await);
    let mut plain = run(&folder, server, 2, &[], SECRET);
    plain.arg("--plain");
    let (mut run, terminal) = Terminal::open().start(plain);
    let (_, text) = read(terminal, "").await;
    assert_eq!(run.wait().await.unwrap().code(), Some(0), "{text}");
    assert!(text.contains("the talk begins") && !text.contains('\x1b'), "{text:?}");
}
