//! Carries out operations on a real server and holds every answer against the model.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::{EventKind, Position, RoomId, unix_ms};
use roomcast::redis::{After, Draft, PageLimit, PostLimits, Take};

use super::archive::archive_size;
use super::checks;
use super::model::State;
use super::op::{Bytes, Op, ROOMS, Words};
use super::server::{PARTITIONS, Server};

/// A deployment's rooms next to the model of them.
pub struct Run<'a> {
    pub server: &'a mut Server,
    pub state: State,
    saved: (State, Vec<checks::Key>),
    /// Every event's message id, whatever became of it.
    pub ids: Vec<Vec<String>>,
    /// Every event's place, likewise.
    pub places: Vec<Vec<Position>>,
}

impl<'a> Run<'a> {
    /// An empty server.
    pub async fn start(server: &'a mut Server) -> Self {
        server.wire.call(&["FLUSHALL"]).await;
        server.live.published().await;
        let state = State {
            rooms: vec![Default::default(); ROOMS.len()],
            archives: vec![Default::default(); usize::from(PARTITIONS)],
        };
        let (ids, places) = (vec![Vec::new(); ROOMS.len()], vec![Vec::new(); ROOMS.len()]);
        Self {
            server,
            saved: (state.clone(), Vec::new()),
            state,
            ids,
            places,
        }
    }

    /// One operation after the other, then what must hold at the end.
    pub async fn all(&mut self, ops: &[Op]) -> Result<(), TestCaseError> {
        for (number, op) in ops.iter().enumerate() {
            let done = match self.one(op).await {
                Ok(()) => self.server.watch_slots().await,
                failed => failed,
            };
            done.map_err(|error| TestCaseError::fail(format!("operation {number}, {op:?}: {error}")))?;
        }
        for room in 0..ROOMS.len() {
            self.read(room, After::Start, Take::Oldest, PageLimit::FULL, false)
                .await?;
        }
        checks::keys_expire(&mut self.server.wire).await?;
        self.archive_matches().await
    }

    async fn one(&mut self, op: &Op) -> Result<(), TestCaseError> {
        match op {
            Op::Post {
                room,
                drafts,
                log_cap,
                archive_left,
            } => {
                let drafts: Vec<Draft> = drafts.iter().map(|words| self.draft(*room, words)).collect();
                let waiting = archive_size(&self.state.archives[self.server.partition(*room)].waiting);
                // What is left is drawn in events; one takes about this much.
                let archive_max_bytes = archive_left.map_or(usize::MAX >> 1, |left| waiting + left as usize * 300);
                self.post(
                    *room,
                    &drafts,
                    PostLimits {
                        log_max_len: *log_cap,
                        archive_max_bytes,
                    },
                )
                .await
            }
            Op::Burst { room, count, log_cap } => {
                let drafts = vec![self.draft(*room, &Words::MESSAGE); *count];
                self.post(
                    *room,
                    &drafts,
                    PostLimits {
                        log_max_len: *log_cap,
                        archive_max_bytes: usize::MAX >> 1,
                    },
                )
                .await
            }
            Op::Read {
                room,
                after,
                newest,
                events,
                bytes,
                exists,
            } => {
                let take = if *newest { Take::Newest } else { Take::Oldest };
                let after = self.bound(*room, after);
                let bytes = match bytes {
                    Bytes::Any(bytes) => *bytes,
                    Bytes::JustFor(count) => {
                        let above = self.state.rooms[*room].above(after, take);
                        above.iter().take(*count).map(|event| event.json.len()).sum()
                    }
                };
                let limit = PageLimit { events: *events, bytes };
                self.read(*room, after, take, limit, *exists).await
            }
            Op::Delete { room } => {
                let done = self.server.redis.delete_room(&self.server.room(*room)).await;
                prop_assert!(done.is_ok(), "{:?}", done);
                self.opened(*room).await?;
                self.state.rooms[*room].delete();
                let score = self.score(*room).await;
                prop_assert_eq!(score, "", "an active room that is deleted");
                Ok(())
            }
            Op::PublishUpdate { room } => {
                let sent = self.server.redis.publish_update(&self.server.room(*room), "{}").await;
                prop_assert!(sent.is_ok(), "{:?}", sent);
                self.published(*room, vec!["! {}".to_owned()]).await
            }
            Op::Archived {
                partition,
                count,
                others,
                refused,
            } => self.archived(*partition, *count, *others, *refused).await,
            Op::Trim {
                room,
                archived,
                keep,
                age,
            } => self.trim(*room, archived, *keep, age).await,
            Op::LongAgo { room, count } => self.long_ago(*room, *count).await,
            Op::EmptyArchive { room } => self.empty_archive(*room).await,
            Op::Lease {
                partition,
                worker,
                seconds,
            } => self.lease(*partition, *worker, *seconds).await,
            Op::EndLease { partition } => {
                self.end_lease(*partition).await;
                Ok(())
            }
            Op::Spoil { room, key, act } => self.spoil(*room, *key, *act).await,
            Op::Elect { room, times } => {
                for _ in 0..*times {
                    self.server.elect().await;
                    self.read(*room, After::Start, Take::Newest, PageLimit::events(1), false)
                        .await?;
                }
                Ok(())
            }
            Op::Save => {
                self.saved = (self.state.clone(), checks::dump(&mut self.server.wire).await);
                Ok(())
            }
            Op::LoseTail => {
                checks::restore(&mut self.server.wire, &self.saved.1).await;
                self.state = self.saved.0.clone();
                self.server.elect().await;
                Ok(())
            }
            Op::Wipe => {
                self.server.wire.call(&["FLUSHALL"]).await;
                self.state.rooms.fill(Default::default());
                self.state.archives.fill(Default::default());
                self.server.elect().await;
                Ok(())
            }
            Op::Restart => {
                self.server.restart().await;
                for room in 0..ROOMS.len() {
                    // waiting for the server has read every room
                    self.opened(room).await?;
                }
                Ok(())
            }
            Op::FlushScripts => {
                self.server.wire.call(&["SCRIPT", "FLUSH"]).await;
                Ok(())
            }
            Op::AgeTombstone { .. } | Op::ExpireLog { .. } | Op::ForgetRoom { .. } | Op::ClockGoesBack { .. } => {
                self.pass_time(op).await;
                Ok(())
            }
        }
    }

