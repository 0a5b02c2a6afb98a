//! The end of a node: nobody new, everybody sent away over a time, nothing left behind.

use std::time::Duration;

use super::{Booted, Node, upkeep};
use crate::redis::Load;
use crate::socket::{App, Departure};

/// How long each of the last steps may take: sockets that were closed and are being removed, tasks that end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Between two looks at whether the last sockets are gone.
const LOOK: Duration = Duration::from_millis(10);

impl Node {
    /// Drains the node and ends it.
    ///
    /// It is unready at once. After `ROOMCAST_DRAIN_NOTICE`, when load balancers have noticed, handshakes are refused and
    /// the sockets are sent away over `ROOMCAST_DRAIN_SPREAD`, each with its last acks. Then its traces are removed from
    /// Redis.
    pub async fn stop(self) {
        self.health.set_draining();
        if let Some(Booted { app, .. }) = self.booted.get() {
            announce_drain(app).await;
        }
        tokio::time::sleep(*self.config.drain_notice).await;
        self.front.set_draining();
        if let Some(Booted { app, io, .. }) = self.booted.get() {
            let sockets = app.live();
            tracing::info!(sockets = sockets.len(), spread = ?*self.config.drain_spread, "draining");
            let (metrics, total) = (&app.metrics, sockets.len().max(1));
            let show = |here: usize| {
                metrics.drain_sockets.set(i64::try_from(here).unwrap_or(i64::MAX));
                metrics.drain_progress.set(1.0 - here as f64 / total as f64);
            };
            app.send_away(sockets, *self.config.drain_spread, Departure::Drain, show)
                .await;
            // Whose handshake was under way when new ones began to be refused.
            let mut late = app.live();
            late.retain(|live| !live.session.is_cut());
            app.send_away(late, Duration::ZERO, Departure::Drain, |_| {}).await;
            for conn in self.connections.all() {
                conn.kill();
            }
            let until = tokio::time::Instant::now() + STOP_GRACE;
            while !app.sockets.is_empty() && tokio::time::Instant::now() < until {
                tokio::time::sleep(LOOK).await;
            }
            self.stop.cancel();
            // It can hang on a client that does not read; that one is cut already.
            let _late = tokio::time::timeout(STOP_GRACE, io.close()).await;
        }
        self.stop.cancel();
        self.stop_ops.cancel();
        self.tracker.close();
        if tokio::time::timeout(STOP_GRACE, self.tracker.wait()).await.is_err() {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
        if let Some(Booted { app, link, .. }) = self.booted.get() {
            upkeep::flush(app, upkeep::FLUSH, |_| true).await;
            // What a late task may have left is removed with the name; without Redis it waits for another node.
            if let Err(error) = app.redis.retire_node(&app.node.get()).await {
                tracing::warn!(%error, "this node's entries stay until another node removes them");
            }
            link.close().await;
            app.redis.close().await;
        }
        tracing::info!("node stopped");
    }
}

/// Tells the other nodes, so that none of them sends sockets away meanwhile.
async fn announce_drain(app: &App) {
    let load = Load {
        sockets: app.sockets.len(),
        is_draining: true,
    };
    if let Err(error) = app.redis.renew_node(&app.node.get(), load).await {
        tracing::debug!(%error, "the other nodes do not know of this drain");
    }
}
