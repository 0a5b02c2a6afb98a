//! Who is where: the four legacy sets, the hash of what a node owns, and its liveness.
//!
//! A socket is written to its node's `owned` hash before any legacy key and removed from it after them, so whatever a
//! node leaves behind when it dies can be found and removed by another.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use fred::prelude::*;
use fred::types::SetOptions;
use serde::{Deserialize, Serialize};

use super::durability::Replid;
use super::keys::{self, NODES};
use super::script::call;
use super::{Redis, RedisError, ms};
use crate::model::{RoomId, Scope, UnixMs, UserId, unix_ms};

/// Life of `userRooms:<platformid>` after its last renewal.
pub const USER_ROOMS_TTL: Duration = Duration::from_secs(120);
/// Life of a node without a heartbeat; with the reaper's period it keeps ghosts below 60 s.
pub const NODE_TTL: Duration = Duration::from_secs(25);
/// How long a reaper holds its claim.
const CLAIM_TTL: Duration = Duration::from_secs(20);
/// Entries of a user's connection history.
const HISTORY_MAX: i64 = 100;
/// A user's history and counters are forgotten after this time without a connection.
const HISTORY_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// What a node keeps in Redis for one socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedSocket {
    /// The socket's id.
    #[serde(rename = "s")]
    pub socket: String,
    /// Its user.
    #[serde(rename = "u")]
    pub user: UserId,
    /// The rooms the user belongs to.
    #[serde(rename = "r")]
    pub rooms: Vec<RoomId>,
    /// The rooms whose messages the socket receives.
    #[serde(rename = "j")]
    pub joined: Vec<RoomId>,
    /// The scopes that count it among their sockets.
    #[serde(rename = "q", default)]
    pub leases: Vec<Scope>,
    /// Its login session, where the token names one.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// Where it comes from.
    #[serde(rename = "i", default)]
    pub ip: Option<IpAddr>,
    /// When it connected, Unix ms.
    #[serde(rename = "t", default)]
    pub since: UnixMs,
}

/// What a node tells the others with its liveness.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Its sockets.
    pub sockets: usize,
    /// Whether it goes away.
    #[serde(rename = "draining", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_draining: bool,
}

impl Load {
    fn written(self) -> Result<String, RedisError> {
        serde_json::to_string(&self).map_err(|_| RedisError::Unexpected("load of a node"))
    }
}

impl Redis {
    /// Writes a socket's rooms; `traces` is all that may be there afterwards. Repeating it is harmless.
    ///
    /// One trip: a server carries a pipeline out in its order, so the entry of the node comes before what it names. The
    /// servers of a cluster do not wait for each other, so there the entry goes first and alone.
    pub async fn register_socket(
        &self,
        node: &str,
        socket: &OwnedSocket,
        traces: &OwnedSocket,
    ) -> Result<(), RedisError> {
        let pipeline = self.owning_pipeline(node, traces).await?;
        if !socket.rooms.is_empty() {
            let key = keys::user_rooms(&socket.user);
            let rooms: Vec<&str> = socket.rooms.iter().map(RoomId::as_str).collect();
            let () = pipeline.sadd(&key, rooms).await?;
            let () = pipeline.expire(&key, seconds(USER_ROOMS_TTL), None).await?;
        }
        for room in &socket.rooms {
            let () = pipeline.sadd(keys::room_users(room), socket.socket.as_str()).await?;
        }
        for room in &socket.joined {
            let () = pipeline
                .sadd(keys::joined_room_users(room), socket.socket.as_str())
                .await?;
        }
        run(pipeline).await
    }

    /// Writes one more room that the socket has joined.
    pub async fn join_room(&self, node: &str, traces: &OwnedSocket, room: &RoomId) -> Result<(), RedisError> {
        let pipeline = self.owning_pipeline(node, traces).await?;
        let key = keys::user_rooms(&traces.user);
        let () = pipeline.sadd(&key, room.as_str()).await?;
        let () = pipeline.expire(&key, seconds(USER_ROOMS_TTL), None).await?;
        let () = pipeline.sadd(keys::room_users(room), traces.socket.as_str()).await?;
        let () = pipeline
            .sadd(keys::joined_room_users(room), traces.socket.as_str())
            .await?;
        run(pipeline).await
    }

