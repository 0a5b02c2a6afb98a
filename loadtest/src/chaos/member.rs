//! One member of a room: connects, reconnects elsewhere, reads and, if it is a writer, writes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::history::History;
use super::reader::{End, Reader};
use super::rng::Rng;
use super::writer::Writer;
use crate::client::{Client, ConnectError};
use crate::deployment::APP;

/// Limit of a connect and of each ack: above the 1.5 s that a node waits for Redis.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Events read ahead of the recording.
const EVENTS_AHEAD: usize = 256;
/// The longest pause between two attempts to connect.
const PAUSE_MAX: Duration = Duration::from_millis(1000);
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// What the controller makes a client suffer.
#[derive(Clone, Copy, Debug)]
pub enum Suffer {
    /// It does not read for a while.
    Pause(Duration),
    /// Its network is gone for a while.
    Offline(Duration),
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
    urls: Arc<Vec<String>>,
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
        urls: Arc<Vec<String>>,
        token: &str,
        suffer: mpsc::Receiver<Suffer>,
        mut rng: Rng,
    ) -> Self {
        let mut auth = json!({
            "accessToken": token,
            "refreshToken": "none",
            "userAgent": APP,
            "username": format!("user{}", profile.index),
        });
        if profile.proto2 {
            auth["proto"] = json!(2);
        }
        let writer = (profile.window > 0).then(|| Writer::new(history.clone(), &profile, Rng::new(rng.bits())));
        Self {
            reader: Reader::new(history.clone(), profile.clone()),
            writer,
            history,
            profile,
            urls,
            auth,
            suffer,
            rng,
        }
    }

    /// Lives until it is dropped.
    pub async fn run(mut self) {
        // Members of one room begin on different nodes.
        let mut at = self.profile.index / self.history.rooms.len() + self.profile.index;
        let mut pause = PAUSE_MIN;
        let mut connected_before = false;
        loop {
            let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
            let connecting = Client::builder(&self.urls[at % self.urls.len()])
                .auth(self.auth.clone())
                .timeout(ANSWER_MAX)
                // Fixed, so that a reader that stops reading is soon felt by its node; above twice the segment size of
                // the loopback device, below which TCP sends only by its timers.
                .receive_buffer(128 * 1024)
                .stream(sender)
                .connect();
            match connecting.await {
                Ok(client) => {
                    if connected_before {
                        self.history.tally.reconnects.fetch_add(1, Ordering::Relaxed);
                    }
                    self.reader.connected(connected_before);
                    connected_before = true;
                    let end = self.talk(&client, &mut events).await;
                    client.kill();
                    if std::mem::take(&mut self.reader.was_joined) {
                        pause = PAUSE_MIN;
                    }
                    if let End::Offline(time) = end {
                        sleep(time).await;
                        self.history.hold(self.profile.index, false);
                    }
                }
                Err(error) => self.judge_refusal(&error),
            }
            at += 1;
            sleep(self.rng.millis(pause.as_millis() as u64 / 2, pause.as_millis() as u64)).await;
            pause = (pause * 2).min(PAUSE_MAX);
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
