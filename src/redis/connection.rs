//! How connections are made: time limits, buffers and reconnects.

use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::socket2::TcpKeepalive;
use fred::types::config::{Config as ServerSettings, Server, ServerConfig, TcpConfig, UnresponsiveConfig};

use super::address::server_config;
use crate::config::{ConfigError, Durability, RedisConfig};

/// Calls waiting while a connection is away; more are refused at once.
const MAX_WAITING_CALLS: usize = 10_000;
/// Received messages held until the bus has taken them, which it does as fast as it parses them: a burst waits in the queues
/// of its shards, which grow as they need. fred allocates this much at once for each kind of notification of a connection
/// (8 MB; with as much as a shard's queue it was 60), so only the bus gets it.
pub(super) const BUS_CAPACITY: usize = 8192;
/// The same for the adapter, which carries rare acts.
const ADAPTER_CAPACITY: usize = 4096;
/// The same for connections that receive nothing.
pub(super) const COMMAND_CAPACITY: usize = 32;

/// What all connections share.
pub(super) struct Settings {
    server: ServerSettings,
    connection: ConnectionConfig,
    /// How long a call may take.
    pub timeout: Duration,
    /// When a post counts as stored.
    pub durability: Durability,
    /// The replicas that `replica` asks for.
    pub replicas: u32,
}

impl Settings {
    /// What the configuration says about Redis.
    pub fn read(config: &RedisConfig) -> Result<Self, ConfigError> {
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
        Ok(Self {
            server: server_config(config)?,
            connection,
            timeout: *config.timeout,
            durability: config.durability,
            replicas: config.durability_replicas,
        })
    }

    /// Whether the server is a cluster.
    pub fn is_clustered(&self) -> bool {
        self.server.server.is_clustered()
    }

    /// An unconnected client of the deployment.
    pub fn client(&self, capacity: usize) -> Client {
        self.client_with(self.server.clone(), capacity)
    }

    /// An unconnected client of one server of the deployment.
    pub fn client_of(&self, server: &Server, capacity: usize) -> Client {
        let mut settings = self.server.clone();
        settings.server = ServerConfig::Centralized { server: server.clone() };
        self.client_with(settings, capacity)
    }

    fn client_with(&self, server: ServerSettings, capacity: usize) -> Client {
        Client::new(
            server,
            Some(self.performance(capacity)),
            Some(self.connection.clone()),
            Some(reconnect_policy()),
        )
    }

    /// Unconnected clients of the sentinels, and the name under which they know the primary.
    pub fn sentinels(&self) -> Option<(Vec<Client>, &str)> {
        let ServerConfig::Sentinel {
            hosts,
            service_name,
            username,
            password,
        } = &self.server.server
        else {
            return None;
        };
        let client = |sentinel: &Server| {
            let settings = ServerSettings {
                server: ServerConfig::Centralized {
                    server: sentinel.clone(),
                },
                username: username.clone(),
                password: password.clone(),
                // They have none.
                database: None,
                ..self.server.clone()
            };
            self.client_with(settings, COMMAND_CAPACITY)
        };
        Some((hosts.iter().map(client).collect(), service_name))
    }

    /// An unconnected subscriber, as the stock adapter wants it.
    pub fn subscriber(&self) -> SubscriberClient {
        SubscriberClient::new(
            self.server.clone(),
            Some(self.performance(ADAPTER_CAPACITY)),
            Some(self.connection.clone()),
            Some(reconnect_policy()),
        )
    }

    fn performance(&self, capacity: usize) -> PerformanceConfig {
        PerformanceConfig {
            default_command_timeout: self.timeout,
            broadcast_channel_capacity: capacity,
            ..PerformanceConfig::default()
        }
    }
}

fn reconnect_policy() -> ReconnectPolicy {
    ReconnectPolicy::new_exponential(0, 50, 2000, 2)
}
