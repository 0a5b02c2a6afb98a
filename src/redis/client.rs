//! The connections: a few for commands, chosen by room, and one for channels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use fred::socket2::TcpKeepalive;
use fred::types::config::{Server, TcpConfig, UnresponsiveConfig};
use fred::types::{InfoKind, RespVersion};
use fred::util::redis_keyslot;

use super::durability::{self, Commits, Replid};
use super::keys::Keys;
use super::script::Scripts;
use super::{Bus, RedisError};
use crate::config::{Config, ConfigError, Durability};
use crate::model::RoomId;

/// Connections for commands: one is enough for a node's traffic, four keep a large answer from delaying the others.
const CONNECTIONS: usize = 4;
/// Calls waiting while a connection is away; more are refused at once.
const MAX_WAITING_CALLS: usize = 10_000;
/// How often a connection that is being made is looked at.
const CONNECT_POLL: Duration = Duration::from_millis(10);
/// Received messages held until the bus has taken them; one burst of a large room must fit. fred allocates this much for
/// each kind of notification of a connection (some 60 MB), so only the bus gets it.
const BUS_CAPACITY: usize = 65_536;
/// The same for the adapter, which carries rare acts.
const ADAPTER_CAPACITY: usize = 4096;
/// The same for connections that receive nothing.
const COMMAND_CAPACITY: usize = 32;

/// The way to Redis; cheap to clone.
#[derive(Clone)]
pub struct Redis {
    pub(super) clients: Arc<[Client]>,
    /// The connections of posts: the same ones, unless posts are confirmed by replicas.
    posts: Arc<[Client]>,
    /// One for each of those; none where an answer is confirmation enough.
    commits: Arc<[Commits]>,
    pub(super) scripts: Arc<Scripts>,
    /// Key names of this deployment.
    pub keys: Keys,
    settings: Arc<Settings>,
}

struct Settings {
    config: fred::types::config::Config,
    connection: ConnectionConfig,
    timeout: Duration,
    durability: Durability,
    replicas: u32,
}

impl Redis {
    /// Prepares the connections and starts to connect; goes on trying for ever.
    pub fn start(config: &Config) -> Result<Self, ConfigError> {
        let bad = |error: fred::error::Error| {
            ConfigError::new(
                "REDIS_URL",
                format!("is not usable: {}", error.details()),
                "use an address such as redis://host:6379",
            )
        };
        let mut redis_config = fred::types::config::Config::from_url(config.redis_url.expose()).map_err(bad)?;
        redis_config.version = RespVersion::RESP3;
        // The first connection may come late: a node waits for Redis, unready.
        redis_config.fail_fast = false;
        let connection = ConnectionConfig {
            connection_timeout: Duration::from_secs(2),
            internal_command_timeout: Duration::from_secs(2),
            // A retry could run a script twice: the callers decide.
            max_command_attempts: 1,
            max_command_buffer_len: MAX_WAITING_CALLS,
            unresponsive: UnresponsiveConfig {
                max_timeout: Some(Duration::from_secs(6)),
                interval: Duration::from_secs(1),
            },
            tcp: TcpConfig {
                nodelay: Some(true),
                keepalive: Some(TcpKeepalive::new().with_time(Duration::from_secs(10))),
                ..TcpConfig::default()
            },
            ..ConnectionConfig::default()
        };
        let settings = Arc::new(Settings {
            config: redis_config,
            connection,
            timeout: *config.redis_timeout,
            durability: config.durability,
            replicas: config.durability_replicas,
        });
        let connect = || -> Arc<[Client]> {
            let clients: Arc<[Client]> = (0..CONNECTIONS).map(|_| settings.client(COMMAND_CAPACITY)).collect();
            for client in clients.iter() {
                let _connection = client.connect();
            }
            clients
        };
        let clients = connect();
        let (posts, commits) = if settings.durability == Durability::Replica {
            let posts = connect();
            // A WAIT must answer before its call times out.
            let timeout = settings.timeout * 2 / 3;
            let commit = |client: &Client| Commits::start(client.clone(), settings.replicas, timeout);
            let commits = posts.iter().map(commit).collect();
            (posts, commits)
        } else {
            (clients.clone(), Arc::default())
        };
        Ok(Self {
            clients,
            posts,
            commits,
            scripts: Arc::new(Scripts::new()),
            keys: Keys::new(config.partitions),
            settings,
        })
    }

    /// Whether keys are spread over a cluster, where channels are sharded.
    pub fn is_clustered(&self) -> bool {
        self.settings.config.server.is_clustered()
    }

    /// Every connection for commands.
    fn connections(&self) -> impl Iterator<Item = &Client> {
        let own = if self.commits.is_empty() { &[] } else { &*self.posts };
        self.clients.iter().chain(own)
    }

    /// Whether every command connection stands.
    pub fn is_connected(&self) -> bool {
        self.connections().all(ClientLike::is_connected)
    }

    /// Waits until the command connections stand.
    pub async fn wait_connected(&self) {
        for client in self.connections() {
            connected(client).await;
        }
    }