    /// A pipeline behind the entry of what the socket is about to have, so that a reaper would find it.
    async fn owning_pipeline(
        &self,
        node: &str,
        socket: &OwnedSocket,
    ) -> Result<fred::clients::Pipeline<Client>, RedisError> {
        let entry = serde_json::to_string(socket).map_err(|_| RedisError::Unexpected("owned entry"))?;
        let (client, entry) = (self.any()?, (socket.socket.as_str(), entry));
        let pipeline = client.pipeline();
        let () = if self.primaries.is_some() {
            client.hset(keys::node_owned(node), entry).await?
        } else {
            pipeline.hset(keys::node_owned(node), entry).await?
        };
        Ok(pipeline)
    }

    /// Removes the socket from a room: from the joined set, and with `for_good` from all.
    pub async fn leave_room(
        &self,
        socket: &str,
        user: &UserId,
        room: &RoomId,
        for_good: bool,
    ) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        let () = pipeline.srem(keys::joined_room_users(room), socket).await?;
        if for_good {
            let () = pipeline.srem(keys::room_users(room), socket).await?;
            let () = pipeline.srem(keys::user_rooms(user), room.as_str()).await?;
        }
        run(pipeline).await
    }

    /// Removes everything of a socket that is gone. `userRooms` expires, because the user may have other sockets.
    pub async fn unregister_socket(&self, node: &str, socket: &OwnedSocket) -> Result<(), RedisError> {
        self.remove_traces(std::slice::from_ref(socket)).await?;
        let () = self.any()?.hdel(keys::node_owned(node), socket.socket.as_str()).await?;
        Ok(())
    }

    /// What is written about a node's sockets.
    pub async fn owned_sockets(&self, node: &str) -> Result<Vec<OwnedSocket>, RedisError> {
        let entries: Vec<String> = self.any()?.hvals(keys::node_owned(node)).await?;
        Ok(entries
            .iter()
            .filter_map(|entry| serde_json::from_str(entry).ok())
            .collect())
    }

    /// Removes sockets from the sets of rooms.
    pub async fn remove_traces(&self, sockets: &[OwnedSocket]) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        for socket in sockets {
            for room in &socket.rooms {
                let () = pipeline.srem(keys::room_users(room), socket.socket.as_str()).await?;
            }
            for room in &socket.joined {
                let () = pipeline
                    .srem(keys::joined_room_users(room), socket.socket.as_str())
                    .await?;
            }
            for scope in &socket.leases {
                let () = pipeline.zrem(keys::leases(scope), socket.socket.as_str()).await?;
            }
        }
        run(pipeline).await
    }

    /// Removes both sets of a room that is deleted.
    pub async fn delete_room_sets(&self, room: &RoomId) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        let () = pipeline.del(keys::room_users(room)).await?;
        let () = pipeline.del(keys::joined_room_users(room)).await?;
        run(pipeline).await
    }

    /// Renews the room lists of users with a live socket.
    pub async fn renew_user_rooms(&self, users: &[UserId]) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        for user in users {
            let () = pipeline
                .expire(keys::user_rooms(user), seconds(USER_ROOMS_TTL), None)
                .await?;
        }
        run(pipeline).await
    }

    /// Announces a node that was not there before.
    pub async fn announce_node(&self, node: &str, load: Load) -> Result<(), RedisError> {
        let client = self.any()?;
        let () = client
            .zadd(NODES, None, None, false, false, (now_score(), node))
            .await?;
        let () = client
            .set(
                keys::node_alive(node),
                load.written()?,
                Some(Expiration::PX(ms(NODE_TTL))),
                None,
                false,
            )
            .await?;
        Ok(())
    }

    /// Renews a node's liveness; `false` when it had expired, and others may be removing what the node owned.
    pub async fn renew_node(&self, node: &str, load: Load) -> Result<bool, RedisError> {
        let client = self.any()?;
        let renewed: Option<String> = client
            .set(
                keys::node_alive(node),
                load.written()?,
                Some(Expiration::PX(ms(NODE_TTL))),
                Some(SetOptions::XX),
                false,
            )
            .await?;
        if renewed.is_none() {
            return Ok(false);
        }
        let () = client
            .zadd(NODES, None, None, false, false, (now_score(), node))
            .await?;
        Ok(true)
    }

    /// The nodes that live, with what they say of themselves; `None` for one that says nothing that could be read.
    pub async fn loads(&self) -> Result<Vec<(String, Option<Load>)>, RedisError> {
        let client = self.any()?;
        let known: Vec<String> = client.zrange(NODES, 0, -1, None, false, None, false).await?;
        let pipeline = client.pipeline();
        for node in &known {
            let () = pipeline.get(keys::node_alive(node)).await?;
        }
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let written: Vec<Option<String>> = pipeline.all().await?;
        let live = known
            .into_iter()
            .zip(written)
            .filter_map(|(node, load)| Some((node, load?)));
        Ok(live
            .map(|(node, load)| (node, serde_json::from_str(&load).ok()))
            .collect())
    }

    /// Nodes that have not been seen for longer than a node may be silent.
    pub async fn silent_nodes(&self) -> Result<Vec<String>, RedisError> {
        let before = now_score() - ms(NODE_TTL) as f64;
        Ok(self
            .any()?
            .zrangebyscore(NODES, f64::NEG_INFINITY, before, false, None)
            .await?)
    }

    /// Removes what a dead node left. Returns its sockets, or `None` when it lives or another node does it.
    pub async fn reap_node(&self, node: &str) -> Result<Option<usize>, RedisError> {
        let key_names = vec![keys::node_alive(node), keys::node_owned(node), keys::node_claim(node)];
        let answer: Vec<Value> = call(&self.scripts.reap, self.any()?, key_names, vec![ms(CLAIM_TTL).into()]).await?;
        if answer.first().and_then(Value::as_i64) != Some(1) {
            return Ok(None);
        }
        let fields = answer.into_iter().nth(1).map(Value::into_array).unwrap_or_default();
        let sockets: Vec<OwnedSocket> = fields
            .iter()
            .skip(1)
            .step_by(2)
            .filter_map(|entry| serde_json::from_str(&entry.as_str()?).ok())
            .collect();
        for batch in sockets.chunks(200) {
            self.remove_traces(batch).await?;
        }
        self.forget_node(node).await?;
        Ok(Some(sockets.len()))
    }

    /// The end of a node's name: whatever it still owns is removed, by this call or by whoever is at it already.
    pub async fn retire_node(&self, node: &str) -> Result<(), RedisError> {
        let () = self.any()?.del(keys::node_alive(node)).await?;
        self.reap_node(node).await.map(drop)
    }

    /// Whether a node's name is still to be cleaned up after.
    pub async fn is_known_node(&self, node: &str) -> Result<bool, RedisError> {
        let score: Option<f64> = self.any()?.zscore(NODES, node).await?;
        Ok(score.is_some())
    }

    /// Removes a node's own entries.
    async fn forget_node(&self, node: &str) -> Result<(), RedisError> {
        let client = self.any()?;
        let () = client.del(keys::node_owned(node)).await?;
        let () = client.del(keys::node_alive(node)).await?;
        let () = client.del(keys::node_claim(node)).await?;
        let () = client.zrem(NODES, node).await?;
        Ok(())
    }

    /// The histories that the primaries write: a new one means that the last writes may be lost.
    pub async fn histories(&self) -> Result<HashSet<Replid>, RedisError> {
        let infos = self.primaries_info(Some(fred::types::InfoKind::Replication)).await?;
        Ok(infos.iter().filter_map(|info| Replid::of_info(info)).collect())
    }

    /// How long every primary has been up; a node reaps only when everybody had the time to come back.
    pub async fn uptime(&self) -> Result<Duration, RedisError> {
        let infos = self.primaries_info(Some(fred::types::InfoKind::Server)).await?;
        let seconds = infos.iter().map(|info| {
            info.lines()
                .find_map(|line| line.strip_prefix("uptime_in_seconds:")?.trim().parse().ok())
                .unwrap_or(0)
        });
        Ok(Duration::from_secs(seconds.min().unwrap_or(0)))
    }

    /// Puts an entry on top of a user's connection history.
    pub async fn record_connection(&self, user: &UserId, entry: &str) -> Result<(), RedisError> {
        let key = keys::connections(user);
        let pipeline = self.any()?.pipeline();
        let () = pipeline.lpush(&key, entry).await?;
        let () = pipeline.ltrim(&key, 0, HISTORY_MAX - 1).await?;
        let () = pipeline.expire(&key, seconds(HISTORY_TTL), None).await?;
        run(pipeline).await
    }

    /// Adds to the users' message counts.
    pub async fn count_messages(&self, counts: &[(UserId, u32)]) -> Result<(), RedisError> {
        let pipeline = self.any()?.pipeline();
        for (user, count) in counts {
            let key = keys::message_requests(user);
            let () = pipeline.incr_by(&key, i64::from(*count)).await?;
            let () = pipeline.expire(&key, seconds(HISTORY_TTL), None).await?;
        }
        run(pipeline).await
    }
}

pub(super) async fn run(pipeline: fred::clients::Pipeline<Client>) -> Result<(), RedisError> {
    let answers: Vec<Result<Value, Error>> = pipeline.try_all().await;
    match answers.into_iter().find_map(Result::err) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn now_score() -> f64 {
    unix_ms() as f64
}