    pub async fn post(&mut self, room: usize, drafts: &[Draft], limits: PostLimits) -> Result<(), TestCaseError> {
        let before = unix_ms();
        let answers = self.server.redis.post(&self.server.room(room), drafts, limits).await;
        let clock = (before, unix_ms());
        prop_assert!(answers.is_ok(), "{:?}", answers);
        self.opened(room).await?;
        let waiting = &mut self.state.archives[self.server.partition(room)].waiting;
        let stored = self.state.rooms[room].post(drafts, limits, clock, waiting, &answers.unwrap())?;
        if let Some(last) = stored.last() {
            let score = self.score(room).await;
            prop_assert_eq!(score, last.position.ts.to_string(), "when the room was active");
        }
        let mut messages = Vec::with_capacity(stored.len());
        for event in stored {
            checks::server_fields_come_once_and_last(&event.json)?;
            if matches!(event.kind, EventKind::Message | EventKind::Gpt) {
                self.ids[room].push(event.position.to_string());
            }
            self.places[room].push(event.position);
            messages.push(event.live);
        }
        self.published(room, messages).await
    }

    pub async fn read(
        &mut self,
        room: usize,
        after: After,
        take: Take,
        limit: PageLimit,
        exists: bool,
    ) -> Result<(), TestCaseError> {
        let page = self
            .server
            .redis
            .read_log(&self.server.room(room), after, take, limit, exists)
            .await;
        prop_assert!(page.is_ok(), "{:?}", page);
        self.opened(room).await?;
        self.state.rooms[room].read(after, take, limit, exists, &page.unwrap())
    }

    /// Takes note of the epoch that the last call must have opened, or not.
    pub async fn opened(&mut self, room: usize) -> Result<(), TestCaseError> {
        let meta = self.server.redis.keys.meta(&self.server.rooms[room]);
        let epoch = self.server.wire.call(&["HGET", &meta, "epoch"]).await.text();
        let model = &mut self.state.rooms[room];
        if model.is_stale(&self.server.boot) {
            let (replica, micros) = epoch.split_once('-').unwrap_or_default();
            prop_assert!(
                self.server.boot.starts_with(replica) && replica.len() == 8,
                "epoch {}",
                epoch
            );
            prop_assert!(
                micros.parse::<u64>().is_ok_and(|at| at / 1000 <= unix_ms()),
                "epoch {}",
                epoch
            );
            prop_assert!(
                model.epochs.iter().all(|(known, _)| *known != epoch),
                "epoch {} again",
                epoch
            );
            model.open(&self.server.boot, &epoch);
        } else {
            prop_assert_eq!(&epoch, &model.epoch);
        }
        Ok(())
    }

    pub async fn published(&mut self, room: usize, messages: Vec<String>) -> Result<(), TestCaseError> {
        let channel = self.server.redis.keys.live(&self.server.rooms[room]);
        let expected: Vec<_> = messages.into_iter().map(|message| (channel.clone(), message)).collect();
        prop_assert_eq!(self.server.live.published().await, expected, "published");
        Ok(())
    }

    /// When the room was active, or nothing.
    async fn score(&mut self, room: usize) -> String {
        let partition = u16::try_from(self.server.partition(room)).unwrap();
        let active = self.server.redis.keys.active(partition);
        self.server.wire.call(&["ZSCORE", &active, ROOMS[room]]).await.text()
    }

    /// The id of a room, for the other parts of this.
    pub fn room(&self, room: usize) -> RoomId {
        self.server.room(room)
    }
}
