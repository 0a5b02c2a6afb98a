//! Tasks that must live: one that ends by itself takes the node down, instead of leaving it half alive.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where the end of the node is told.
pub type Failure = Arc<watch::Sender<Option<String>>>;

/// Starts tasks that run until the node stops.
#[derive(Clone)]
pub struct Vital {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Failure,
}

impl Vital {
    /// Starts tasks on `tracker` that `stop` ends; who ends before that is told to `failure`.
    pub fn new(tracker: TaskTracker, stop: CancellationToken, failure: Failure) -> Self {
        Self { tracker, stop, failure }
    }

    /// Starts a task.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        self.tracker.spawn(async move {
            // What a panic leaves behind is not used again: the process ends.
            let task = AssertUnwindSafe(task).catch_unwind();
            let Some(ended) = stop.run_until_cancelled(task).await else {
                return;
            };
            if stop.is_cancelled() {
                return;
            }
            let how = if ended.is_ok() { "has ended" } else { "has panicked" };
            tracing::error!(task = name, "a task {how} that must live: this node cannot go on");
            failure.send_replace(Some(format!("the task `{name}` {how}")));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_is_told_and_one_that_is_stopped_is_not() {
        let (failure, mut failed) = watch::channel(None);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let vital = Vital::new(tracker.clone(), stop.clone(), Arc::new(failure));
        vital.spawn("fine", std::future::pending());
        vital.spawn("frail", async { panic!("on purpose") });
        failed.changed().await.unwrap();
        let reason = failed.borrow_and_update().clone().unwrap();
        assert!(reason.contains("`frail` has panicked"), "{reason}");
        vital.spawn("brief", async {});
        failed.changed().await.unwrap();
        let reason = failed.borrow_and_update().clone().unwrap();
        assert!(reason.contains("`brief` has ended"), "{reason}");
        stop.cancel();
        tracker.close();
        tracker.wait().await;
        assert!(!failed.has_changed().unwrap_or(false));
    }
}
