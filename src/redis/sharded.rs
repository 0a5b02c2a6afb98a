//! Subscriptions to the sharded channels of a cluster.

use fred::prelude::*;
use futures::future::join_all;

/// Subscribes to channels that share a slot.
///
/// One command for each: a server confirms every channel on its own, and fred takes the second confirmation of a command
/// for the answer to the next one. The first goes ahead, so that a slot that has moved is found out once; fred then brings
/// its routing up to date, but does not send the command again.
pub(super) async fn subscribe(client: &Client, channels: Vec<String>) -> Result<(), Error> {
    let mut channels = channels.into_iter();
    let Some(first) = channels.next() else { return Ok(()) };
    if client.ssubscribe(first.clone()).await.is_err() {
        client.ssubscribe(first).await?;
    }
    let answers = join_all(channels.map(|channel| client.ssubscribe(channel))).await;
    answers.into_iter().collect()
}
