//! What the metrics say of the queue as a whole.

use std::sync::Arc;
use std::time::Duration;

use crate::redis::{QuestionFigures, Redis};
use crate::telemetry::Metrics;

/// How often Redis is asked: well within the interval of any scraper, and nothing to it.
const PERIOD: Duration = Duration::from_secs(3);

/// Shows how the queue stands, again and again, until cancelled. What cannot be read is not shown.
pub async fn show(redis: Redis, metrics: Arc<Metrics>) {
    loop {
        match redis.question_figures().await {
            Ok(figures) => set(&metrics, &figures),
            Err(error) => {
                tracing::debug!(%error, "the queue's figures are not known now");
                metrics.gpt_jobs.withdraw();
                metrics.gpt_oldest_wait.withdraw();
                metrics.gpt_dead_jobs.withdraw();
            }
        }
        tokio::time::sleep(PERIOD).await;
    }
}

fn set(metrics: &Metrics, figures: &QuestionFigures) {
    for (state, jobs) in [
        ("ready", figures.ready),
        ("running", figures.running),
        ("delayed", figures.delayed),
        ("waiting", figures.waiting),
    ] {
        metrics.gpt_jobs.set([state], jobs as f64);
    }
    metrics.gpt_oldest_wait.set([], figures.oldest_wait.as_secs_f64());
    metrics.gpt_dead_jobs.set([], figures.dead as f64);
}
