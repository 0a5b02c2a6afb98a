//! Composition root of a worker: what happens behind the chat.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::archive::Archiver;
use crate::chat::fold::fold;
use crate::config::Config;
use crate::gpt::provider::Provider;
use crate::gpt::{Answerer, Fold, Prompter, Queue, RoomPrompts, show_figures};
use crate::node::{NodeError, listen, log_end};
use crate::ops::{self, Admin, Health};
use crate::redis::{BusMetrics, Redis};
use crate::telemetry::Metrics;
use crate::upstream::Upstream;

/// How long tasks may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often readiness is looked at.
const HEALTH_PERIOD: Duration = Duration::from_secs(1);

/// A running worker.
pub struct Worker {
    /// Where health and metrics answer.
    pub ops_address: SocketAddr,
    /// The worker's metrics.
    pub metrics: Arc<Metrics>,
    redis: Redis,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Worker {
    /// Binds the ops listener and starts the consumers; they wait for Redis and for the services.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        config.validate()?;
        let metrics = Arc::new(Metrics::new().map_err(|error| NodeError::Start(error.to_string()))?);
        let redis = Redis::start_measured(&config, &metrics)?;
        let upstream = Upstream::new(&config).map_err(|error| NodeError::Start(error.to_string()))?;
        let upstream = Arc::new(upstream.with_metrics(metrics.clone()));
        let (listener, ops_address) = listen(config.ops_listen).await?;

        let (health, stop, tracker) = (Health::new(&["redis"]), CancellationToken::new(), TaskTracker::new());
        let admin = Admin::new(&config, &redis);
        let stopped = stop.clone().cancelled_owned();
        let ops = ops::serve(listener, health.clone(), metrics.clone(), admin, stopped);
        tracker.spawn(log_end("ops listener", ops));
        let archiver = Archiver::new(&config, redis.clone(), upstream.clone(), metrics.clone());
        tracker.spawn(
            stop.clone()
                .run_until_cancelled_owned(async move { archiver.run().await }),
        );
        let folded: Fold = |events| {
            let messages = fold(Vec::new(), events).messages;
            messages.into_iter().map(|message| message.json).collect()
        };
        let prompts = RoomPrompts::new(upstream.clone(), config.gpt_room_prompt_bytes);
        let prompter = Prompter::new(&config, redis.clone(), folded, prompts);
        let provider = Provider::new(&config)?;
        let answerer = Answerer::new(&config, redis.clone(), provider, prompter, metrics.clone())
            .map_err(|error| NodeError::Start(error.to_string()))?;
        let bus = redis.start_worker_bus(BusMetrics {
            received: metrics.bus_messages_received_total.clone(),
            lagged: metrics.bus_lagged_total.clone(),
            resubscribes: metrics.bus_resubscribes_total.clone(),
        });
        let queue = Queue::new(&config, redis.clone(), bus, answerer, metrics.clone());
        tracker.spawn(queue.run(stop.clone()));
        let figures = show_figures(redis.clone(), metrics.clone());
        tracker.spawn(stop.clone().run_until_cancelled_owned(figures));
        let watching = ops::watch(health.clone(), upstream, config.memory_share.into());
        tracker.spawn(stop.clone().run_until_cancelled_owned(watching));
        // It has nothing to wait for: consumers go on trying until Redis is there.
        health.set_started();
        let watched = redis.clone();
        tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                health.set(
                    "redis",
                    if watched.is_connected() {
                        Ok(())
                    } else {
                        Err("not reachable")
                    },
                );
                tokio::time::sleep(HEALTH_PERIOD).await;
            }
        }));
        tracing::info!(%ops_address, "worker runs");
        Ok(Self {
            ops_address,
            metrics,
            redis,
            tracker,
            stop,
        })
    }

    /// Ends the consumers; what they had not finished stays in its stream.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        let _late = tokio::time::timeout(STOP_GRACE, self.tracker.wait()).await;
        self.redis.close().await;
        tracing::info!("worker stopped");
    }
}
