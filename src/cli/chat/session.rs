//! From the first connection to the last: connects, reconnects, and keeps what is typed meanwhile.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Duration;

use roomcast_load::client::{Builder, Client, Event};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::input::Line;
use super::login::Credentials;
use super::view::View;
use super::words;
use crate::cli::CliError;
use crate::lifecycle::Signals;

/// Events read ahead of the terminal; beyond, the connection is not read.
const EVENTS_AHEAD: usize = 1024;
/// Lines not yet sent; then the input waits.
const QUEUE_MAX: usize = 64;
/// How long a connection and each answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long leaving waits for what is still to be sent.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// What the server is still to be told.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// A `cid` makes sending it again harmless.
    Say {
        cid: String,
        text: String,
    },
    /// Which message is found out when everything before is done.
    Edit {
        number: Option<usize>,
        text: String,
    },
    Delete {
        number: Option<usize>,
    },
    /// Go to another room.
    Join(String),
    /// No event, but about the room that the wishes before lead to.
    Who,
}

/// How it ends, other than by an error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Everything said, or the person wants to go.
    Done,
    /// The connection is gone.
    Lost,
}

/// A chat, connected or not.
pub(super) struct Chat {
    builder: Builder,
    user_agent: String,
    pub credentials: Credentials,
    pub rooms: Vec<String>,
    pub people: Option<Value>,
    pub view: View,
    /// The room to go back to if the new one cannot be joined.
    pub former: Option<View>,
    pub wishes: VecDeque<Wish>,
    lines: mpsc::Receiver<String>,
    input_open: bool,
    signals: Signals,
    /// Since when the person wants to leave.
    leaving: Option<Instant>,
    interrupted: bool,
    connected_before: bool,
}

impl Chat {
    pub fn new(
        url: &reqwest::Url,
        user_agent: String,
        credentials: Credentials,
        rooms: Vec<String>,
        room: &str,
        lines: mpsc::Receiver<String>,
        signals: Signals,
    ) -> Self {
        Self {
            builder: Client::builder(url.as_str()).timeout(ANSWER_MAX),
            view: View::new(room, &credentials.platformid),
            user_agent,
            credentials,
            rooms,
            people: None,
            former: None,
            wishes: VecDeque::new(),
            lines,
            input_open: true,
            signals,
            leaving: None,
            interrupted: false,
            connected_before: false,
        }
    }

    /// Chats to the end.
    pub async fn run(mut self) -> Result<(), CliError> {
        let mut pause = Duration::ZERO;
        loop {
            if !self.tend(sleep(pause)).await {
                break;
            }
            let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
            let connecting = self.builder.clone().auth(self.auth()).stream(sender).connect();
            match self.tend_for(connecting).await {
                None => break,
                Some(Ok(client)) => {
                    let began = Instant::now();
                    if self.talk(&client, &mut events).await? == End::Done {
                        client.disconnect().await;
                        break;
                    }
                    self.print("* connection lost, reconnecting…");
                    // A node that accepts and drops at once is not to be hammered.
                    if began.elapsed() > PAUSE_MAX {
                        pause = Duration::ZERO;
                    }
                }
                Some(Err(error)) => {
                    let why = words::no_connection(&error);
                    let Some(retry) = why.retry.filter(|_| self.connected_before) else {
                        return Err(CliError::Unavailable(why.reason));
                    };
                    tracing::debug!(%error, "not connected");
                    pause = pause.max(retry.min(PAUSE_MAX));
                }
            }
            pause = (pause * 2)
                .clamp(Duration::from_millis(200), PAUSE_MAX)
                .mul_f64(0.5 + rand::random::<f64>() / 2.0);
        }
        if self.wishes.is_empty() || self.interrupted {
            return Ok(());
        }
        let unsent = self.wishes.len();
        Err(CliError::Unavailable(format!(
            "the connection did not come back in time: {unsent} lines were not sent"
        )))
    }

    /// Says that there is a connection.
    pub(super) fn greet(&mut self) {
        if std::mem::replace(&mut self.connected_before, true) {
            self.print("* connected again");
        } else {
            self.print(&format!(
                "* connected as {}; write to talk, /help lists the commands",
                words::clean(&self.credentials.username)
            ));
        }
    }

