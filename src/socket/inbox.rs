//! The order of one socket's events: a bounded queue that is drained by one task, which exists only while it is needed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures::future::BoxFuture;
use socketioxide::socket::DisconnectReason;
use socketioxide_core::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::events;
use super::{Session, Socket};
use crate::model::RoomId;

/// Events waiting per socket: the burst that the default limits allow (2000), and a little.
const MAX_EVENTS: usize = 2500;
/// Bytes waiting per socket: a burst of ordinary messages fits, a burst of the largest does not.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// An event as it came from the client.
pub struct Incoming {
    /// The packet's JSON array: event name and arguments.
    pub packet: Value,
    /// The ack that the client asked for.
    pub ack_id: Option<i64>,
    /// When it came.
    pub at: Instant,
}

/// Something to do for a socket, in order.
pub enum Job {
    /// It has just connected.
    Connected,
    /// It sent an event.
    Event(Incoming),
    /// Its user's room list was fetched; the rooms that are no longer in it.
    RoomsFetched(Result<Vec<RoomId>, crate::chat::RoomListError>),
    /// The auth service refused its access token: before anything else.
    Renew {
        /// The token.
        refused: Arc<str>,
        /// Bounds how many are renewed at once.
        permit: OwnedSemaphorePermit,
    },
    /// It must be written to Redis anew.
    Register,
    /// It must forget a room: by an act of another node, or of another socket of the user.
    Evict {
        /// The room.
        room: RoomId,
        /// Whether the room itself is gone.
        gone: bool,
    },
    /// It is gone; nothing follows.
    Closed(DisconnectReason),
}

/// The jobs of one socket.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Jobs taken so far: the number of the last one.
    taken: u64,
    bytes: usize,
    /// Rooms of which an event may or may not have been stored, with the last job that waited then.
    doubts: HashMap<RoomId, u64>,
    /// Whether the client was told that it is connected: nothing is done before, because nothing could be answered.
    open: bool,
    running: bool,
    closed: bool,
}

impl Inbox {
    /// Begins: first what follows from the connection itself, then what the client has sent meanwhile.
    pub fn open(session: &Arc<Session>, socket: &Socket) {
        let mut state = session.inbox.lock();
        state.open = true;
        state.jobs.push_front(Job::Connected);
        state.start(session, socket);
    }

    /// Queues a job and starts to drain if nobody does; `Err` gives an event back that found the queue full.
    pub fn push(session: &Arc<Session>, socket: &Socket, job: Job) -> Result<(), Box<Incoming>> {
        let mut state = session.inbox.lock();
        if state.closed {
            return Ok(());
        }
        match &job {
            Job::Event(incoming) => {
                let size = size_of_packet(&incoming.packet);
                if state.jobs.len() >= MAX_EVENTS || state.bytes + size > MAX_BYTES {
                    drop(state);
                    let Job::Event(incoming) = job else { return Ok(()) };
                    return Err(Box::new(incoming));
                }
                state.bytes += size;
            }
            Job::Closed(_) => state.closed = true,
            Job::Connected | Job::RoomsFetched(_) | Job::Renew { .. } | Job::Register | Job::Evict { .. } => {}
        }
        if matches!(job, Job::Renew { .. }) {
            // What was sent with a refused token waits for a new one; and nobody's backlog keeps a permit from others.
            state.jobs.push_front(job);
            // Everything that waits has a later number now.
            state.doubts.values_mut().for_each(|until| *until += 1);
        } else {
            state.jobs.push_back(job);
        }
        state.start(session, socket);
        Ok(())
    }

    /// Forgets the events that wait: their sender is being cut for what it did, and nothing of it is worth the work.
    pub fn drop_events(&self) {
        let mut state = self.lock();
        state.jobs.retain(|job| !matches!(job, Job::Event(_)));
        state.bytes = 0;
    }

    /// The number of the last job when none waits and none is at work.
    pub fn rests_after(&self) -> Option<u64> {
        let state = self.lock();
        (!state.running && state.jobs.is_empty()).then_some(state.taken)
    }

    /// Notes that nobody knows whether an event of this room was stored.
    pub fn note_doubt(&self, room: &RoomId) {
        let mut state = self.lock();
        let (taken, last) = (state.taken, state.taken + state.jobs.len() as u64);
        state.doubts.retain(|_, until| *until > taken);
        state.doubts.insert(room.clone(), last);
    }

    /// Whether the job of this number waited already when such a doubt arose.
    pub fn is_in_doubt(&self, room: &RoomId, number: u64) -> bool {
        self.lock().doubts.get(room).is_some_and(|until| number <= *until)
    }

    /// The next jobs with the number of the first: one, or a run of events up to `max` as long as `same` holds; empty ends
    /// the drain.
    fn take(&self, max: usize, same: impl Fn(&Job) -> bool) -> (u64, Vec<Job>) {
        let mut state = self.lock();
        let mut taken = Vec::new();
        while taken.len() < max
            && state
                .jobs
                .front()
                .is_some_and(|job| taken.is_empty() || (same(job) && same(&taken[0])))
        {
            let Some(job) = state.jobs.pop_front() else { break };
            if let Job::Event(incoming) = &job {
                state.bytes = state.bytes.saturating_sub(size_of_packet(&incoming.packet));
            }
            taken.push(job);
        }
        if taken.is_empty() {
            state.running = false;
            // Most sockets rest for most of their life.
            state.jobs = VecDeque::new();
        }
        let first = state.taken + 1;
        state.taken += taken.len() as u64;
        (first, taken)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn start(&mut self, session: &Arc<Session>, socket: &Socket) {
        if self.open && !self.running {
            self.running = true;
            session.app.tracker.spawn(drain(session.clone(), socket.clone()));
        }
    }
}

fn size_of_packet(packet: &Value) -> usize {
    match packet {
        Value::Str(text, _) => text.as_str().len(),
        Value::Bytes(bytes) => bytes.len(),
    }
}

/// Does the jobs of a socket until there are none.
///
/// Boxed, because a job may queue further jobs: the type would otherwise contain itself.
fn drain(session: Arc<Session>, socket: Socket) -> BoxFuture<'static, ()> {
    let is_message = |job: &Job| matches!(job, Job::Event(incoming) if events::is_message(&incoming.packet));
    Box::pin(async move {
        loop {
            // Messages that wait together are stored together: one round trip, and their order is that of one script.
            let (first, jobs) = session.inbox.take(events::BATCH_MAX, is_message);
            if jobs.is_empty() {
                return;
            }
            events::handle(&session, &socket, first, jobs).await;
        }
    })
}
