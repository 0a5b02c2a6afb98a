//! The connections: a few for commands, chosen by room, and one for channels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use fred::prelude::*;
use fred::types::InfoKind;
use fred::util::redis_keyslot;

use super::bus::{OF_NODES, OF_WORKERS};
use super::connection::{BUS_CAPACITY, COMMAND_CAPACITY, Settings};
use super::durability::{Commits, Replid};
use super::keys::Keys;
use super::primaries::Primaries;
use super::script::Scripts;
use super::sentinel::Sentinels;
use super::watched::PostMeter;
use super::{Bus, RedisError};
use crate::config::{ConfigError, Durability, RedisConfig};
use crate::model::RoomId;
use crate::telemetry::Metrics;

/// Connections for commands: one is enough for a node's traffic, four keep a large answer from delaying the others.
const CONNECTIONS: usize = 4;
/// How often a connection that is being made is looked at.
const CONNECT_POLL: Duration = Duration::from_millis(10);

/// What a connection of a room is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To post: nothing large must be in the way.
    Post,
    /// Everything else.
    Other,
}

/// The way to Redis; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    pub(super) clients: Arc<[Client]>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) posted: Option<PostMeter>,
    /// Key names of this deployment.
    pub keys: Keys,
    pub(super) settings: Arc<Settings>,
    /// The connections of posts: the same as for the rest, unless replicas confirm them.
    posts: Arc<[Client]>,
    /// The confirmations of each connection that carries posts, by the connection's id.
    commits: Arc<DashMap<String, Commits>>,
    /// Whether the servers can keep what is promised, as far as is known.
    pub(super) fit: Arc<AtomicBool>,
    /// On a cluster: the connections for rooms.
    pub(super) primaries: Option<Arc<Primaries>>,
    /// Where sentinels say who the primary is.
    pub(super) sentinels: Option<Arc<Sentinels>>,
}

impl Redis {
    /// Prepares the connections and starts to connect; goes on trying for ever.
    pub fn start(config: impl Into<RedisConfig>) -> Result<Self, ConfigError> {
        Self::start_with(config.into(), None)
    }

    /// As [`Self::start`], measuring every script in `metrics`.
    pub fn start_measured(config: impl Into<RedisConfig>, metrics: &Metrics) -> Result<Self, ConfigError> {
        Self::start_with(config.into(), Some(metrics))
    }

    fn start_with(config: RedisConfig, metrics: Option<&Metrics>) -> Result<Self, ConfigError> {
        let settings = Arc::new(Settings::read(&config)?);
        let clustered = settings.is_clustered();
        // On a cluster the rooms have connections of their own.
        let connections = if clustered { 1 } else { CONNECTIONS };
        let connect = || -> Arc<[Client]> {
            let clients: Arc<[Client]> = (0..connections).map(|_| settings.client(COMMAND_CAPACITY)).collect();
            for client in clients.iter() {
                let _connection = client.connect();
            }
            clients
        };
        let clients = connect();
        let posts = if settings.durability == Durability::Replica && !clustered {
            connect()
        } else {
            clients.clone()
        };
        let primaries = clustered.then(|| {
            let settings = settings.clone();
            Primaries::start(
                clients[0].clone(),
                Box::new(move |server| settings.client_of(server, COMMAND_CAPACITY)),
            )
        });
        let sentinels = settings
            .sentinels()
            .map(|(clients, service)| Arc::new(Sentinels::start(clients, service)));
        let redis = Self {
            clients,
            scripts: Arc::new(Scripts::new(metrics)),
            posted: metrics.map(PostMeter::new),
            keys: Keys::new(config.partitions),
            settings,
            posts,
            commits: Arc::default(),
            fit: Arc::new(AtomicBool::new(true)),
            primaries,
            sentinels,
        };
        for client in redis.connections() {
            redis.guide(client.clone());
        }
        Ok(redis)
    }

    /// Keeps a connection at the primary that the sentinels name.
    pub(super) fn guide(&self, client: impl ClientLike + 'static) {
        if let Some(sentinels) = &self.sentinels {
            sentinels.guide(client);
        }
    }

    /// Whether keys are spread over a cluster, where channels are sharded.
    pub fn is_clustered(&self) -> bool {
        self.settings.is_clustered()
    }

    /// Every connection for commands, but those to the primaries of a cluster.
    fn connections(&self) -> impl Iterator<Item = &Client> {
        let own: &[Client] = if Arc::ptr_eq(&self.posts, &self.clients) {
            &[]
        } else {
            &self.posts
        };
        self.clients.iter().chain(own)
    }

    /// Whether every command connection can be used.
    pub fn is_connected(&self) -> bool {
        self.connections().all(|client| self.is_ready(client))
    }

    /// Whether any command connection stands.
    pub fn is_reachable(&self) -> bool {
        self.any().is_ok()
    }

    /// Waits until the command connections can be used.
    pub async fn wait_connected(&self) {
        while !self.is_connected() {
            tokio::time::sleep(CONNECT_POLL).await;
        }
        if let Some(primaries) = &self.primaries {
            primaries.wait_connected().await;
        }
    }