    fn auth(&self) -> Value {
        json!({
            "accessToken": self.credentials.access_token,
            "refreshToken": self.credentials.refresh_token,
            "userAgent": self.user_agent,
            "username": self.credentials.username,
            "proto": 2,
        })
    }

    /// Does the work while the input is read; `None` when the person leaves first.
    async fn tend_for<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                open = self.listen() => {
                    let nothing_left = self.is_leaving() && self.connected_before && self.wishes.is_empty();
                    if !open || nothing_left {
                        return None;
                    }
                }
            }
        }
    }

    async fn tend(&mut self, work: impl Future<Output = ()>) -> bool {
        self.tend_for(work).await.is_some()
    }

    /// Waits for the person: takes one line, or returns false when it is time to end. Cancel safe.
    pub(super) async fn listen(&mut self) -> bool {
        let give_up = self.leaving.map(|since| since + LEAVE_MAX);
        let read_on = self.input_open && self.leaving.is_none() && self.wishes.len() < QUEUE_MAX;
        tokio::select! {
            () = self.signals.next() => {
                self.interrupted = true;
                false
            }
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => false,
            line = self.lines.recv(), if read_on => {
                match line {
                    Some(line) => self.obey(Line::parse(&line)),
                    None => {
                        self.input_open = false;
                        self.leave();
                    }
                }
                true
            }
        }
    }

    /// Puts a wish back that was not fulfilled.
    pub(super) fn put_back(&mut self, wish: Option<Wish>) {
        if let Some(wish) = wish {
            self.wishes.push_front(wish);
        }
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    fn leave(&mut self) {
        self.leaving.get_or_insert_with(Instant::now);
    }

    fn obey(&mut self, line: Line) {
        match line {
            Line::Empty => {}
            Line::Say(text) => self.wishes.push_back(Wish::Say {
                cid: format!("{:032x}", rand::random::<u128>()),
                text,
            }),
            Line::Edit { number, text } => self.wishes.push_back(Wish::Edit { number, text }),
            Line::Delete { number } => self.wishes.push_back(Wish::Delete { number }),
            Line::Join(room) => self.wishes.push_back(Wish::Join(room)),
            Line::Rooms if self.rooms.is_empty() => self.print("* your rooms are not known; /join tries one"),
            Line::Rooms => {
                let rooms: Vec<String> = self.rooms.iter().map(|room| words::clean(room)).collect();
                self.print(&format!("* your rooms: {}", rooms.join(", ")));
            }
            Line::Who => self.wishes.push_back(Wish::Who),
            Line::Help => {
                for line in HELP {
                    self.print(line);
                }
            }
            Line::Quit => self.leave(),
            Line::Wrong(advice) => self.print(&format!("* {advice}")),
        }
    }

    /// The message meant; says so when there is none.
    pub(super) fn find(&mut self, number: Option<usize>) -> Option<String> {
        let id = self.view.id_of(number).map(str::to_owned);
        if id.is_none() {
            let none = number.map_or_else(
                || "* you have not written anything yet".to_owned(),
                |number| format!("* there is no #{number} here"),
            );
            self.print(&none);
        }
        id
    }

    /// Writes a line; when nobody reads any more, it is time to leave.
    pub(super) fn print(&mut self, line: &str) {
        let mut out = std::io::stdout().lock();
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            drop(out);
            self.leave();
        }
    }
}

const HELP: [&str; 7] = [
    "* text                 say it (// says a text that begins with /)",
    "* /edit [#3] text      change message #3, else your last one",
    "* /delete [#3]         delete message #3, else your last one",
    "* /rooms, /join room   list your rooms, go to another",
    "* /who                 who belongs to the room",
    "* /quit                leave (or Ctrl-D, Ctrl-C)",
    "* /help                this list",
];

/// Who belongs to the room, by the last `roomUpdate`.
pub(super) fn who(people: &Value) -> String {
    match people["participants"].as_array() {
        Some(list) => {
            let names: Vec<String> = list
                .iter()
                .filter_map(|person| person["nickname"].as_str().or(person["platformid"].as_str()))
                .map(words::clean)
                .collect();
            format!("* in the room: {}", names.join(", "))
        }
        None => format!("* {} people are in the room", people["count"]),
    }
}

/// The arguments of an event; none of one that cannot be read.
pub(super) fn args(event: &Event) -> Vec<Value> {
    event.args().unwrap_or_default()
}
