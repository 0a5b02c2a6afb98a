//! The writing half of a member: numbered messages, each resent with its `cid` until the answer is final.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::history::History;
use super::member::Profile;
use super::rng::Rng;
use crate::checker::Receipt;
use crate::client::Client;

/// Pause before the unanswered is sent again, where the server names none.
const RETRY: Duration = Duration::from_millis(200);
/// A longer wait than this would only hide how fast the server came back.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Text added to each message while the room is loud, in bytes.
const LOUD_BYTES: usize = 4096;

#[derive(Debug)]
struct Outgoing {
    key: String,
    text: String,
    probe: u64,
    tries: u32,
    settled: bool,
}

/// What a member has written and is still to be told about.
pub struct Writer {
    history: Arc<History>,
    profile: Profile,
    rng: Rng,
    /// The shortest and the longest pause, ms.
    pace: (u64, u64),
    written: u64,
    outbox: VecDeque<Outgoing>,
}

impl Writer {
    /// Has written nothing.
    pub fn new(history: Arc<History>, profile: &Profile, pace: (u64, u64), rng: Rng) -> Self {
        Self {
            history,
            profile: profile.clone(),
            rng,
            pace,
            written: 0,
            outbox: VecDeque::new(),
        }
    }

    /// Writes while the connection stands; what has no answer when this is dropped is sent again on the next one.
    pub async fn run(&mut self, client: &Client, mut joined: watch::Receiver<bool>, is_joined: &watch::Sender<bool>) {
        loop {
            if joined.wait_for(|joined| *joined).await.is_err() {
                return;
            }
            self.outbox.retain(|message| !message.settled);
            let history = self.history.clone();
            let state = &history.members[self.profile.index];
            let room = &history.rooms[state.room];
            if self.outbox.is_empty() {
                if history.closing.load(Ordering::Relaxed) {
                    state.idle.store(true, Ordering::Relaxed);
                    return std::future::pending().await;
                }
                let loud = room.loud.load(Ordering::Relaxed);
                sleep(if loud {
                    self.rng.millis(15, 25)
                } else {
                    self.rng.millis(self.pace.0, self.pace.1)
                })
                .await;
                self.compose(&state.name, loud);
            }
            if let Some(pause) = self.send(client, is_joined).await {
                sleep(pause.min(RETRY_MAX)).await;
            }
        }
    }

    fn compose(&mut self, name: &str, loud: bool) {
        let probe = self.history.probe();
        for _ in 0..=self.rng.below(self.profile.window) {
            self.written += 1;
            let key = format!("{name}-{}/p{probe}", self.written);
            let text = if loud {
                format!("{key} {}", "x".repeat(LOUD_BYTES))
            } else {
                key.clone()
            };
            self.outbox.push_back(Outgoing {
                key,
                text,
                probe,
                tries: 0,
                settled: false,
            });
        }
    }

    /// Sends everything unanswered in its order and waits for the answers; returns how long to wait after a failure.
    async fn send(&mut self, client: &Client, is_joined: &watch::Sender<bool>) -> Option<Duration> {
        let history = self.history.clone();
        let state = &history.members[self.profile.index];
        let (name, room) = (&state.name, &history.rooms[state.room]);
        let mut answers = Vec::new();
        for message in &mut self.outbox {
            message.tries += 1;
            if message.tries > 1 {
                history.tally.resent.fetch_add(1, Ordering::Relaxed);
            }
            history.checker().sent(name, &room.name, &message.key);
            let payload = json!({ "roomID": room.name, "message": message.text, "cid": message.key });
            answers.push(client.emit_ack_later("message", &payload));
        }
        let mut pause = None;
        for (message, answer) in self.outbox.iter_mut().zip(answers) {
            let answer = match answer {
                Ok(pending) => pending.await.ok().and_then(|(args, _)| args.into_iter().next()),
                Err(_) => None,
            };
            let Some(answer) = answer else {
                history.checker().uncertain(name, &room.name, &message.key);
                pause = pause.max(Some(RETRY));
                continue;
            };
            if let Some(receipt) = receipt(&answer) {
                history.checker().acked(name, &room.name, &message.key, receipt);
                message.settled = true;
                history.tally.acked.fetch_add(1, Ordering::Relaxed);
                if answer["dup"] == json!(true) {
                    history.tally.deduplicated.fetch_add(1, Ordering::Relaxed);
                }
                room.acked_probe.fetch_max(message.probe, Ordering::Relaxed);
                continue;
            }
            let asked = answer["retryAfterMs"].as_u64().map_or(RETRY, Duration::from_millis);
            pause = pause.max(Some(asked));
            match answer["code"].as_str().unwrap_or_default() {
                "uncertain" => history.checker().uncertain(name, &room.name, &message.key),
                "unavailable" | "rate_limited" => history.checker().refused(name, &room.name, &message.key),
                "not_joined" => {
                    history.checker().refused(name, &room.name, &message.key);
                    is_joined.send_replace(false);
                }
                _ => {
                    history.checker().refused(name, &room.name, &message.key);
                    history.find(format!(
                        "{name} in {} got an unexpected answer to {:?}: {answer}",
                        room.name, message.key
                    ));
                }
            }
        }
        pause
    }
}

fn receipt(answer: &Value) -> Option<Receipt<'_>> {
    if answer["ok"] != json!(true) {
        return None;
    }
    Some(Receipt {
        id: answer["id"].as_str()?,
        epoch: answer["epoch"].as_str()?,
        seq: answer["seq"].as_u64()?,
        ts: answer["ts"].as_u64()?,
    })
}
