//! What a node does when it no longer hears Redis, or was frozen itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::front::Front;
use crate::ops::Health;
use crate::socket::App;

/// A bus that is silent for this long makes the node unready.
const UNREADY_AFTER: Duration = Duration::from_secs(5);
/// A bus that is silent for this long may hide messages from the node's sockets: their transports are closed, within the
/// 10 s that are promised, so that they go where messages arrive.
const CUT_AFTER: Duration = Duration::from_secs(9);
/// Between two looks. Nothing else runs in this task: a Redis that hangs must not look like a process that was frozen.
const PERIOD: Duration = Duration::from_millis(500);
/// A process in which no look happened for this long was stopped or starved.
const FROZEN_AFTER: Duration = Duration::from_secs(3);

/// Watches the bus and the process itself.
pub struct Pulse {
    app: Arc<App>,
    health: Health,
    front: Front,
    checked: Instant,
    cut_off: bool,
}

impl Pulse {
    /// A watch that begins now.
    pub fn new(app: Arc<App>, health: Health, front: Front) -> Self {
        Self {
            app,
            health,
            front,
            checked: Instant::now(),
            cut_off: false,
        }
    }

    /// Runs until cancelled.
    pub async fn watch(mut self) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.look();
        }
    }

    fn look(&mut self) {
        let paused = self.checked.elapsed();
        self.checked = Instant::now();
        if paused >= FROZEN_AFTER {
            tracing::warn!(?paused, "this process was frozen: looking for what was missed");
            // What waits on the connection is in order; what Redis dropped meanwhile only the logs have.
            self.app.bus.suspect();
            return;
        }
        let silence = self.app.bus.silence();
        self.app.metrics.bus_silence_seconds.set(silence.of_all.as_secs_f64());
        self.health.set(
            "bus",
            if silence.of_all < UNREADY_AFTER {
                Ok(())
            } else {
                Err("no message of this node's own comes back through Redis")
            },
        );
        let cut_off = silence.of_all >= CUT_AFTER;
        if cut_off != self.cut_off {
            self.cut_off = cut_off;
            self.front.set_cut_off(cut_off);
            if cut_off {
                tracing::error!(silent_for = ?silence.of_all, "nothing is heard of Redis: closing every connection");
            } else {
                tracing::info!("Redis is heard again: serving");
            }
        }
        if cut_off {
            // At every look: a handshake that was under way ends after the first one.
            self.app.cut_all("cut_off");
        } else if silence.of_any >= CUT_AFTER {
            self.app.deliver.cut_silent(CUT_AFTER);
        }
    }
}