    /// Refuses a server that may throw away keys, or that cannot do what is needed.
    pub async fn check_server(&self) -> Result<(), ConfigError> {
        let info: String = match self.clients[0].info(Some(InfoKind::Memory)).await {
            Ok(info) => info,
            // Not being reachable is no misconfiguration; the caller asks again after the next connection.
            Err(_) => return Ok(()),
        };
        let policy = info
            .lines()
            .find_map(|line| line.strip_prefix("maxmemory_policy:"))
            .unwrap_or("noeviction")
            .trim();
        if policy != "noeviction" {
            return Err(ConfigError::new(
                "REDIS_URL",
                format!("the server has maxmemory-policy {policy} and would silently throw away messages"),
                "set `maxmemory-policy noeviction` on the server",
            ));
        }
        if self.settings.durability == Durability::Memory {
            return Ok(());
        }
        let mut settings = HashMap::new();
        for name in durability::SETTINGS {
            let found: HashMap<String, String> = self.clients[0].config_get(name).await.unwrap_or_default();
            settings.extend(found);
        }
        durability::check(self.settings.durability, self.settings.replicas, &settings)
    }

    /// The partitions that each primary of a cluster holds, by their first one; `None` where one server has them all.
    pub(super) fn partitions_by_primary(&self) -> Option<Vec<Vec<u16>>> {
        if !self.is_clustered() {
            return None;
        }
        let routing = self.clients[0].cached_cluster_state()?;
        let mut groups: Vec<(&Server, Vec<u16>)> = Vec::new();
        for partition in 0..self.keys.partitions() {
            // A slot that nobody holds at the moment belongs to no primary's canary.
            let Some(server) = routing.get_server(redis_keyslot(self.keys.active(partition).as_bytes())) else {
                continue;
            };
            match groups.iter_mut().find(|(known, _)| *known == server) {
                Some((_, partitions)) => partitions.push(partition),
                None => groups.push((server, vec![partition])),
            }
        }
        Some(groups.into_iter().map(|(_, partitions)| partitions).collect())
            .filter(|groups: &Vec<_>| !groups.is_empty())
    }

    /// The connection of a room's posts: they keep their order.
    pub(super) fn for_posts(&self, room: &RoomId) -> Result<&Client, RedisError> {
        self.ready(&self.posts[self.lane(room)])
    }

    /// Waits until a post to the room, answered by a server with this history, counts as stored.
    pub(super) async fn commit(&self, room: &RoomId, replid: Replid) -> Result<(), RedisError> {
        let Some(commits) = self.commits.get(self.lane(room)) else {
            return Ok(());
        };
        let slot = redis_keyslot(self.keys.log(room).as_bytes());
        let routing = self.posts[self.lane(room)].cached_cluster_state();
        let server = routing.and_then(|routing| routing.get_server(slot).cloned());
        commits.wait(server, replid).await
    }

    /// Which of the connections serves a room.
    fn lane(&self, room: &RoomId) -> usize {
        usize::from(self.keys.partition(room.as_str())) % CONNECTIONS
    }

    /// The connection of a room: calls of one room keep their order.
    pub(super) fn for_room(&self, room: &RoomId) -> Result<&Client, RedisError> {
        self.ready(&self.clients[self.lane(room)])
    }

    /// A connection for calls that belong to no room.
    pub(super) fn any(&self) -> Result<&Client, RedisError> {
        self.clients
            .iter()
            .find(|client| client.is_connected())
            .ok_or(RedisError::Unavailable)
    }

    /// Calls on a connection that is away are refused at once, unsent, instead of being sent late.
    fn ready<'a>(&self, client: &'a Client) -> Result<&'a Client, RedisError> {
        if client.is_connected() {
            Ok(client)
        } else {
            Err(RedisError::Unavailable)
        }
    }

    /// A subscriber with its own connection, as the stock adapter wants it; not yet connected.
    pub(super) fn subscriber(&self) -> fred::clients::SubscriberClient {
        fred::clients::SubscriberClient::new(
            self.settings.config.clone(),
            Some(performance(self.settings.timeout, ADAPTER_CAPACITY)),
            Some(self.settings.connection.clone()),
            Some(reconnect_policy()),
        )
    }

    /// Starts the bus on a connection of its own.
    pub fn start_bus(
        &self,
        shards: usize,
        metrics: super::BusMetrics,
    ) -> (Bus, Vec<tokio::sync::mpsc::Receiver<super::BusItem>>) {
        Bus::start(self.settings.client(BUS_CAPACITY), self.clone(), shards, metrics)
    }

    /// Closes the connections.
    pub async fn close(&self) {
        for client in self.connections() {
            let _closed = client.quit().await;
        }
    }
}

impl Settings {
    fn client(&self, capacity: usize) -> Client {
        Client::new(
            self.config.clone(),
            Some(performance(self.timeout, capacity)),
            Some(self.connection.clone()),
            Some(reconnect_policy()),
        )
    }
}

/// Waits until a connection stands. fred's own `wait_for_connect` looks at the state and then subscribes to its changes:
/// a connection made in between is never noticed.
pub(super) async fn connected(client: &Client) {
    while !client.is_connected() {
        tokio::time::sleep(CONNECT_POLL).await;
    }
}

fn performance(timeout: Duration, capacity: usize) -> PerformanceConfig {
    PerformanceConfig {
        default_command_timeout: timeout,
        broadcast_channel_capacity: capacity,
        ..PerformanceConfig::default()
    }
}

fn reconnect_policy() -> ReconnectPolicy {
    ReconnectPolicy::new_exponential(0, 50, 2000, 2)
}
