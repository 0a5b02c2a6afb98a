//! The connections: a few for commands, chosen by room, and one for channels.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use fred::prelude::*;
use fred::socket2::TcpKeepalive;
use fred::types::InfoKind;
use fred::types::config::{Server, ServerConfig, TcpConfig, UnresponsiveConfig};
use fred::util::redis_keyslot;

use super::address::server_config;
use super::durability::{self, Commits, Replid};
use super::keys::Keys;
use super::primaries::Primaries;
use super::script::Scripts;
use super::{Bus, RedisError};
use crate::config::{ConfigError, Durability, RedisConfig};
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
    /// Key names of this deployment.
    pub keys: Keys,
    settings: Arc<Settings>,
    /// The connections of posts: the same as for the rest, unless replicas confirm them.
    posts: Arc<[Client]>,
    /// The confirmations of each connection that carries posts, by the connection's id.
    commits: Arc<DashMap<String, Commits>>,
    /// On a cluster: the connections for rooms.
    pub(super) primaries: Option<Arc<Primaries>>,
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
    pub fn start(config: impl Into<RedisConfig>) -> Result<Self, ConfigError> {
        let config = config.into();
        let redis_config = server_config(&config)?;
        let connection = ConnectionConfig {
            connection_timeout: Duration::from_secs(2),
            internal_command_timeout: Duration::from_secs(2),
            // A retry could run a script twice: the callers decide.
            max_command_attempts: 1,
            // Followed by the callers too: with one attempt, fred ends the connection's task for good on an ASK.
            max_redirections: 0,
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
            timeout: *config.timeout,
            durability: config.durability,
            replicas: config.durability_replicas,
        });
        let clustered = settings.config.server.is_clustered();
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
            Primaries::start(clients[0].clone(), Box::new(move |server| settings.client_of(server)))
        });
        Ok(Self {
            clients,
            scripts: Arc::new(Scripts::new()),
            keys: Keys::new(config.partitions),
            settings,
            posts,
            commits: Arc::default(),
            primaries,
        })
    }

    /// Whether keys are spread over a cluster, where channels are sharded.
    pub fn is_clustered(&self) -> bool {
        self.settings.config.server.is_clustered()
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

    /// Whether every command connection stands.
    pub fn is_connected(&self) -> bool {
        self.connections().all(ClientLike::is_connected)
    }

    /// Whether any command connection stands.
    pub fn is_reachable(&self) -> bool {
        self.any().is_ok()
    }

    /// Waits until the command connections stand.
    pub async fn wait_connected(&self) {
        for client in self.connections() {
            connected(client).await;
        }
        if let Some(primaries) = &self.primaries {
            primaries.wait_connected().await;
        }
    }

    /// Refuses servers that may throw away keys, and a cluster under the address of a single server.
    pub async fn check_server(&self) -> Result<(), ConfigError> {
        // Not being reachable is no misconfiguration; the caller asks again after the next connection.
        let Ok(infos) = self.primaries_info(None).await else {
            return Ok(());
        };
        for info in infos {
            let field = |name: &str| {
                info.lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                    .map(str::trim)
            };
            if field("cluster_enabled") == Some("1") && !self.is_clustered() {
                return Err(ConfigError::new(
                    "REDIS_URL",
                    "the server is a node of a cluster",
                    "use redis-cluster://host:port, or rediss-cluster:// with TLS",
                ));
            }
            let policy = field("maxmemory_policy").unwrap_or("noeviction");
            if policy != "noeviction" {
                return Err(ConfigError::new(
                    "REDIS_URL",
                    format!("the server has maxmemory-policy {policy} and would silently throw away messages"),
                    "set `maxmemory-policy noeviction` on every server",
                ));
            }
        }
        self.check_durability().await
    }

    /// Refuses servers whose settings cannot keep what the durability level promises.
    async fn check_durability(&self) -> Result<(), ConfigError> {
        if self.settings.durability == Durability::Memory {
            return Ok(());
        }
        let Ok(client) = self.any() else { return Ok(()) };
        let servers = if self.is_clustered() {
            client.active_connections().into_iter().map(Some).collect()
        } else {
            vec![None]
        };
        for server in servers {
            let mut settings: HashMap<String, String> = HashMap::new();
            for name in durability::SETTINGS {
                let answer = match &server {
                    Some(server) => client.with_cluster_node(server).config_get(name).await,
                    None => client.config_get(name).await,
                };
                settings.extend(answer.unwrap_or_else(|_| HashMap::new()));
            }
            durability::check(self.settings.durability, self.settings.replicas, &settings)?;
        }
        Ok(())
    }

    /// What every primary says about itself.
    pub(super) async fn primaries_info(&self, section: Option<InfoKind>) -> Result<Vec<String>, RedisError> {
        let client = self.any()?;
        if !self.is_clustered() {
            return Ok(vec![client.info(section).await?]);
        }
        let mut infos = Vec::new();
        for server in client.active_connections() {
            infos.push(client.with_cluster_node(server).info(section.clone()).await?);
        }
        Ok(infos)
    }

    /// The connection of a room: calls of one room for one purpose keep their order.
    pub(super) fn for_room(&self, room: &RoomId, purpose: Purpose) -> Result<Client, RedisError> {
        self.for_partition(self.keys.partition(room.as_str()), purpose)
    }

    /// The connection of a partition.
    pub(super) fn for_partition(&self, partition: u16, purpose: Purpose) -> Result<Client, RedisError> {
        let lane = usize::from(partition);
        if let Some(primaries) = &self.primaries {
            return primaries.client(redis_keyslot(self.keys.active(partition).as_bytes()), lane, purpose);
        }
        let clients = if purpose == Purpose::Post {
            &self.posts
        } else {
            &self.clients
        };
        self.ready(&clients[lane % clients.len()]).cloned()
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
        if let Some(primaries) = &self.primaries {
            primaries.close().await;
        }
    }
}

impl Settings {
    /// A connection to one server of the cluster.
    fn client_of(&self, server: &Server) -> Client {
        let mut config = self.config.clone();
        config.server = ServerConfig::Centralized { server: server.clone() };
        Client::new(
            config,
            Some(performance(self.timeout, COMMAND_CAPACITY)),
            Some(self.connection.clone()),
            Some(reconnect_policy()),
        )
    }

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
