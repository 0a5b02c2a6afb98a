//! How costly it is to delete this node's pod: a scale-in then takes the one with the fewest sockets.
//!
//! Each write is an update of the pod that every watcher of pods hears of, so it is written seldom and only where it matters.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::socket::App;
use crate::upstream::Pod;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(10);
/// Between two writes.
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// After a failure: a missing permission does not come by asking.
const RETRY_AFTER: Duration = Duration::from_secs(300);
/// A change worth writing, as a share of what is written, and at least so many sockets.
const CHANGE: f64 = 0.1;
const CHANGE_MIN: f64 = 10.0;

/// What Kubernetes knows, and when it may be told more.
#[derive(Debug)]
struct Written {
    cost: i32,
    next: Option<Instant>,
}

impl Written {
    fn is_due(&self, cost: i32, now: Instant) -> bool {
        let change = (f64::from(cost) - f64::from(self.cost)).abs();
        let worth = (f64::from(self.cost) * CHANGE).max(CHANGE_MIN);
        // None at all is what makes it the one to take.
        let emptied = cost == 0 && self.cost != 0;
        (change >= worth || emptied) && self.next.is_none_or(|next| now >= next)
    }
}

/// Runs until cancelled; nothing that fails here matters to anybody's chat.
pub async fn keep(app: Arc<App>, pod: Pod) {
    // A pod without the annotation has the cost 0.
    let mut written = Written { cost: 0, next: None };
    let mut failing = false;
    loop {
        let (cost, now) = (i32::try_from(app.sockets.len()).unwrap_or(i32::MAX), Instant::now());
        if written.is_due(cost, now) {
            let outcome = pod.set_deletion_cost(cost).await;
            let wait = if outcome.is_ok() { WRITE_EVERY } else { RETRY_AFTER };
            written.next = Some(now + wait);
            match outcome {
                Ok(()) => {
                    written.cost = cost;
                    failing = false;
                    tracing::debug!(cost, "deletion cost of this pod written");
                }
                Err(error) if failing => tracing::debug!(%error, "deletion cost not written"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "the deletion cost of this pod is not written, a scale-in may take a full node; the pod's service account must be allowed to patch pods");
                }
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_seldom_and_only_where_it_changes_something() {
        let now = Instant::now();
        let written = |cost| Written { cost, next: None };
        assert!(!written(0).is_due(9, now) && written(0).is_due(10, now));
        assert!(!written(1000).is_due(1099, now) && written(1000).is_due(1100, now));
        assert!(written(1000).is_due(900, now) && written(5).is_due(0, now));
        let waiting = Written {
            cost: 1000,
            next: Some(now + WRITE_EVERY),
        };
        assert!(!waiting.is_due(5000, now) && waiting.is_due(5000, now + WRITE_EVERY));
    }
}
