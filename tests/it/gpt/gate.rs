//! A way to Redis that stands still where a script is called, so that a test knows what a worker has done and what not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{World, within};

/// Where it stands still, for good or until it is opened.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// The call does not reach Redis.
    Before(&'static str),
    /// Redis has done it, and the answer does not come back.
    After(&'static str),
}

/// The state of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is asked for without a question is let through.
    Waiting,
    Armed,
    /// The call is on its way, the answer will not be.
    Answerless,
    Closed,
    Open,
}

pub struct Gate {
    pub port: u16,
    state: watch::Sender<State>,
}

/// The text that a script's calls are made of.
fn source(script: &str) -> &'static str {
    macro_rules! source {
        ($($name:literal),+) => { concat!($(include_str!(concat!("../../../src/redis/scripts/", $name, ".lua"))),+) };
    }
    match script {
        "gpt_enqueue" => source!("gpt", "gpt_enqueue"),
        "gpt_take" => source!("gpt", "gpt_claims", "gpt_take"),
        "gpt_finish" => source!("gpt", "gpt_finish"),
        "gpt_part" => source!("gpt_part"),
        "post" => source!("epoch", "post"),
        other => panic!("add {other}"),
    }
}

impl Gate {
    /// A way to the world's one server that stands still at the first such call.
    pub async fn start(world: &World, stop: Stop) -> Self {
        let (Stop::Before(script) | Stop::After(script)) = stop;
        // From now on the server knows it, so that it is called by its hash.
        let load = async |script| {
            let hash = world.redis.cli(&["SCRIPT", "LOAD", source(script)]).await.concat();
            assert_eq!(hash.len(), 40, "{hash}");
            hash
        };
        let hash = load(script).await;
        // Workers ask for jobs also while there are none.
        let (first, begin) = match script {
            "gpt_take" => (load("gpt_enqueue").await, State::Waiting),
            _ => (hash.clone(), State::Armed),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (state, server) = (watch::Sender::new(begin), world.redis.port());
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (near, far) = (near.into_split(), far.into_split());
                let called = Arc::new(AtomicBool::new(false));
                let up = Up {
                    stop,
                    hash: hash.clone(),
                    first: first.clone(),
                    called: called.clone(),
                    state: shared.clone(),
                };
                tokio::spawn(up.run(near.0, far.1));
                tokio::spawn(down(far.0, near.1, called, shared.clone()));
            }
        });
        Self { port, state }
    }

    /// Waits until the call has come.
    pub async fn reached(&self) {
        let mut state = self.state.subscribe();
        let closed = state.wait_for(|state| *state == State::Closed);
        within("the worker has come to the gate", closed).await.unwrap();
    }

    /// Lets everything through, what was held as well.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn passable(state: &watch::Sender<State>) {
    let mut state = state.subscribe();
    let open = state.wait_for(|state| matches!(state, State::Waiting | State::Armed | State::Open));
    open.await.unwrap();
}

/// What goes to Redis on one connection.
struct Up {
    stop: Stop,
    hash: String,
    /// The call after which it is armed.
    first: String,
    called: Arc<AtomicBool>,
    state: watch::Sender<State>,
}

impl Up {
    async fn run(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let has = |hash: &str| bytes[..count].windows(40).any(|window| window == hash.as_bytes());
            let calls = has(&self.hash);
            if has(&self.first) {
                self.state.send_if_modified(|state| {
                    let waits = *state == State::Waiting;
                    if waits {
                        *state = State::Armed;
                    }
                    waits
                });
            }
            let armed = |state: &mut State, next: State| {
                let is_armed = *state == State::Armed;
                if is_armed {
                    *state = next;
                }
                is_armed
            };
            let passes = match self.stop {
                Stop::After(_) if calls => {
                    self.called.store(true, Ordering::SeqCst);
                    let stops = self.state.send_if_modified(|state| armed(state, State::Answerless));
                    if !stops {
                        self.called.store(false, Ordering::SeqCst);
                    }
                    stops
                }
                Stop::Before(_) if calls => {
                    self.state.send_if_modified(|state| armed(state, State::Closed));
                    false
                }
                _ => false,
            };
            if !passes {
                passable(&self.state).await;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
        }
    }
}

/// What comes from Redis.
async fn down(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, called: Arc<AtomicBool>, state: watch::Sender<State>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if called.load(Ordering::SeqCst) {
            state.send_if_modified(|state| {
                let waited_for = *state == State::Answerless;
                if waited_for {
                    *state = State::Closed;
                }
                waited_for
            });
        }
        passable(&state).await;
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
