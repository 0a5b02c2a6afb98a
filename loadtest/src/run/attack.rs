//! Attackers beside the people of a load test, at a set pace: whoever is stopped comes again, and is counted.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::deployment::{APP, auth};
use crate::flood::attack::User;
use crate::flood::attack::tally::{Report, Tally, count};
use crate::flood::attack::wire::{self, Opened};

/// The room that attackers write in: it is theirs, and what they write there nobody else counts.
pub const ROOM: &str = "attackers";
/// How often an attacker writes.
const BEAT: Duration = Duration::from_millis(100);
/// A frame nobody may send: 128 times the default limit.
const OVERSIZE: u64 = 8 * 1024 * 1024;
/// What is written of it at a time.
const CHUNK: [u8; 16 * 1024] = [b'x'; 16 * 1024];
/// Messages in the attackers' room before they join it again: two pages of history, which all of them write together.
const HISTORY: u32 = 2000;
/// How many of them one may write: half of what the guard takes at once.
const HISTORY_EACH: u32 = 1000;
/// Attackers of one flood; more is what `roomcast-flood` is for.
const SOCKETS_MAX: u32 = 200;
/// Acts of each in a second.
const PACE_MAX: f64 = 5000.0;

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A valid user writes more messages than anybody may.
    Events,
    /// A valid user sends what is no packet.
    Garbage,
    /// A valid user begins frames of 8 MiB.
    Oversize,
    /// A valid user joins its room, which has thousands of messages, again and again, and is sent a page of them each time.
    Joins,
    /// A stranger connects with a forged token, again and again.
    Reconnects,
}

/// Attackers of one kind, each from an address of its own.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Flood {
    /// What they do.
    pub kind: Kind,
    /// How many there are, at most 200.
    pub sockets: u32,
    /// Messages, frames, joins or connects a second of each.
    pub per_second: f64,
}

impl Flood {
    pub(super) fn check(self) -> Result<(), String> {
        if !(1..=SOCKETS_MAX).contains(&self.sockets) {
            return Err(format!("floods: use 1 to {SOCKETS_MAX} sockets of a kind"));
        }
        if !(0.1..=PACE_MAX).contains(&self.per_second) {
            return Err(format!("floods: use 0.1 to {PACE_MAX} per_second"));
        }
        Ok(())
    }
}

/// The attackers at work; dropping them ends them.
pub(super) struct Attackers {
    /// One for each flood.
    tallies: Vec<Arc<Tally>>,
    _tasks: JoinSet<()>,
}

impl Attackers {
    /// Begins; there is a user for each attacker.
    pub(super) fn start(floods: &[Flood], servers: &[SocketAddr], users: Vec<User>) -> Self {
        let (mut tallies, mut tasks) = (Vec::new(), JoinSet::new());
        let mut users = users.into_iter().zip(servers.iter().cycle());
        for (index, flood) in (0_u8..).zip(floods) {
            let tally = Arc::new(Tally::default());
            tallies.push(tally.clone());
            for ((user, target), socket) in users.by_ref().zip(1_u8..).take(flood.sockets as usize) {
                let attacker = Attacker {
                    flood: *flood,
                    target: *target,
                    source: Ipv4Addr::new(127, 200, index, socket),
                    user,
                    tally: tally.clone(),
                };
                tasks.spawn(attacker.run());
            }
        }
        Self { tallies, _tasks: tasks }
    }

    /// What the attackers of each flood did and what they were told.
    pub(super) fn reports(&self) -> Vec<Report> {
        self.tallies.iter().map(|tally| tally.report()).collect()
    }
}

struct Attacker {
    flood: Flood,
    target: SocketAddr,
    source: Ipv4Addr,
    user: User,
    tally: Arc<Tally>,
}

