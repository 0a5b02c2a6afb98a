//! How a run stands while it runs: a picture each second where somebody looks at a terminal, else a line now and then.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::result::RunResult;
use super::screen::Screen;
use super::view::{Stage, View};
use crate::harness::Say;

/// How often it is painted.
const PAINT_PERIOD: Duration = Duration::from_secs(1);
/// How often a line says it.
const LINE_PERIOD: Duration = Duration::from_secs(5);
/// What is repeated of the clients' complaints, bytes: the rest stays in its file.
const COMPLAINTS_MAX: u64 = 16 * 1024;

/// Where somebody sees how a run stands; dropping it gives the terminal back.
pub(super) struct Progress {
    say: Say,
    screen: Option<Screen>,
    /// What the client processes of this machine complain of meanwhile.
    complaints: PathBuf,
    began: Instant,
    talk: Option<Instant>,
    stage: Stage,
    ticks: Interval,
}

impl Progress {
    /// A screen where the standard error is a terminal that can be painted, unless lines are wanted.
    pub(super) fn open(plain: bool, say: Say, dir: &Path) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|kind| kind.is_empty() || kind == "dumb");
        let paints = !plain && !is_dumb && io::stderr().is_terminal();
        let screen = paints.then(Screen::open).and_then(Result::ok);
        Self {
            say,
            ticks: ticks(if screen.is_some() { PAINT_PERIOD } else { LINE_PERIOD }),
            screen,
            complaints: dir.join("clients.log"),
            began: Instant::now(),
            talk: None,
            stage: Stage::Starting,
        }
    }

    /// Where client processes write what they complain of: not across the picture.
    pub(super) fn complaints(&self) -> io::Result<Option<File>> {
        let open = || File::options().create(true).append(true).open(&self.complaints);
        self.screen.is_some().then(open).transpose()
    }

    /// The nodes are there, sockets come.
    pub(super) fn connecting(&mut self) {
        self.stage = Stage::Connecting;
    }

    /// Everybody is in.
    pub(super) fn begin(&mut self) {
        self.talk = Some(Instant::now());
        self.line("the sockets are in their rooms; the talk begins");
    }

    /// Nothing counts any more.
    pub(super) fn ending(&mut self) {
        (self.talk, self.stage) = (None, Stage::Ending);
    }

    fn line(&self, text: &str) {
        if self.screen.is_none() {
            self.say.line(text);
        }
    }

    /// Waits until it is time to show how it stands.
    pub(super) async fn due(&mut self) {
        self.ticks.tick().await;
    }

    /// Shows it.
    pub(super) fn show(&mut self, result: &RunResult) {
        if self.screen.as_ref().is_some_and(|screen| !screen.is_open()) {
            (self.screen, self.ticks) = (None, ticks(LINE_PERIOD));
        }
        let Some(screen) = &mut self.screen else {
            return self.say.line(&result.status());
        };
        let view = View {
            result,
            stage: self.talk.map_or(self.stage, |talk| Stage::Talk(talk.elapsed())),
            passed: self.began.elapsed(),
        };
        // A terminal that is gone is no reason to end.
        let _painted = screen.paint(view);
    }

    /// Goes on painting while something else is awaited.
    pub(super) async fn during<T>(&mut self, result: &RunResult, work: impl Future<Output = T>) -> T {
        if self.screen.is_none() {
            return work.await;
        }
        self.show(result);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.due() => self.show(result),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.screen.take().is_none() {
            return;
        }
        let mut text = Vec::new();
        let read = File::open(&self.complaints).and_then(|file| file.take(COMPLAINTS_MAX).read_to_end(&mut text));
        if read.is_ok_and(|length| length > 0) {
            self.say.line(String::from_utf8_lossy(&text).trim_end());
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(tokio::time::Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
