//! What the handle and the driver of one connection share: queue, mailbox, open acks, the end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::event::{Arrival, Event, UNREADABLE};
use super::{CloseReason, EmitError, Transport};

/// Frames not yet written. Far above any burst of a test, so that a full queue means a server that stopped reading.
pub(super) const OUTBOX: usize = 65_536;

/// One thing to write.
#[derive(Debug)]
pub(super) enum Out {
    Text(String),
    Binary(Vec<u8>),
    Disconnect,
}

pub(super) type Ack = oneshot::Sender<(Vec<Value>, Instant)>;

#[derive(Debug)]
pub(super) struct Inner {
    pub out: mpsc::Sender<Out>,
    pub mailbox: Mutex<Mailbox>,
    /// Told after every arrival and at the end.
    pub arrived: Notify,
    acks: Mutex<HashMap<u64, Ack>>,
    next_ack: AtomicU64,
    pub paused: watch::Sender<bool>,
    pub closing: AtomicBool,
    pub closed: watch::Sender<Option<CloseReason>>,
    pub transport: watch::Sender<Transport>,
    pub sid: OnceLock<String>,
}

/// Arrivals not yet taken. Unbounded: dropping one would look like a loss of the server, and a test ends.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    pub waiting: VecDeque<Arrival>,
    pub taken: BTreeMap<String, usize>,
}

/// A panicking test must not hide its message behind a poisoned lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    pub fn new(out: mpsc::Sender<Out>, transport: Transport) -> Self {
        Self {
            out,
            mailbox: Mutex::default(),
            arrived: Notify::new(),
            acks: Mutex::default(),
            next_ack: AtomicU64::new(0),
            paused: watch::Sender::new(false),
            closing: AtomicBool::new(false),
            closed: watch::Sender::new(None),
            transport: watch::Sender::new(transport),
            sid: OnceLock::new(),
        }
    }

    pub fn enqueue(&self, out: Out) -> Result<(), EmitError> {
        if self.closed.borrow().is_some() {
            return Err(EmitError::Closed);
        }
        self.out.try_send(out).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => EmitError::Full,
            mpsc::error::TrySendError::Closed(_) => EmitError::Closed,
        })
    }

    pub fn new_ack(&self) -> u64 {
        self.next_ack.fetch_add(1, Ordering::Relaxed)
    }

    /// Registered before the frame is enqueued, so that no answer is too early.
    pub fn await_ack(&self, id: u64, ack: Ack) {
        lock(&self.acks).insert(id, ack);
    }

    pub fn forget_ack(&self, id: u64) {
        lock(&self.acks).remove(&id);
    }

    pub fn resolve_ack(&self, id: u64, args: Vec<Value>, at: Instant) {
        let ack = lock(&self.acks).remove(&id);
        if let Some(ack) = ack {
            // Nobody waits any more: the caller gave up, which is its own affair.
            let _ = ack.send((args, at));
        }
    }

    pub fn deliver(&self, event: Event) {
        let arrival = match event.args() {
            Ok(args) => Arrival {
                name: event.name,
                args,
                ack: event.ack,
                at: event.at,
            },
            Err(error) => Arrival {
                name: UNREADABLE.to_owned(),
                args: vec![Value::String(format!("{}: {error}", event.name))],
                ack: None,
                at: event.at,
            },
        };
        lock(&self.mailbox).waiting.push_back(arrival);
        self.arrived.notify_waiters();
    }

    /// The first reason counts; every waiting ack and expectation ends.
    pub fn close(&self, reason: CloseReason) {
        let reason = match reason {
            CloseReason::KilledByUs => reason,
            _ if self.closing.load(Ordering::Relaxed) => CloseReason::DisconnectedByUs,
            _ => reason,
        };
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
        lock(&self.acks).clear();
        self.arrived.notify_waiters();
    }
}

impl Mailbox {
    pub fn take_first(&mut self, wanted: impl Fn(&Arrival) -> bool) -> Option<Arrival> {
        let index = self.waiting.iter().position(wanted)?;
        let arrival = self.waiting.remove(index)?;
        *self.taken.entry(arrival.name.clone()).or_default() += 1;
        Some(arrival)
    }

    pub fn take_all(&mut self, name: &str) -> Vec<Arrival> {
        let (taken, kept): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|arrival| arrival.name == name);
        self.waiting = kept.into();
        if !taken.is_empty() {
            *self.taken.entry(name.to_owned()).or_default() += taken.len();
        }
        taken
    }
}
