//! The room bus: live channels of the rooms joined here, and the channels that only say where there is news.
//!
//! One task owns the subscriptions, so SUBSCRIBE and UNSUBSCRIBE of a room reach the server in the order they were asked
//! for. Another takes messages off the connection at once and hands them to shards by room, so a room keeps its order.
//! A third sings: a message of the node to itself through every primary, once a second, proves that the bus can hear.

mod canary;
mod news;
mod receive;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use prometheus::IntCounter;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Span;
use xxhash_rust::xxh3::xxh3_64;

use self::canary::Canaries;
use self::news::{Heard, News};
pub(super) use self::news::{OF_NODES, OF_WORKERS};
use super::keys::{CONTROL, GPT_ASKED, GPT_READY, Keys};
use super::{Redis, RedisError};
use crate::model::{RoomEvent, RoomId};

/// Messages of one shard waiting for delivery; when it overflows, the rooms are refilled from their logs.
const SHARD_QUEUE: usize = 65_536;

/// What the bus hands to delivery.
#[derive(Debug)]
pub enum BusItem {
    /// A live event of a room, and its delivery in its trace.
    Event(RoomId, RoomEvent, Span),
    /// A roomUpdate payload for those who belong to the room: best effort, without a place in the log.
    Update(RoomId, String),
    /// Name and payload of an event about a reply that is being written: best effort, without a place in the log.
    Reply(RoomId, String, String),
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

/// For how long the bus has heard nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silence {
    /// Of the primary heard last: the node is cut off from Redis when this is long.
    pub of_all: Duration,
    /// Of the primary heard longest ago: rooms there may have holes when this is long.
    pub of_any: Duration,
}

enum Request {
    Subscribe(RoomId, oneshot::Sender<Result<(), RedisError>>),
    Unsubscribe(RoomId),
    /// Subscribe once more to what should be subscribed already; harmless where it is.
    Renew,
    /// Everything from here on may have been missed.
    Suspect,
}

/// Subscriptions to rooms.
#[derive(Clone)]
pub struct Bus {
    // Unbounded: holds at most one request per room and change of interest, and both ends are ours.
    requests: mpsc::UnboundedSender<Request>,
    heard: Heard,
    canaries: Arc<Canaries>,
    keys: Keys,
}

/// What the tasks of the bus share.
struct Tasks {
    client: Client,
    keys: Keys,
    clustered: bool,
    metrics: BusMetrics,
    shards: Vec<mpsc::Sender<BusItem>>,
    canaries: Arc<Canaries>,
    news: News,
}

impl Bus {
    /// Starts the bus on the connection `client`; `redis` carries the canaries the other way.
    pub(super) fn start(
        client: Client,
        redis: Redis,
        shards: usize,
        metrics: BusMetrics,
        channels: &'static [&'static str],
    ) -> (Self, Vec<mpsc::Receiver<BusItem>>) {
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..shards.max(1)).map(|_| mpsc::channel(SHARD_QUEUE)).unzip();
        let (requests, request_rx) = mpsc::unbounded_channel();
        let (news, heard) = News::new(channels);
        let keys = redis.keys;
        let canaries = Arc::new(Canaries::new(keys));
        let tasks = Arc::new(Tasks {
            client,
            keys,
            clustered: redis.is_clustered(),
            metrics,
            shards: senders,
            canaries: canaries.clone(),
            news,
        });
        tokio::spawn(receive::receive(tasks.clone()));
        tokio::spawn(subscribe::subscribe(tasks.clone(), request_rx));
        tokio::spawn(canary::sing(tasks, redis, requests.downgrade()));
        let bus = Self {
            requests,
            heard,
            canaries,
            keys,
        };
        (bus, receivers)
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

    /// Makes every subscription anew: a server may have dropped some without a word (a slot that moved).
    pub fn renew(&self) {
        let _closed = self.requests.send(Request::Renew);
    }

    /// Makes every room look for what it may have missed, and counts silence from now on: this process was frozen, say.
    pub fn suspect(&self) {
        self.canaries.restart();
        let _closed = self.requests.send(Request::Suspect);
    }

    /// For how long nothing was heard.
    pub fn silence(&self) -> Silence {
        self.canaries.silence()
    }

    /// For how long nothing was heard of the primary that holds this room.
    pub fn silence_of(&self, room: &RoomId) -> Duration {
        self.canaries.silence_of(self.keys.partition(room.as_str()))
    }

    /// Which of the primaries holds this room, as far as is known.
    pub fn primary_of(&self, room: &RoomId) -> Option<usize> {
        self.canaries.primary_of(self.keys.partition(room.as_str()))
    }

    /// Changes whenever there may be news in the control stream.
    pub fn control(&self) -> watch::Receiver<u64> {
        self.heard.of(CONTROL)
    }

    /// Changes whenever there may be questions to the model that are not queued yet; of workers.
    pub fn asked(&self) -> watch::Receiver<u64> {
        self.heard.of(GPT_ASKED)
    }

    /// Changes whenever there may be questions that a worker may take, or the queue was paused or resumed; of workers.
    pub fn ready(&self) -> watch::Receiver<u64> {
        self.heard.of(GPT_READY)
    }
}

impl Tasks {
    fn shard(&self, room: &str) -> &mpsc::Sender<BusItem> {
        let shard = xxh3_64(room.as_bytes()) % self.shards.len() as u64;
        &self.shards[usize::try_from(shard).unwrap_or_default()]
    }

    /// Tells every shard that messages may be missing; waits for room, because this must not be lost.
    async fn announce_gap(&self) {
        for shard in &self.shards {
            let _closed = shard.send(BusItem::Gap).await;
        }
    }
}
