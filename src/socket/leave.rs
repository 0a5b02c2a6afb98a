//! Sending sockets away: the one way in which a node that ends, or has too many, parts with them.
//!
//! Each gets a moment of its own within a time. A client of protocol 2 is told its moment at once (`server:drain`) and
//! leaves by itself; one that stays, and everybody else, has its transport closed, from which clients come back by
//! themselves. Nobody is `disconnect`ed: JS clients would stay away for good.

use std::time::Duration;

use serde::Serialize;
use socketioxide::TransportType;
use tokio::time::Instant;

use super::protocol::event;
use super::{App, Live};

/// Between two looks at who has to go.
const STEP: Duration = Duration::from_millis(100);
/// How long a client that was told its moment may take to leave: acks of what it sent last are still on the way.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// For how long the end of a socket waits for a moment in which nothing of it is under way; as long again without any
/// further event.
const BUSY_MAX: Duration = Duration::from_secs(2);

/// How many are told without a pause: other tasks have their turn in between.
const TOLD_AT_ONCE: usize = 256;

/// Why sockets are sent away: the reason in metrics and connection histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The node ends.
    Drain,
    /// It has more than its share.
    Rebalance,
}

impl Departure {
    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Rebalance => "rebalance",
        }
    }
}

/// `server:drain`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerDrain {
    after_ms: u64,
}

/// A socket and when its transport is closed.
struct Leaving {
    live: Live,
    due: Instant,
    /// The event after which it rested at the last look.
    rested_after: Option<u64>,
}

impl Leaving {
    /// Whether it may end now: nothing was under way at two looks, so the last ack has left; or it never rests.
    fn may_end(&mut self, why: Departure, now: Instant) -> bool {
        let rests_after = self.live.session.inbox.rests_after();
        let rested = rests_after.is_some() && rests_after == self.rested_after;
        self.rested_after = rests_after;
        let waited = now.saturating_duration_since(self.due);
        if waited > BUSY_MAX {
            // What it sends from now on is not taken, so that there is an end.
            let _again = self.live.session.note_cut(why.as_str());
        }
        rested || waited > 2 * BUSY_MAX
    }
}

impl App {
    /// Sends sockets away, evenly within `within`, and returns when each has left or was closed; `show` is told how many are
    /// still to go. Dropped early, the rest stays, though some were told to leave.
    pub async fn send_away(&self, sockets: Vec<Live>, within: Duration, why: Departure, show: impl Fn(usize)) {
        show(sockets.len());
        let mut leaving = self.tell(sockets, within, why).await;
        while !leaving.is_empty() {
            let now = Instant::now();
            leaving.retain_mut(|one| {
                if !self.sockets.contains_key(&one.live.socket.id) {
                    self.metrics.departures_total.inc([why.as_str(), "left"]);
                    return false;
                }
                if one.due > now || !one.may_end(why, now) {
                    return true;
                }
                self.metrics.departures_total.inc([why.as_str(), "closed"]);
                self.close(&one.live, why.as_str());
                false
            });
            show(leaving.len());
            if !leaving.is_empty() {
                tokio::time::sleep(STEP).await;
            }
        }
    }

    /// Gives everybody a moment and tells those who understand it.
    async fn tell(&self, sockets: Vec<Live>, within: Duration, why: Departure) -> Vec<Leaving> {
        let (begin, count) = (Instant::now(), sockets.len().max(1) as f64);
        let leave_max = LEAVE_MAX.min(within / 4);
        let mut leaving = Vec::with_capacity(sockets.len());
        // Registries are in no order that anybody could know, so neighbours here come from everywhere.
        for (index, live) in sockets.into_iter().enumerate() {
            if index % TOLD_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let share = index as f64 / count;
            let due = if live.session.proto2 {
                let after = (within - leave_max).mul_f64(share);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.deliver
                    .emit_now(&live.socket, event::SERVER_DRAIN, &ServerDrain { after_ms });
                begin + after + leave_max
            } else {
                begin + within.mul_f64(share)
            };
            leaving.push(Leaving {
                live,
                due,
                rested_after: None,
            });
        }
        tracing::debug!(
            sockets = leaving.len(),
            ?within,
            why = why.as_str(),
            "sending sockets away"
        );
        leaving
    }

    /// Closes a socket's transport: its client comes back by itself, here or elsewhere.
    pub fn close(&self, Live { session, socket }: &Live, reason: &'static str) {
        let _again = session.note_cut(reason);
        self.metrics.cuts_total.inc([reason]);
        self.transports.kill(socket.id);
        // A polling client has no open connection to close: its session ends here, and the front turns the answer of the
        // poll that waits into a failed one.
        if socket.transport_type() == TransportType::Polling {
            let _gone = socket.clone().disconnect();
        }
    }
}
