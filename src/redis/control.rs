//! The control stream: acts that every process must carry out, replayed by whoever missed one.

use std::time::Duration;

use fred::prelude::*;
use fred::types::streams::XID;
use serde::{Deserialize, Serialize};

use super::keys::CONTROL;
use super::{Redis, RedisError};
use crate::model::{Ban, RoomId, Scope, UserId};

/// Acts kept; far more than can happen while a node is away and still wanted.
const ACTS_MAX: i64 = 10_000;
/// Acts read at once.
const PAGE: usize = 100;
/// How often the stream is read without news: a publish can be lost, the stream is not.
const CHECK_PERIOD: Duration = Duration::from_secs(5);
/// How long to wait after a failure.
const RETRY: Duration = Duration::from_millis(200);

/// Something every node does to its own sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A scope is banned: its sockets are cut, and its handshakes refused.
    Ban {
        /// The ban.
        ban: Ban,
    },
    /// A ban has ended before its time.
    Unban {
        /// Whose.
        scope: Scope,
    },
    /// Cut the sockets of a scope that is not banned: its login was ended, or an operator wants it.
    Cut {
        /// The scope.
        scope: Scope,
        /// Why, for the client and the log.
        code: String,
    },
    /// Cut one socket.
    Kick {
        /// Its id.
        socket: String,
        /// Why, for the client and the log.
        code: String,
    },
    /// Whoever answers this question ends it as far as it has come.
    CancelReply {
        /// The room.
        room: RoomId,
        /// The question.
        question: String,
    },
    /// A user is no longer in a room: their sockets leave it.
    Evict {
        /// The user.
        user: UserId,
        /// The room.
        room: RoomId,
    },
    /// A room is deleted: every socket leaves it.
    RoomGone {
        /// The room.
        room: RoomId,
    },
}

impl Redis {
    /// Puts an act on the stream and wakes every node.
    pub async fn publish_act(&self, act: &Act) -> Result<(), RedisError> {
        let json = serde_json::to_string(act).map_err(|_| RedisError::Unexpected("act"))?;
        let client = self.any()?;
        let _id: String = client
            .xadd(CONTROL, false, ("MAXLEN", "~", ACTS_MAX), XID::Auto, ("a", json))
            .await?;
        let () = client.publish(CONTROL, "1").await?;
        Ok(())
    }

    /// The newest entry of the control stream, where a new node starts.
    pub async fn control_position(&self) -> Result<String, RedisError> {
        let newest: Vec<(String, Vec<(String, String)>)> = self.any()?.xrevrange(CONTROL, "+", "-", Some(1)).await?;
        Ok(newest.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id))
    }

    /// Shows every act after `position` to `carry_out`, as `news` says that there may be some, until the bus ends.
    pub async fn follow_acts(
        &self,
        mut position: String,
        mut news: tokio::sync::watch::Receiver<u64>,
        mut carry_out: impl FnMut(Act),
    ) {
        loop {
            match self.acts_after(&position).await {
                Ok(acts) => {
                    let full = acts.len() >= PAGE;
                    for (at, act) in acts {
                        position = at;
                        match act {
                            Some(act) => carry_out(act),
                            None => tracing::warn!(position, "unknown act on the control stream"),
                        }
                    }
                    if full {
                        continue;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "control stream not read");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(CHECK_PERIOD) => {}
            }
        }
    }

    /// The acts after `position`, with the position after each.
    async fn acts_after(&self, position: &str) -> Result<Vec<(String, Option<Act>)>, RedisError> {
        let from = format!("({position}");
        let entries: Vec<(String, std::collections::HashMap<String, String>)> =
            self.any()?.xrange(CONTROL, from, "+", Some(PAGE as u64)).await?;
        Ok(entries
            .into_iter()
            .map(|(id, fields)| {
                let act = fields.get("a").and_then(|json| serde_json::from_str(json).ok());
                (id, act)
            })
            .collect())
    }
}
