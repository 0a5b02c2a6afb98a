//! The room bus: live channels of the rooms joined here, and the control channel.
//!
//! One task owns the subscriptions, so SUBSCRIBE and UNSUBSCRIBE of a room reach the server in the order they were asked
//! for. Another takes messages off the connection at once and hands them to shards by room, so a room keeps its order.

use std::collections::HashSet;

use fred::prelude::*;
use fred::types::Message;
use prometheus::IntCounter;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use super::RedisError;
use super::keys::{CONTROL, Keys, room_of_channel};
use super::log::read_live;
use crate::model::{RoomEvent, RoomId};

/// Messages of one shard waiting for delivery; when it overflows, the rooms are refilled from their logs.
const SHARD_QUEUE: usize = 65_536;
/// Channels in one SUBSCRIBE: large enough for thousands of rooms after a reconnect, small enough not to block others.
const BATCH: usize = 500;

/// What the bus hands to delivery.
#[derive(Debug)]
pub enum BusItem {
    /// A live event of a room.
    Event(RoomId, RoomEvent),
    /// A roomUpdate payload for those who belong to the room: best effort, without a place in the log.
    Update(RoomId, String),
    /// Messages may be missing in every room: after a reconnect or an overflow.
    Gap,
}

/// What the bus counts.
#[derive(Clone)]
pub struct BusMetrics {
    /// Room events received.
    pub received: IntCounter,
    /// Messages lost in a local overflow, to be refilled.
    pub lagged: IntCounter,
    /// Times the subscriptions were made anew.
    pub resubscribes: IntCounter,
}

enum Request {
    Subscribe(RoomId, oneshot::Sender<Result<(), RedisError>>),
    Unsubscribe(RoomId),
}

/// Subscriptions to rooms.
#[derive(Clone)]
pub struct Bus {
    // Unbounded: holds at most one request per room and change of interest, and both ends are ours.
    requests: mpsc::UnboundedSender<Request>,
    control: tokio::sync::watch::Receiver<u64>,
}

struct Tasks {
    client: Client,
    keys: Keys,
    clustered: bool,
    metrics: BusMetrics,
    shards: Vec<mpsc::Sender<BusItem>>,
}

impl Bus {
    pub(super) fn start(
        client: Client,
        keys: Keys,
        clustered: bool,
        shards: usize,
        metrics: BusMetrics,
    ) -> (Self, Vec<mpsc::Receiver<BusItem>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards.max(1)).map(|_| mpsc::channel(SHARD_QUEUE)).unzip();
        let (requests, request_rx) = mpsc::unbounded_channel();
        let (news, control) = tokio::sync::watch::channel(0);
        let tasks = std::sync::Arc::new(Tasks {
            client,
            keys,
            clustered,
            metrics,
            shards: senders,
        });
        tokio::spawn(receive(tasks.clone(), news.clone()));
        tokio::spawn(subscribe(tasks, request_rx, news));
        (Self { requests, control }, receivers)
    }

    /// Subscribes to a room's live events; returns when the server has confirmed.
    pub async fn subscribe(&self, room: &RoomId) -> Result<(), RedisError> {
        let (confirm, confirmed) = oneshot::channel();
        self.requests
            .send(Request::Subscribe(room.clone(), confirm))
            .map_err(|_| RedisError::Unavailable)?;
        confirmed.await.map_err(|_| RedisError::Unavailable)?
    }

    /// Ends the subscription; a later [`Self::subscribe`] comes after it.
    pub fn unsubscribe(&self, room: &RoomId) {
        let _closed = self.requests.send(Request::Unsubscribe(room.clone()));
    }

    /// Changes whenever there may be news in the control stream.
    pub fn control(&self) -> tokio::sync::watch::Receiver<u64> {
        self.control.clone()
    }
}

impl Tasks {
    fn shard(&self, room: &str) -> &mpsc::Sender<BusItem> {
        let shard = xxh3_64(room.as_bytes()) % self.shards.len() as u64;
        &self.shards[usize::try_from(shard).unwrap_or_default()]
    }

    async fn send_subscribe(&self, rooms: &[RoomId]) -> Result<(), RedisError> {
        if !self.client.is_connected() {
            return Err(RedisError::Unavailable);
        }
        let channels: Vec<String> = rooms.iter().map(|room| self.keys.live(room)).collect();
        if self.clustered {
            for group in by_tag(channels) {
                super::sharded::subscribe(&self.client, group).await?;
            }
        } else {
            self.client.subscribe(channels).await?;
        }
        Ok(())
    }

    async fn send_unsubscribe(&self, rooms: &[RoomId]) -> Result<(), RedisError> {
        let channels: Vec<String> = rooms.iter().map(|room| self.keys.live(room)).collect();
        if self.clustered {
            for group in by_tag(channels) {
                self.client.sunsubscribe(group).await?;
            }
        } else {
            self.client.unsubscribe(channels).await?;
        }
        Ok(())
    }

