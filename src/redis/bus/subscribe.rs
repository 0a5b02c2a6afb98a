//! Owns the subscriptions; makes them anew after every reconnect.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::{Request, Tasks};
use crate::model::RoomId;
use crate::redis::{RedisError, sharded};

/// Channels in one SUBSCRIBE: large enough for thousands of rooms after a reconnect, small enough not to block others.
const BATCH: usize = 500;
/// How long to wait before subscriptions that failed are tried again.
const RETRY: Duration = Duration::from_millis(100);

pub(super) async fn subscribe(tasks: Arc<Tasks>, mut requests: mpsc::UnboundedReceiver<Request>) {
    let _connection = tasks.client.connect();
    crate::redis::client::connected(&tasks.client).await;
    let mut reconnects = tasks.client.reconnect_rx();
    let mut rooms: HashSet<RoomId> = HashSet::new();
    // The first connection counts as a reconnect too: requests and control messages may have been missed.
    let mut stale = true;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if stale {
            match tasks.subscribe_all(&rooms).await {
                Ok(()) => {
                    stale = false;
                    tasks.metrics.resubscribes.inc();
                    tasks.announce_gap().await;
                    tasks.news.tell_all();
                }
                // Requests go on being answered below, with their own errors.
                Err(error) => tracing::debug!(%error, "cannot subscribe yet"),
            }
        }
        tokio::select! {
            biased;
            event = reconnects.recv() => match event {
                Ok(_) | Err(RecvError::Lagged(_)) => stale = true,
                Err(RecvError::Closed) => return,
            },
            taken = requests.recv_many(&mut batch, BATCH) => {
                if taken == 0 {
                    let _closed = tasks.client.quit().await;
                    return;
                }
                stale |= apply(&tasks, &mut rooms, &mut batch).await;
            }
            () = tokio::time::sleep(RETRY), if stale => {}
        }
    }
}

/// Runs requests in order, each run of the same kind as one command; `true` when everything is to be made anew.
async fn apply(tasks: &Tasks, rooms: &mut HashSet<RoomId>, batch: &mut Vec<Request>) -> bool {
    let mut stale = false;
    let mut requests = batch.drain(..).peekable();
    while requests.peek().is_some() {
        let mut joins = Vec::new();
        while let Some(Request::Subscribe(..)) = requests.peek() {
            if let Some(Request::Subscribe(room, confirm)) = requests.next() {
                joins.push((room, confirm));
            }
        }
        if !joins.is_empty() {
            let result = tasks.send_subscribe(joins.iter().map(|(room, _)| room)).await;
            for (room, confirm) in joins {
                let answer = match &result {
                    Ok(()) => {
                        rooms.insert(room);
                        Ok(())
                    }
                    Err(_) => Err(RedisError::Unavailable),
                };
                let _gone = confirm.send(answer);
            }
        }
        let mut leaves = Vec::new();
        while let Some(Request::Unsubscribe(_)) = requests.peek() {
            if let Some(Request::Unsubscribe(room)) = requests.next() {
                rooms.remove(&room);
                leaves.push(room);
            }
        }
        if !leaves.is_empty()
            && let Err(error) = tasks.send_unsubscribe(&leaves).await
        {
            tracing::debug!(%error, "unsubscribe failed");
        }
        while let Some(Request::Renew | Request::Suspect) = requests.peek() {
            match requests.next() {
                Some(Request::Suspect) => stale = true,
                // A failure is followed by a reconnect or by the next renewal.
                _ => {
                    if let Err(error) = tasks.subscribe_all(rooms).await {
                        tracing::debug!(%error, "subscriptions not renewed");
                    }
                }
            }
        }
    }
    stale
}

impl Tasks {
    /// Subscribes to everything that should be subscribed: the channels of news, the canaries and the rooms.
    async fn subscribe_all(&self, rooms: &HashSet<RoomId>) -> Result<(), RedisError> {
        self.ready()?;
        self.news.subscribe(&self.client).await?;
        self.send(Verb::Subscribe, self.canaries.channels()).await?;
        let channels: Vec<String> = rooms.iter().map(|room| self.keys.live(room)).collect();
        for chunk in channels.chunks(BATCH) {
            self.send(Verb::Subscribe, chunk.to_vec()).await?;
        }
        Ok(())
    }

    async fn send_subscribe(&self, rooms: impl Iterator<Item = &RoomId>) -> Result<(), RedisError> {
        self.ready()?;
        self.send(Verb::Subscribe, rooms.map(|room| self.keys.live(room)).collect())
            .await
    }

    async fn send_unsubscribe(&self, rooms: &[RoomId]) -> Result<(), RedisError> {
        self.ready()?;
        let channels = rooms.iter().map(|room| self.keys.live(room)).collect();
        self.send(Verb::Unsubscribe, channels).await
    }

    fn ready(&self) -> Result<(), RedisError> {
        if self.client.is_connected() {
            Ok(())
        } else {
            Err(RedisError::Unavailable)
        }
    }

    async fn send(&self, verb: Verb, channels: Vec<String>) -> Result<(), RedisError> {
        if channels.is_empty() {
            // An empty SUBSCRIBE is an error whose answer fred gives to some other command.
            return Ok(());
        }
        if !self.clustered {
            match verb {
                Verb::Subscribe => {
                    self.client.subscribe(channels).await?;
                    // fred answers when it has queued a SUBSCRIBE; what comes behind it on the connection confirms it.
                    let () = self.client.ping(None).await?;
                }
                Verb::Unsubscribe => self.client.unsubscribe(channels).await?,
            }
            return Ok(());
        }
        for group in by_tag(channels) {
            match verb {
                Verb::Subscribe => sharded::subscribe(&self.client, group).await?,
                Verb::Unsubscribe => self.client.sunsubscribe(group).await?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Subscribe,
    Unsubscribe,
}

/// Sharded channels of one command must share a slot, that is a partition.
fn by_tag(channels: Vec<String>) -> Vec<Vec<String>> {
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for channel in channels {
        let tag = channel.split('}').next().unwrap_or_default().to_owned();
        groups.entry(tag).or_default().push(channel);
    }
    groups.into_values().collect()
}