impl Attacker {
    async fn run(self) {
        let every = match self.flood.kind {
            Kind::Reconnects => Duration::from_secs_f64(1.0 / self.flood.per_second),
            _ => BEAT,
        };
        let mut beats = interval(every);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut history = match self.flood.kind {
            Kind::Joins => HISTORY.div_ceil(self.flood.sockets).min(HISTORY_EACH),
            _ => 0,
        };
        loop {
            beats.tick().await;
            let Some(opened) = self.enter().await else { continue };
            self.tally.opened();
            if self.flood.kind != Kind::Reconnects {
                self.attack(opened, std::mem::take(&mut history)).await;
            }
            self.tally.closed();
        }
    }

    /// Connects; who is to write messages joins the attackers' room as well.
    async fn enter(&self) -> Option<Opened> {
        let request = wire::websocket(self.target, None);
        let mut opened = wire::open(self.target, self.source, &request, &self.tally).await?;
        let token = match self.flood.kind {
            Kind::Reconnects => "forged",
            _ => &self.user.token,
        };
        let auth = auth(token, &self.user.username, APP);
        let hello = wire::text_frame(&format!("40{auth}"));
        if opened.stream.write_all(&hello).await.is_ok() && wire::wait_for(&mut opened, "40{", "44{").await {
            if !matches!(self.flood.kind, Kind::Events | Kind::Joins) {
                return Some(opened);
            }
            return opened.stream.write_all(&join()).await.ok().map(|()| opened);
        }
        count(&self.tally.forbidden);
        None
    }

    /// Writes some messages at once and then at its pace, and reads, until the server has enough.
    async fn attack(&self, opened: Opened, history: u32) {
        let (mut reading, mut writing) = opened.stream.into_split();
        let write = async {
            for _ in 0..history {
                if writing.write_all(&message()).await.is_err() {
                    return;
                }
                count(&self.tally.events);
            }
            let mut beats = interval(BEAT);
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut owed = 0.0;
            loop {
                beats.tick().await;
                owed += self.flood.per_second * BEAT.as_secs_f64();
                while owed >= 1.0 {
                    owed -= 1.0;
                    if writing.write_all(&self.act()).await.is_err() {
                        return;
                    }
                    count(&self.tally.events);
                }
            }
        };
        let read = async {
            let mut buffer = vec![0; 16 * 1024];
            while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
        };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
    }

    fn act(&self) -> Vec<u8> {
        match self.flood.kind {
            Kind::Events => message(),
            Kind::Joins => join(),
            Kind::Garbage => wire::text_frame(r#"42["message",{"roomID":"#),
            Kind::Oversize => [&wire::frame_head(OVERSIZE)[..], &CHUNK].concat(),
            Kind::Reconnects => Vec::new(),
        }
    }
}

fn message() -> Vec<u8> {
    let event = json!(["message", { "roomID": ROOM, "message": "a flood of words" }]);
    wire::text_frame(&format!("42{event}"))
}

fn join() -> Vec<u8> {
    wire::text_frame(&format!(r#"42["join",{{"roomID":"{ROOM}"}}]"#))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn who_joins_again_and_again_fills_the_room_first() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = free.local_addr().unwrap();
        drop(free);
        tokio::spawn(crate::compare::floor::serve(server));
        while TcpStream::connect(server).await.is_err() {
            tokio::task::yield_now().await;
        }
        let flood = Flood {
            kind: Kind::Joins,
            sockets: 4,
            per_second: 100.0,
        };
        let user = User {
            username: "user0".to_owned(),
            token: "token".to_owned(),
            room: ROOM.to_owned(),
        };
        let attackers = Attackers::start(&[flood], &[server], vec![user; 4]);
        // Joins come behind the history, ten of each in a tenth of a second.
        let events = u64::from(HISTORY) + 100;
        let enough = async {
            while attackers.reports()[0].events < events {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), enough).await.unwrap();
        let report = &attackers.reports()[0];
        assert_eq!((report.tries, report.open_max, report.cut), (4, 4, 0), "{report:?}");
    }
}
