//! The only way to answer an event: an ack where the client asked for one, else `errorMessage`.

use std::time::Instant;

use serde::Serialize;
use socketioxide::extract::AckSender;
use socketioxide::handler::FromMessageParts;
use socketioxide::{SendError, SocketError};
use socketioxide_core::{Str, Value};
use tracing::Span;

use super::frame::Packet;
use super::line::NotSent;
use super::protocol::{Done, Failure, Stored, event};
use super::{App, Socket};
use crate::chat::ChatError;
use crate::redis::{Adapter, Receipt};
use crate::telemetry::trace;

/// The answer that an event still needs.
pub struct Reply {
    /// The event's name, of a fixed set.
    pub event: &'static str,
    ack_id: Option<i64>,
    /// When the event came.
    at: Instant,
    /// The event in its trace, if it is traced; it ends with the answer.
    pub span: Span,
}

impl Reply {
    /// An answer to `event`, which came at `at`; `ack_id` where the client asked for an ack.
    pub fn new(event: &'static str, ack_id: Option<i64>, at: Instant) -> Self {
        Self {
            event,
            ack_id,
            at,
            span: Span::none(),
        }
    }

    fn count(&self, app: &App, result: &'static str) {
        app.metrics.events_total.inc([self.event, result]);
        app.metrics
            .event_duration_seconds
            .observe(self.event, self.at.elapsed());
        trace::note(&self.span, "roomcast.result", result);
    }

    /// Acks with a value.
    pub async fn send<T: Serialize + ?Sized>(self, app: &App, socket: &Socket, value: &T) {
        self.count(app, "ok");
        self.ack(app, socket, value).await;
    }

    /// Acks that it is done.
    pub async fn done(self, app: &App, socket: &Socket) {
        self.send(app, socket, &Done { ok: true }).await;
    }

    /// Acks a stored event.
    pub async fn stored(self, app: &App, socket: &Socket, receipt: &Receipt) {
        let Receipt {
            id,
            seq,
            epoch,
            ts,
            dup,
        } = receipt;
        self.send(
            app,
            socket,
            &Stored {
                ok: true,
                id,
                seq: *seq,
                epoch: epoch.as_str(),
                ts: *ts,
                dup: *dup,
            },
        )
        .await;
    }

    /// Answers that it was not done, and why.
    pub async fn fail(self, app: &App, socket: &Socket, error: &ChatError) {
        let message = error.to_string();
        let failure = self.failure(app, socket, error, &message);
        app.deliver.send(socket, &self.failed(&failure)).await;
    }

    /// As [`Self::fail`], from where nothing can be awaited: a client that does not read its answers is cut.
    pub fn fail_now(self, app: &App, socket: &Socket, error: &ChatError) {
        let message = error.to_string();
        let failure = self.failure(app, socket, error, &message);
        app.deliver.send_now(socket, &self.failed(&failure));
    }

    /// As [`Self::fail`], where the answer is worth no wait and no cut: a client that floods and does not read gets none.
    pub fn fail_if_room(self, app: &App, socket: &Socket, error: &ChatError) {
        let message = error.to_string();
        let failure = self.failure(app, socket, error, &message);
        app.deliver.send_if_room(socket, &self.failed(&failure));
    }

    fn failure<'a>(&'a self, app: &App, socket: &Socket, error: &ChatError, message: &'a str) -> Failure<'a> {
        self.count(app, error.code());
        self.span
            .in_scope(|| tracing::debug!(event = self.event, code = error.code(), sid = %socket.id, "event refused"));
        let wants_ack = self.ack_id.is_some();
        Failure {
            event: (!wants_ack).then_some(self.event),
            ok: wants_ack.then_some(false),
            error: wants_ack.then_some(message),
            code: error.code(),
            message,
            retry_after_ms: error
                .retry_after()
                .and_then(|after| u64::try_from(after.as_millis()).ok()),
        }
    }

    fn failed<'a>(&self, failure: &'a Failure<'a>) -> Packet<'a, Failure<'a>> {
        match self.ack_id {
            Some(id) => Packet::Ack(id, failure),
            None => Packet::Event(event::ERROR, failure),
        }
    }

    async fn ack<T: Serialize + ?Sized>(self, app: &App, socket: &Socket, value: &T) {
        if let Some(id) = self.ack_id {
            app.deliver.send(socket, &Packet::Ack(id, value)).await;
        }
    }
}

/// The number of an ack that no client asks for, small enough for all of them: they count from zero.
const MARK: i64 = i32::MAX as i64;

/// Puts a mark behind everything that the engine has for a socket; clients ignore it. `false` when it takes no more.
pub fn mark(socket: &Socket) -> bool {
    by_engine(socket, &Packet::Ack(MARK, &[(); 0])).is_ok()
}

/// Hands a packet to the engine.
pub fn by_engine<T: Serialize + ?Sized>(socket: &Socket, packet: &Packet<'_, T>) -> Result<(), NotSent> {
    let sent = match *packet {
        Packet::Event(name, data) => socket.emit(name, data),
        Packet::Ack(id, data) => ack_sender(socket, id).send(data),
    };
    sent.map_err(|error| match error {
        SendError::Socket(SocketError::InternalChannelFull) => NotSent::Full,
        _ => NotSent::Gone,
    })
}

/// A sender is used up by a failed attempt, so each gets its own.
fn ack_sender(socket: &Socket, ack_id: i64) -> AckSender<Adapter> {
    let Ok(sender) = AckSender::from_message_parts(socket, &mut Value::Str(Str::from(""), None), &Some(ack_id));
    sender
}
