//! The only way to answer an event: an ack where the client asked for one, else `errorMessage`.

use serde::Serialize;
use socketioxide::extract::AckSender;

use super::protocol::{Done, Failure, Stored, event};
use super::{App, Socket};
use crate::chat::ChatError;
use crate::redis::{Adapter, Receipt};

/// The answer that an event still needs.
pub struct Reply {
    /// The event's name, of a fixed set.
    pub event: &'static str,
    ack: AckSender<Adapter>,
    wants_ack: bool,
}

impl Reply {
    /// An answer to `event`.
    pub fn new(event: &'static str, ack: AckSender<Adapter>, wants_ack: bool) -> Self {
        Self { event, ack, wants_ack }
    }

    /// Acks with a value.
    pub fn send<T: Serialize + ?Sized>(self, app: &App, socket: &Socket, value: &T) {
        app.metrics.events_total.inc([self.event, "ok"]);
        if self.wants_ack && self.ack.send(value).is_err() && socket.connected() {
            // A client that asks for acks and does not read them cannot be served.
            app.transports.kill(socket.id);
        }
    }

    /// Acks that it is done.
    pub fn done(self, app: &App, socket: &Socket) {
        self.send(app, socket, &Done { ok: true });
    }

    /// Acks a stored event.
    pub fn stored(self, app: &App, socket: &Socket, receipt: &Receipt) {
        let Receipt { id, seq, epoch, ts, dup } = receipt;
        self.send(app, socket, &Stored { ok: true, id, seq: *seq, epoch: epoch.as_str(), ts: *ts, dup: *dup });
    }

    /// Answers that it was not done, and why.
    pub fn fail(self, app: &App, socket: &Socket, error: &ChatError) {
        app.metrics.events_total.inc([self.event, error.code()]);
        tracing::debug!(event = self.event, code = error.code(), sid = %socket.id, "event refused");
        let message = error.to_string();
        let failure = Failure {
            event: (!self.wants_ack).then_some(self.event),
            ok: self.wants_ack.then_some(false),
            error: self.wants_ack.then_some(message.as_str()),
            code: error.code(),
            message: &message,
            retry_after_ms: error.retry_after().and_then(|after| u64::try_from(after.as_millis()).ok()),
        };
        if self.wants_ack {
            if self.ack.send(&failure).is_err() && socket.connected() {
                app.transports.kill(socket.id);
            }
        } else {
            app.deliver.emit(socket, event::ERROR, &failure);
        }
    }
}
