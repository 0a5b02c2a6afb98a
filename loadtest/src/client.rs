//! A Socket.IO client for tests: one task, one connection, every event kept in its order.
//!
//! The driver task reads and writes; the [`Client`] is a handle whose drop ends the task and with it the TCP connection.
//! Events wait in a mailbox until a test takes them by name, or flow into a channel ([`Builder::stream`]) under load.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{Sleep, sleep, timeout, timeout_at};

use crate::packet::FrameWriter;
use inner::{Inner, Out, lock};

mod address;
mod builder;
mod driver;
mod error;
mod event;
mod inner;
mod polling;
mod websocket;

pub use builder::Builder;
pub use error::{CloseReason, ConnectError, EmitError, ExpectError};
pub use event::{Arrival, Event, UNREADABLE};

/// How a client talks to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Websocket from the first byte.
    Websocket,
    /// Long polling for ever.
    Polling,
    /// Opens by polling and moves to a websocket, as the official client does by default.
    Upgrade,
}

/// One connection to a Socket.IO server; dropping it cuts the connection.
#[derive(Debug)]
pub struct Client {
    inner: Arc<Inner>,
    task: AbortHandle,
    engine_sid: String,
    timeout: Duration,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Client {
    /// Starts the settings of a connection to `http://host:port`.
    pub fn builder(url: impl Into<String>) -> Builder {
        Builder::new(url.into())
    }

    /// The socket's id, as the server named it in its CONNECT answer.
    pub fn sid(&self) -> &str {
        self.inner.sid.get().map_or("", String::as_str)
    }

    /// The Engine.IO session below the socket.
    pub fn engine_sid(&self) -> &str {
        &self.engine_sid
    }

    /// The transport in use now: `Polling` or `Websocket`.
    pub fn transport(&self) -> Transport {
        *self.inner.transport.borrow()
    }

    /// Waits until the session has moved to a websocket; false when it does not within the timeout.
    pub async fn upgraded(&self) -> bool {
        let mut transport = self.inner.transport.subscribe();
        let moved = transport.wait_for(|transport| *transport == Transport::Websocket);
        timeout(self.timeout, moved).await.is_ok_and(|moved| moved.is_ok())
    }

    /// Enqueues an event with one argument, in order.
    pub fn emit<T: Serialize + ?Sized>(&self, name: &str, payload: &T) -> Result<(), EmitError> {
        self.inner
            .enqueue(Out::Text(FrameWriter::event(None, name)?.arg(payload)?.finish()))
    }

    /// Enqueues an event with any number of arguments.
    pub fn emit_args(&self, name: &str, args: &[Value]) -> Result<(), EmitError> {
        let frame = args
            .iter()
            .try_fold(FrameWriter::event(None, name)?, FrameWriter::arg)?;
        self.inner.enqueue(Out::Text(frame.finish()))
    }

    /// Emits and waits for the acknowledgement's arguments.
    pub async fn emit_ack<T: Serialize + ?Sized>(&self, name: &str, payload: &T) -> Result<Vec<Value>, EmitError> {
        self.emit_ack_later(name, payload)?.await.map(|(args, _)| args)
    }

    /// Emits now; the returned future yields the acknowledgement and when it was read, its timeout running from here.
    pub fn emit_ack_later<T: Serialize + ?Sized>(&self, name: &str, payload: &T) -> Result<PendingAck, EmitError> {
        let id = self.inner.new_ack();
        let frame = FrameWriter::event(Some(id), name)?.arg(payload)?.finish();
        let (sender, answer) = oneshot::channel();
        self.inner.await_ack(id, sender);
        let pending = PendingAck {
            inner: self.inner.clone(),
            id,
            answer,
            limit: Box::pin(sleep(self.timeout)),
        };
        self.inner.enqueue(Out::Text(frame))?;
        Ok(pending)
    }

    /// Answers an event that carried an ack id.
    pub fn reply(&self, ack: u64, args: &[Value]) -> Result<(), EmitError> {
        let frame = args.iter().try_fold(FrameWriter::ack(ack), FrameWriter::arg)?;
        self.inner.enqueue(Out::Text(frame.finish()))
    }

    /// Enqueues a text frame as it is, Engine.IO envelope included.
    pub fn send_raw(&self, frame: impl Into<String>) -> Result<(), EmitError> {
        self.inner.enqueue(Out::Text(frame.into()))
    }

    /// Enqueues a binary frame.
    pub fn send_raw_binary(&self, frame: impl Into<Vec<u8>>) -> Result<(), EmitError> {
        self.inner.enqueue(Out::Binary(frame.into()))
    }

    /// Takes the next event of that name, waiting for it; others keep their place.
    pub async fn expect(&self, name: &str) -> Result<Vec<Value>, ExpectError> {
        self.wait_for(name, self.timeout, |arrival| arrival.name == name)
            .await
            .map(|arrival| arrival.args)
    }

    /// Takes the first event of that name whose arguments match.
    pub async fn expect_where(
        &self,
        name: &str,
        matches: impl Fn(&[Value]) -> bool,
    ) -> Result<Vec<Value>, ExpectError> {
        let wanted = format!("a matching {name}");
        let arrival = self.wait_for(&wanted, self.timeout, |arrival| {
            arrival.name == name && matches(&arrival.args)
        });
        arrival.await.map(|arrival| arrival.args)
    }

    /// As [`expect`](Self::expect), with the time of arrival and the ack id.
    pub async fn expect_arrival(&self, name: &str) -> Result<Arrival, ExpectError> {
        self.wait_for(name, self.timeout, |arrival| arrival.name == name).await
    }

    /// As [`expect`](Self::expect), with its own deadline.
    pub async fn expect_within(&self, name: &str, limit: Duration) -> Result<Vec<Value>, ExpectError> {
        self.wait_for(name, limit, |arrival| arrival.name == name)
            .await
            .map(|arrival| arrival.args)
    }

    /// Fails if an event of that name is there or arrives meanwhile; sensible only after another awaited condition.
    pub async fn expect_none(&self, name: &str, during: Duration) -> Result<(), ExpectError> {
        let wanted = format!("no {name}");
        let found = self.search(during, |mailbox| {
            mailbox.waiting.iter().any(|arrival| arrival.name == name).then_some(())
        });
        match found.await {
            Some(()) => Err(self.describe(&wanted, during)),
            None => Ok(()),
        }
    }

    /// Takes every event of that name that has arrived so far.
    pub fn take(&self, name: &str) -> Vec<Vec<Value>> {
        self.take_arrivals(name)
            .into_iter()
            .map(|arrival| arrival.args)
            .collect()
    }

    /// As [`take`](Self::take), with times of arrival.
    pub fn take_arrivals(&self, name: &str) -> Vec<Arrival> {
        lock(&self.inner.mailbox).take_all(name)
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.inner.closed.subscribe();
        let reason = closed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        // Unreachable: the sender lives in `inner`.
        reason.unwrap_or(CloseReason::KilledByUs)
    }

    /// False once the end of the connection was noticed.
    pub fn is_connected(&self) -> bool {
        self.inner.closed.borrow().is_none()
    }

    /// Stops reading from the TCP socket, so that the kernel's buffers fill; an end is then not noticed either.
    ///
    /// By polling only the next poll is withheld: the answer to the present one is still buffered below us.
    pub fn pause_reading(&self) {
        self.inner.paused.send_replace(true);
    }

    /// Reads on; the wait for a ping starts anew.
    pub fn resume_reading(&self) {
        self.inner.paused.send_replace(false);
    }

    /// Drops the TCP connection without a close frame; what was enqueued but not written is lost.
    pub fn kill(&self) {
        self.inner.close(CloseReason::KilledByUs);
        self.task.abort();
    }

    /// Writes what is enqueued, says goodbye (`41`) and waits until the connection is closed.
    pub async fn disconnect(&self) {
        self.inner.closing.store(true, Ordering::Relaxed);
        let goodbye = async {
            if self.inner.out.send(Out::Disconnect).await.is_ok() {
                self.closed().await;
            }
        };
        if timeout(self.timeout, goodbye).await.is_err() {
            self.inner.close(CloseReason::DisconnectedByUs);
            self.task.abort();
        }
    }

    async fn wait_for(
        &self,
        wanted: &str,
        limit: Duration,
        matches: impl Fn(&Arrival) -> bool,
    ) -> Result<Arrival, ExpectError> {
        let found = self.search(limit, |mailbox| mailbox.take_first(&matches)).await;
        found.ok_or_else(|| self.describe(wanted, limit))
    }

    /// Looks into the mailbox after every arrival, until the deadline or the end of the connection.
    async fn search<T>(&self, limit: Duration, mut look: impl FnMut(&mut inner::Mailbox) -> Option<T>) -> Option<T> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let mut arrived = Box::pin(self.inner.arrived.notified());
            // Registered before looking, so that an arrival in between wakes us.
            arrived.as_mut().enable();
            let open = self.is_connected();
            if let Some(found) = look(&mut lock(&self.inner.mailbox)) {
                return Some(found);
            }
            if !open || timeout_at(deadline, arrived).await.is_err() {
                return look(&mut lock(&self.inner.mailbox));
            }
        }
    }

    fn describe(&self, wanted: &str, waited: Duration) -> ExpectError {
        let mailbox = lock(&self.inner.mailbox);
        let waiting = mailbox.waiting.iter().map(|arrival| {
            let args: String = Value::from(arrival.args.clone())
                .to_string()
                .chars()
                .take(200)
                .collect();
            format!("{}{args}", arrival.name)
        });
        ExpectError {
            wanted: wanted.to_owned(),
            waited,
            // Enough to see what happened, short enough to read.
            waiting: waiting.take(20).collect(),
            taken: mailbox
                .taken
                .iter()
                .map(|(name, count)| (name.clone(), *count))
                .collect(),
            closed: self.inner.closed.borrow().clone(),
        }
    }
}

/// The acknowledgement of one emission: a future of its arguments and the time they were read.
#[derive(Debug)]
pub struct PendingAck {
    inner: Arc<Inner>,
    id: u64,
    answer: oneshot::Receiver<(Vec<Value>, Instant)>,
    limit: Pin<Box<Sleep>>,
}

impl Future for PendingAck {
    type Output = Result<(Vec<Value>, Instant), EmitError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(answer) = Pin::new(&mut self.answer).poll(cx) {
            return Poll::Ready(answer.map_err(|_| EmitError::Closed));
        }
        self.limit.as_mut().poll(cx).map(|()| Err(EmitError::Timeout))
    }
}

impl Drop for PendingAck {
    fn drop(&mut self) {
        self.inner.forget_ack(self.id);
    }
}
