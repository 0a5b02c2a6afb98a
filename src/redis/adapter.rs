//! The stock Socket.IO adapter: shares the rooms `user:<platformid>` between nodes, for rare cluster-wide emits.
//!
//! Room traffic does not use it: one channel for the whole namespace would make every message cost every node.

use fred::clients::SubscriberClient;
use fred::prelude::*;
use socketioxide::adapter::Emitter;
use socketioxide_redis::drivers::fred::FredDriver;
use socketioxide_redis::{FredAdapter, RedisAdapterConfig, RedisAdapterCtr};

use super::Redis;

/// The adapter's type, as socketioxide wants it.
pub type Adapter = FredAdapter<Emitter>;

/// Messages and answers of the adapter held until they are read; its own default drops under load.
const STREAM_BUFFER: usize = 65_536;

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
        let subscriber = self.subscriber();
        let driver = FredDriver::new(subscriber.clone()).await?;
        let link = AdapterLink(subscriber.clone());
        // Started after the connection stands: before it there is nothing to subscribe anew.
        tokio::spawn(async move {
            let mut reconnects = subscriber.reconnect_rx();
            while reconnects.recv().await.is_ok() {
                for channel in subscriber.tracked_shard_channels() {
                    if let Err(error) = subscriber.ssubscribe(channel.to_string()).await {
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