    /// Tells every shard that messages may be missing; waits for room, because this must not be lost.
    async fn announce_gap(&self) {
        for shard in &self.shards {
            let _closed = shard.send(BusItem::Gap).await;
        }
    }
}

/// Sharded channels of one command must share a slot, that is a partition.
fn by_tag(channels: Vec<String>) -> Vec<Vec<String>> {
    let mut groups: std::collections::HashMap<String, Vec<String>> = std::collections::HashMap::new();
    for channel in channels {
        let tag = channel.split('}').next().unwrap_or_default().to_owned();
        groups.entry(tag).or_default().push(channel);
    }
    groups.into_values().collect()
}

/// Takes messages off the connection.
async fn receive(tasks: std::sync::Arc<Tasks>, news: tokio::sync::watch::Sender<u64>) {
    let mut messages = tasks.client.message_rx();
    loop {
        match messages.recv().await {
            Ok(message) => dispatch(&tasks, &news, message).await,
            Err(RecvError::Lagged(missed)) => {
                tasks.metrics.lagged.inc_by(missed);
                tracing::warn!(missed, "bus overflow: refilling every joined room");
                tasks.announce_gap().await;
                news.send_modify(|n| *n += 1);
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn dispatch(tasks: &Tasks, news: &tokio::sync::watch::Sender<u64>, message: Message) {
    let Some(room) = room_of_channel(&message.channel) else {
        if &*message.channel == CONTROL {
            news.send_modify(|n| *n += 1);
        }
        return;
    };
    let Ok(room) = RoomId::new(room) else { return };
    let Some(payload) = message.value.as_str() else { return };
    let shard = tasks.shard(room.as_str());
    let item = match payload.strip_prefix("! ") {
        Some(update) => BusItem::Update(room, update.to_owned()),
        None => match read_live(&payload) {
            Some(event) => {
                tasks.metrics.received.inc();
                BusItem::Event(room, event)
            }
            None => {
                tracing::error!(%room, "unreadable message on a live channel");
                return;
            }
        },
    };
    // Waiting here only delays: fred's buffer takes the burst, and its overflow is repaired from the logs.
    let _closed = shard.send(item).await;
}

/// Owns the subscriptions; makes them anew after every reconnect.
async fn subscribe(
    tasks: std::sync::Arc<Tasks>,
    mut requests: mpsc::UnboundedReceiver<Request>,
    news: tokio::sync::watch::Sender<u64>,
) {
    let _connection = tasks.client.connect();
    super::client::connected(&tasks.client).await;
    let mut reconnects = tasks.client.reconnect_rx();
    let mut rooms: HashSet<RoomId> = HashSet::new();
    // The first connection counts as a reconnect too: requests and control messages may have been missed.
    let mut stale = true;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if stale {
            match resubscribe(&tasks, &rooms).await {
                Ok(()) => {
                    stale = false;
                    tasks.metrics.resubscribes.inc();
                    tasks.announce_gap().await;
                    news.send_modify(|n| *n += 1);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot subscribe yet");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    // Requests go on being answered below, with their own errors.
                }
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
                apply(&tasks, &mut rooms, &mut batch).await;
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(200)), if stale => {}
        }
    }
}

async fn resubscribe(tasks: &Tasks, rooms: &HashSet<RoomId>) -> Result<(), RedisError> {
    if !tasks.client.is_connected() {
        return Err(RedisError::Unavailable);
    }
    tasks.client.subscribe(CONTROL).await?;
    let rooms: Vec<RoomId> = rooms.iter().cloned().collect();
    for chunk in rooms.chunks(BATCH) {
        tasks.send_subscribe(chunk).await?;
    }
    Ok(())
}

/// Runs requests in order, each run of the same kind as one command.
async fn apply(tasks: &Tasks, rooms: &mut HashSet<RoomId>, batch: &mut Vec<Request>) {
    let mut requests = batch.drain(..).peekable();
    while requests.peek().is_some() {
        let mut joins = Vec::new();
        while let Some(Request::Subscribe(..)) = requests.peek() {
            if let Some(Request::Subscribe(room, confirm)) = requests.next() {
                joins.push((room, confirm));
            }
        }
        if !joins.is_empty() {
            let names: Vec<RoomId> = joins.iter().map(|(room, _)| room.clone()).collect();
            let result = tasks.send_subscribe(&names).await;
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
            && tasks.client.is_connected()
            && let Err(error) = tasks.send_unsubscribe(&leaves).await
        {
            tracing::debug!(%error, "unsubscribe failed");
        }
    }
}
