//! Loops that look when there is something to see, and now and then without.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::redis::RedisError;

/// News within this time is looked at together.
const PACE: Duration = Duration::from_millis(50);
/// How long to wait after a failure of Redis.
pub const RETRY: Duration = Duration::from_millis(500);

/// What makes a loop look before its time.
#[derive(Default)]
pub struct News(Option<watch::Receiver<u64>>);

impl News {
    /// What is told by the bus.
    pub fn of(told: watch::Receiver<u64>) -> Self {
        Self(Some(told))
    }

    async fn wait(&mut self) {
        // An error: the bus has ended, and so will this worker.
        if let Some(told) = &mut self.0
            && told.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}

/// Does something when there is news, and after `period` without, until cancelled, which ends no round half done; failures
/// are told once until it works again.
pub async fn repeat<F: Future<Output = Result<(), RedisError>>>(
    stop: &CancellationToken,
    period: Duration,
    what: &str,
    mut news: News,
    mut work: impl FnMut() -> F,
) {
    let mut failing: Option<Instant> = None;
    while !stop.is_cancelled() {
        let began = Instant::now();
        let done = work().await;
        let pause = async {
            match done {
                Ok(()) => {
                    if let Some(since) = failing.take() {
                        tracing::info!(after = ?since.elapsed(), "the queue goes on");
                    }
                    tokio::select! {
                        () = tokio::time::sleep(period) => {}
                        () = news.wait() => tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await,
                    }
                }
                Err(error) => {
                    if failing.is_none() {
                        failing = Some(Instant::now());
                        tracing::warn!(%error, "{what}");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        let _cancelled = stop.run_until_cancelled(pause).await;
    }
}
