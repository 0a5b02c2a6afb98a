//! Loops that look when there is something to see, and now and then without.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::redis::RedisError;

/// News within this time is looked at together.
const PACE: Duration = Duration::from_millis(50);
/// How long to wait after a failure of Redis.
pub const RETRY: Duration = Duration::from_millis(500);

/// What makes a loop look before its time.
#[derive(Default)]
pub struct News<'a> {
    told: Option<watch::Receiver<u64>>,
    freed: Option<&'a Notify>,
}

impl<'a> News<'a> {
    /// What is told by the bus.
    pub fn of(told: watch::Receiver<u64>) -> Self {
        Self {
            told: Some(told),
            freed: None,
        }
    }

    /// Or what this worker has itself to say.
    pub fn or(self, freed: &'a Notify) -> Self {
        Self {
            freed: Some(freed),
            ..self
        }
    }

    async fn wait(&mut self) {
        let told = async {
            // An error: the bus has ended, and so will this worker.
            if let Some(told) = &mut self.told
                && told.changed().await.is_ok()
            {
                return;
            }
            std::future::pending().await
        };
        let freed = async {
            match self.freed {
                Some(freed) => freed.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = freed => {}
        }
    }
}

/// Does something when there is news, and after `period` without; failures are told once until it works again.
pub async fn repeat<F: Future<Output = Result<(), RedisError>>>(
    period: Duration,
    what: &str,
    mut news: News<'_>,
    mut work: impl FnMut() -> F,
) {
    let mut failing: Option<Instant> = None;
    loop {
        let began = Instant::now();
        match work().await {
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
    }
}
