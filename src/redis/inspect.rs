//! What operators look at: every ban, every socket. Read in pages, so that a long answer holds up nobody else.

use fred::prelude::*;
use fred::types::{ClusterHash, CustomCommand};

use super::keys::{self, BANS};
use super::{OwnedSocket, Redis, RedisError};
use crate::model::{Scope, UnixMs};

/// Entries of a page: under a millisecond of the server's time.
const PAGE: i64 = 500;

/// What is known of a scope beside its ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeState {
    /// How often it was banned by the ladder of late.
    pub level: u32,
    /// Refused acts within the window.
    pub strikes: u64,
    /// Sockets that count against its limit.
    pub leases: u64,
}

impl Redis {
    /// The server's time, Unix ms: by it bans begin and end.
    pub async fn server_time(&self) -> Result<UnixMs, RedisError> {
        let command = CustomCommand::new_static("TIME", ClusterHash::Random, false);
        let (seconds, micros): (UnixMs, UnixMs) = self.any()?.custom(command, Vec::<Value>::new()).await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// The scopes of the index with the ends of their bans; some may be over.
    pub async fn listed_bans(&self) -> Result<Vec<(Scope, UnixMs)>, RedisError> {
        let mut listed = Vec::new();
        self.scan("ZSCAN", BANS, |scope, until| {
            // Ends are whole milliseconds far below 2^53.
            let until: Option<f64> = until.parse().ok();
            listed.extend(scope.parse().ok().zip(until.map(|until| until as UnixMs)));
        })
        .await?;
        Ok(listed)
    }

    /// What is known of a scope beside its ban, by the server's time `now`.
    pub async fn scope_state(&self, scope: &Scope, now: UnixMs) -> Result<ScopeState, RedisError> {
        let client = self.any()?;
        let level: Option<u32> = client.get(keys::ban_level(scope)).await?;
        let strikes: Option<u64> = client.get(keys::strikes(scope)).await?;
        let leases = client.zcount(keys::leases(scope), now as f64, f64::INFINITY).await?;
        Ok(ScopeState {
            level: level.unwrap_or_default(),
            strikes: strikes.unwrap_or_default(),
            leases,
        })
    }

    /// The nodes that live. What another one still owns is about to be removed.
    pub async fn live_nodes(&self) -> Result<Vec<String>, RedisError> {
        Ok(self.loads().await?.into_iter().map(|(node, _)| node).collect())
    }

    /// Shows every socket of a node to `visit`; one may come twice.
    pub async fn each_socket(&self, node: &str, mut visit: impl FnMut(OwnedSocket)) -> Result<(), RedisError> {
        self.scan("HSCAN", &keys::node_owned(node), |_, entry| {
            if let Ok(socket) = serde_json::from_str(entry) {
                visit(socket);
            }
        })
        .await
    }

    /// Whether a node has this socket.
    pub async fn owns_socket(&self, node: &str, socket: &str) -> Result<bool, RedisError> {
        Ok(self.any()?.hexists(keys::node_owned(node), socket).await?)
    }

    /// Walks through a hash or a sorted set, pair by pair. fred's own scans have no timeout.
    pub(super) async fn scan(
        &self,
        command: &'static str,
        key: &str,
        mut visit: impl FnMut(&str, &str),
    ) -> Result<(), RedisError> {
        let mut cursor = "0".to_owned();
        loop {
            let args: Vec<Value> = vec![key.into(), cursor.into(), "COUNT".into(), PAGE.into()];
            let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
            let (next, page): (String, Vec<String>) = self.any()?.custom(command, args).await?;
            for pair in page.chunks(2) {
                if let [first, second] = pair {
                    visit(first, second);
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }
}
