//! The stock Socket.IO adapter: shares the rooms `user:<platformid>` between nodes, for rare cluster-wide emits.
//!
//! Room traffic does not use it: one channel for the whole namespace would make every message cost every node.

use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::types::ClientState;
use socketioxide::adapter::Emitter;
use socketioxide_redis::drivers::fred::FredDriver;
use socketioxide_redis::{FredAdapter, RedisAdapterConfig, RedisAdapterCtr};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

use super::Redis;

/// The adapter's type, as socketioxide wants it.
pub type Adapter = FredAdapter<Emitter>;

/// Messages and answers of the adapter held until they are read; its own default drops under load.
const STREAM_BUFFER: usize = 65_536;

/// How often the adapter's subscriptions are made anew: a cluster drops them without a word when a slot moves.
const RESUBSCRIBE_PERIOD: Duration = Duration::from_secs(5);

/// The adapter's connection.
pub struct AdapterLink(SubscriberClient);

impl AdapterLink {
    /// Ends the connection, and with it the adapter's tasks.
    pub async fn close(&self) {
        let _closed = self.0.quit().await;
    }
}

impl Redis {
    /// Connects the adapter and keeps its subscriptions alive. Waits until Redis is there.
    pub async fn adapter(&self) -> Result<(RedisAdapterCtr<FredDriver>, AdapterLink), fred::error::Error> {
        let subscriber = self.settings.subscriber();
        let driver = FredDriver::new(subscriber.clone()).await?;
        let link = AdapterLink(subscriber.clone());
        self.guide(subscriber.clone());
        // Started after the connection stands: before it there is nothing to subscribe anew.
        tokio::spawn(async move {
            let mut reconnects = subscriber.reconnect_rx();
            let mut ticks = tokio::time::interval(RESUBSCRIBE_PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    event = reconnects.recv() => if let Err(RecvError::Closed) = event { return },
                    _ = ticks.tick() => {}
                }
                if matches!(subscriber.state(), ClientState::Disconnecting) {
                    return;
                }
                for channel in subscriber.tracked_shard_channels() {
                    if subscriber.is_connected()
                        && let Err(error) = subscriber.ssubscribe(channel.to_string()).await
                    {
                        tracing::warn!(%error, "adapter channel is not subscribed");
                    }
                }
            }
        });
        let config = RedisAdapterConfig::new()
            .with_prefix("rc:io")
            .with_stream_buffer(STREAM_BUFFER);
        Ok((RedisAdapterCtr::new_with_driver(driver, config), link))
    }
}
