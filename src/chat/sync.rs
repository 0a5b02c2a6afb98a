//! `syncRooms`: the state of many rooms at once, the log first and the archive for what is older.

use futures::StreamExt;
use serde_json::value::RawValue;

use super::fold::fold;
use super::history::{FromLog, Missing, Wanted};
use super::{Chat, ChatError};
use crate::model::{Cursor, Epoch, Identity, RoomEvent, RoomId, Seq, UnixMs};
use crate::redis::PageLimit;
use crate::upstream::MessageQuery;

/// Rooms in one request.
pub const SYNC_MAX_ROOMS: usize = 1000;
/// Logs read, or archives asked, at the same time for one request.
const PARALLEL: usize = 10;

/// A room a client wants to bring up to date.
#[derive(Debug)]
pub struct SyncRequest {
    /// The room.
    pub room: RoomId,
    /// Where the client stands.
    pub cursor: Option<Cursor>,
}

/// One room of the answer.
#[derive(Debug)]
pub struct SyncedRoom {
    /// The room.
    pub room: RoomId,
    /// Its messages after the cursor, or why there are none.
    pub messages: Result<Vec<Box<RawValue>>, ChatError>,
    /// The room's epoch.
    pub epoch: Epoch,
    /// The room's newest number.
    pub top: Seq,
    /// Whether nothing lies between the cursor and the messages.
    pub recovered: bool,
    /// Whether messages were left out.
    pub more: bool,
}

struct Part {
    synced: SyncedRoom,
    events: Vec<RoomEvent>,
    /// The time after which the archive is asked, and whether it must answer.
    archive: Option<(UnixMs, bool)>,
}

impl Chat {
    /// Brings rooms up to date; with `batch` the archive is asked once for all of them.
    pub async fn sync(&self, identity: &Identity, requests: Vec<SyncRequest>, batch: bool) -> Vec<SyncedRoom> {
        let limit = PageLimit::shared_by(requests.len());
        let mut parts: Vec<Part> = futures::stream::iter(requests)
            .map(|request| self.sync_from_log(request, limit))
            .buffered(PARALLEL)
            .collect()
            .await;
        let asked: Vec<(usize, RoomId, UnixMs)> = parts
            .iter()
            .enumerate()
            .filter_map(|(index, part)| part.archive.map(|(since, _)| (index, part.synced.room.clone(), since)))
            .collect();
        let answers = if asked.is_empty() {
            Vec::new()
        } else {
            self.sync_from_archive(identity, &asked, batch).await
        };
        for ((index, ..), answer) in asked.into_iter().zip(answers) {
            let part = &mut parts[index];
            match answer {
                Ok(archived) => part.synced.messages = Ok(archived),
                Err(error) if part.archive.is_some_and(|(_, needed)| needed) => part.synced.messages = Err(error),
                Err(_) => part.synced.recovered = false,
            }
        }
        parts
            .into_iter()
            .map(|Part { mut synced, events, .. }| {
                synced.messages = synced
                    .messages
                    .map(|archived| fold(archived, events).messages.into_iter().map(|m| m.json).collect());
                synced
            })
            .collect()
    }

    async fn sync_from_log(&self, request: SyncRequest, limit: PageLimit) -> Part {
        let SyncRequest { room, cursor } = request;
        match self
            .read_for(&room, cursor.as_ref(), Wanted::Folded, limit, false)
            .await
        {
            Ok(FromLog {
                page,
                recovered,
                missing,
            }) => {
                let archive = match missing {
                    Missing::Nothing => None,
                    Missing::Perhaps(query) => Some((query.timestamp.filter(|_| query.newer).unwrap_or(0), false)),
                    Missing::Surely(query) => Some((query.timestamp.unwrap_or(0), true)),
                };
                let synced = SyncedRoom {
                    room,
                    messages: Ok(Vec::new()),
                    epoch: page.epoch,
                    top: page.top.seq,
                    recovered,
                    more: page.more,
                };
                Part {
                    synced,
                    events: page.events,
                    archive,
                }
            }
            Err(error) => Part {
                synced: SyncedRoom {
                    room,
                    messages: Err(error),
                    epoch: Epoch::default(),
                    top: 0,
                    recovered: false,
                    more: false,
                },
                events: Vec::new(),
                archive: None,
            },
        }
    }

    async fn sync_from_archive(
        &self,
        identity: &Identity,
        asked: &[(usize, RoomId, UnixMs)],
        batch: bool,
    ) -> Vec<Result<Vec<Box<RawValue>>, ChatError>> {
        if !batch {
            // Owned items: a closure over borrowed ones is not general enough for a spawned task.
            return futures::stream::iter(asked.to_vec())
                .map(|(_, room, since)| async move {
                    let query = MessageQuery {
                        timestamp: Some(since),
                        oldmessage: None,
                        newer: true,
                        limit: Some(1000),
                    };
                    self.upstream.messages(&room, &query).await.map_err(ChatError::from)
                })
                .buffered(PARALLEL)
                .collect()
                .await;
        }
        let rooms: Vec<(RoomId, Option<UnixMs>)> = asked
            .iter()
            .map(|(_, room, since)| (room.clone(), Some(*since)))
            .collect();
        match self.upstream.sync_rooms(&identity.username, &rooms).await {
            Ok(answer) => {
                let mut by_room: std::collections::HashMap<RoomId, Vec<Box<RawValue>>> = answer.into_iter().collect();
                asked
                    .iter()
                    .map(|(_, room, _)| Ok(by_room.remove(room).unwrap_or_default()))
                    .collect()
            }
            Err(error) => {
                let error = ChatError::from(error);
                asked.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }
}