    /// A connection to every primary.
    pub(super) fn each_primary(&self) -> Result<Vec<Client>, RedisError> {
        match &self.primaries {
            Some(primaries) => primaries.one_of_each(),
            None => Ok(vec![self.any()?.clone()]),
        }
    }

    /// What every primary says about itself.
    pub(super) async fn primaries_info(&self, section: Option<InfoKind>) -> Result<Vec<String>, RedisError> {
        let mut infos = Vec::new();
        for primary in self.each_primary()? {
            infos.push(primary.info(section.clone()).await?);
        }
        Ok(infos)
    }

    /// The connection of a room: calls of one room for one purpose keep their order.
    pub(super) fn for_room(&self, room: &RoomId, purpose: Purpose) -> Result<Client, RedisError> {
        self.for_partition(self.keys.partition(room.as_str()), purpose)
    }

    /// The connection of a partition.
    pub(super) fn for_partition(&self, partition: u16, purpose: Purpose) -> Result<Client, RedisError> {
        if purpose == Purpose::Post && !self.fit.load(Ordering::Acquire) {
            return Err(RedisError::Unavailable);
        }
        let lane = usize::from(partition);
        if let Some(primaries) = &self.primaries {
            return primaries.client(redis_keyslot(self.keys.active(partition).as_bytes()), lane, purpose);
        }
        let clients = if purpose == Purpose::Post {
            &self.posts
        } else {
            &self.clients
        };
        let client = &clients[lane % clients.len()];
        if !self.is_ready(client) {
            return Err(RedisError::Unavailable);
        }
        Ok(client.clone())
    }

    /// Waits until what was answered on this connection counts as stored. `replid`: the history of the answering server.
    pub(super) async fn commit(&self, client: &Client, room: &RoomId, replid: Replid) -> Result<(), RedisError> {
        if self.settings.durability != Durability::Replica {
            return Ok(());
        }
        if !self.commits.contains_key(client.id()) {
            // Connections to servers that are gone do not come back under their id.
            self.commits.retain(|_, commits| commits.is_connected());
        }
        let wait = {
            let commits = self.commits.entry(client.id().to_owned());
            // A WAIT must answer before its call times out.
            let timeout = self.settings.timeout * 2 / 3;
            let start = || Commits::start(client.clone(), self.settings.replicas, timeout);
            commits
                .or_insert_with(start)
                .wait(self.keys.fence(self.keys.partition(room.as_str())), replid)
        };
        wait.await
    }

    /// What decides among several connections to the server of a room.
    pub(super) fn lane(&self, room: &RoomId) -> usize {
        usize::from(self.keys.partition(room.as_str()))
    }

    /// The partitions that each primary of a cluster holds; `None` where one server has them all.
    pub(super) fn partitions_by_primary(&self) -> Option<Vec<Vec<u16>>> {
        let slots = (0..self.keys.partitions()).map(|partition| redis_keyslot(self.keys.active(partition).as_bytes()));
        let groups = self.primaries.as_ref()?.group(slots.collect());
        Some(groups).filter(|groups| !groups.is_empty())
    }

    /// A connection for calls that belong to no room.
    pub(super) fn any(&self) -> Result<&Client, RedisError> {
        self.clients
            .iter()
            .find(|client| self.is_ready(client))
            .ok_or(RedisError::Unavailable)
    }

    /// Whether a call would be sent now, and to a server that stays the primary. Others are refused at once instead of being
    /// sent late, or to be lost.
    fn is_ready(&self, client: &Client) -> bool {
        client.is_connected() && self.sentinels.as_ref().is_none_or(|sentinels| sentinels.permit(client))
    }

    /// Starts the bus of a node on a connection of its own.
    pub fn start_bus(
        &self,
        shards: usize,
        metrics: super::BusMetrics,
    ) -> (Bus, Vec<tokio::sync::mpsc::Receiver<super::BusItem>>) {
        Bus::start(self.bus_client(), self.clone(), shards, metrics, OF_NODES)
    }

    /// Starts the bus of a worker, which has no rooms and listens to news alone.
    pub fn start_worker_bus(&self, metrics: super::BusMetrics) -> Bus {
        Bus::start(self.bus_client(), self.clone(), 1, metrics, OF_WORKERS).0
    }

    fn bus_client(&self) -> Client {
        let client = self.settings.client(BUS_CAPACITY);
        self.guide(client.clone());
        client
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for client in self.connections() {
            let _closed = client.quit().await;
        }
        if let Some(primaries) = &self.primaries {
            primaries.close().await;
        }
    }
}

/// Waits until a connection stands. fred's own `wait_for_connect` looks at the state and then subscribes to its changes:
/// a connection made in between is never noticed.
pub(super) async fn connected(client: &Client) {
    while !client.is_connected() {
        tokio::time::sleep(CONNECT_POLL).await;
    }
}
