//! One member of a room: connects, reconnects elsewhere, reads and, if it is a writer, writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::history::{Gone, History};
use super::reader::{End, Reader};
use super::rng::Rng;
use super::writer::Writer;
use crate::client::{Client, CloseReason, ConnectError};
use crate::deployment::{APP, auth};

/// Limit of a connect and of each ack: above the 1.5 s that a node waits for Redis.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Events read ahead of the recording.
const EVENTS_AHEAD: usize = 256;
/// The first and the longest pause between two attempts to connect.
const EAGER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(1000));
/// The same as the official client has them with its randomization: 0.5 to 1.5 s first, then up to 7.5 s.
const OFFICIAL: (Duration, Duration) = (Duration::from_millis(1500), Duration::from_millis(7500));
/// The same of the helper in `clients/ts`: 0.15 to 0.45 s first, then up to 15 s.
const HELPER: (Duration, Duration) = (Duration::from_millis(450), Duration::from_secs(15));

/// What the controller makes a client suffer.
#[derive(Clone, Copy, Debug)]
pub enum Suffer {
    /// It does not read for a while.
    Pause(Duration),
    /// Its network is gone for a while.
    Offline(Duration),
}

/// What the members of a run are used to.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Where they connect, each beginning with another one.
    pub urls: Vec<String>,
    /// Over how long they come for the first time.
    pub ramp: Duration,
    /// The shortest and the longest pause of a writer between two messages, or handfuls of them, ms.
    pub writes_every: (u64, u64),
    /// Whether they come back with the pauses of real clients, instead of as soon as they can.
    pub patient: bool,
}

/// Who a member is.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Index of the member and of its user.
    pub index: usize,
    /// Whether it speaks protocol 2.
    pub proto2: bool,
    /// Messages it has under way at most; 0 for one that only reads.
    pub window: usize,
}

/// One client with its user.
pub struct Member {
    history: Arc<History>,
    profile: Profile,
    habits: Arc<Habits>,
    auth: Value,
    reader: Reader,
    writer: Option<Writer>,
    suffer: mpsc::Receiver<Suffer>,
    rng: Rng,
}

impl Member {
    /// A member that has not connected yet.
    pub fn new(
        history: Arc<History>,
        profile: Profile,
        habits: Arc<Habits>,
        token: &str,
        suffer: mpsc::Receiver<Suffer>,
        mut rng: Rng,
    ) -> Self {
        let mut auth = auth(token, &format!("user{}", profile.index), APP);
        if profile.proto2 {
            auth["proto"] = json!(2);
        }
        let pace = habits.writes_every;
        let writer = (profile.window > 0).then(|| Writer::new(history.clone(), &profile, pace, Rng::new(rng.bits())));
        Self {
            reader: Reader::new(history.clone(), profile.clone()),
            writer,
            history,
            profile,
            habits,
            auth,
            suffer,
            rng,
        }
    }

    /// Lives until it is dropped.
    pub async fn run(mut self) {
        // Members of one room begin on different nodes.
        let mut at = self.profile.index / self.history.rooms.len() + self.profile.index;
        let habits = self.habits.clone();
        let (pause_min, pause_max) = match (habits.patient, self.profile.proto2) {
            (false, _) => EAGER,
            (true, false) => OFFICIAL,
            (true, true) => HELPER,
        };
        let mut pause = pause_min;
        let mut gone: Option<Gone> = None;
        let place = self.profile.index as f64 / self.history.members.len() as f64;
        sleep(habits.ramp.mul_f64(place)).await;
        loop {
            let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
            let connecting = Client::builder(&habits.urls[at % habits.urls.len()])
                .auth(self.auth.clone())
                .timeout(ANSWER_MAX)
                // Fixed, so that a reader that stops reading is soon felt by its node; above twice the segment size of
                // the loopback device, below which TCP sends only by its timers.
                .receive_buffer(128 * 1024)
                .stream(sender)
                .connect();
            let connected = connecting.await;
            at += 1;
            match connected {
                Ok(client) => {
                    self.reader.connected(gone.is_some());
                    if let Some(gone) = gone.take() {
                        self.history.tally.reconnects.fetch_add(1, Ordering::Relaxed);
                        self.history.note_return(gone);
                    }
                    let end = self.talk(&client, &mut events).await;
                    let (lost_at, left) = (self.history.elapsed(), matches!(end, End::SentAway));
                    gone = Some(Gone { lost_at, left });
                    if std::mem::take(&mut self.reader.was_joined) {
                        pause = pause_min;
                    }
                    match end {
                        // As clients do: a goodbye, so that the server need not find out; and no pause.
                        End::SentAway => {
                            client.disconnect().await;
                            continue;
                        }
                        End::Lost => self.judge_end(&client.closed().await),
                        End::Offline(time) => {
                            client.kill();
                            sleep(time).await;
                            self.history.hold(self.profile.index, false);
                        }
                    }
                }
                Err(error) => {
                    self.history.tally.refused.fetch_add(1, Ordering::Relaxed);
                    self.judge_refusal(&error);
                }
            }
            sleep(self.rng.millis(pause.as_millis() as u64 / 3, pause.as_millis() as u64)).await;
            pause = (pause * 2).min(pause_max);
        }
    }

    async fn talk(&mut self, client: &Client, events: &mut mpsc::Receiver<crate::client::Event>) -> End {
        let joined = watch::Sender::new(false);
        let state = &self.history.members[self.profile.index];
        state.set_sid(client.sid());
        let reading = self.reader.run(client, events, &mut self.suffer, &joined);
        let end = match &mut self.writer {
            None => reading.await,
            Some(writer) => tokio::select! {
                end = reading => end,
                () = writer.run(client, joined.subscribe(), &joined) => End::Lost,
            },
        };
        state.joined.store(false, Ordering::Relaxed);
        state.set_sid("");
        end
    }

    /// Whatever goes away, clients must come back by themselves.
    fn judge_end(&self, reason: &CloseReason) {
        if *reason == CloseReason::ServerDisconnect {
            let name = &self.history.members[self.profile.index].name;
            self.history.find(format!(
                "{name} was disconnected, which tells official clients to stay away"
            ));
        }
    }

    /// An outage may refuse, but it must say that it is one.
    fn judge_refusal(&self, error: &ConnectError) {
        let expected = match error {
            ConnectError::Http { status, .. } => matches!(status, 429 | 500..),
            ConnectError::Refused { message } => message.contains("unavailable"),
            ConnectError::Transport(_) | ConnectError::Timeout => true,
        };
        if !expected {
            let name = &self.history.members[self.profile.index].name;
            self.history.find(format!("{name} was refused at connecting: {error}"));
        }
    }
}
