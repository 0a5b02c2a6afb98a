//! What was said before: from the log, and from the archive where the log ends.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::feed::first_after;
use super::fold::{Folded, Message, fold};
use super::succession::opening_before;
use super::{Chat, ChatError};
use crate::model::{Cursor, Epoch, Position, RoomEvent, RoomId, Seq, UnixMs};
use crate::redis::{After, LogPage, PageLimit, Take};
use crate::upstream::MessageQuery;

/// Messages in one answer to a join or sync.
const PREVIOUS_MAX: usize = 1000;
/// Messages in one answer to `loadMoreMessages_for_room`.
const MORE_MAX: usize = 50;
/// Events read at once to fill a hole or to bring up a member.
const FILL_PAGE: usize = 500;
/// Pages asked of the archive for one answer.
const ARCHIVE_PAGES_MAX: usize = 20;

/// In which form history is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Messages with edits applied and deleted ones left out.
    Folded,
    /// Every event by kind (protocol 2).
    Raw,
}

/// The answer to a join.
#[derive(Debug)]
pub struct Previous {
    /// Message objects or raw events, ascending.
    pub messages: Vec<Box<RawValue>>,
    /// Folded only: changes of messages before the span, to follow as events.
    pub changes: Vec<RoomEvent>,
    /// The room's position that `messages` reach.
    pub top: Position,
    /// The room's epoch.
    pub epoch: Epoch,
    /// Whether `messages` begin exactly where the cursor ended.
    pub recovered: bool,
    /// Whether more lies between the cursor and the answer (folded) or behind the answer (raw).
    pub more: bool,
    /// The page's position, for the delivery that goes on from here.
    pub page: LogPage,
}

/// What the log could tell for a cursor.
pub(super) struct FromLog {
    pub page: LogPage,
    pub recovered: bool,
    /// What the archive must be asked for, if anything.
    pub missing: Missing,
}

/// What lies below the log.
pub(super) enum Missing {
    Nothing,
    /// Asked only to be complete: before this service there may have been another.
    Perhaps(Query),
    /// Known to be needed.
    Surely(Query),
}

/// A question to the archive.
pub(super) struct Query {
    pub timestamp: Option<UnixMs>,
    pub oldmessage: Option<String>,
    pub newer: bool,
}

impl Chat {
    /// What a joining client gets: everything after its cursor, or the newest without one.
    pub async fn previous(
        &self,
        room: &RoomId,
        cursor: Option<&Cursor>,
        wanted: Wanted,
    ) -> Result<Previous, ChatError> {
        let FromLog {
            mut page,
            mut recovered,
            missing,
        } = self.read_for(room, cursor, wanted, PageLimit::FULL, true).await?;
        let archived = match missing {
            Missing::Nothing => Vec::new(),
            Missing::Surely(query) => {
                let (archived, met) = self.ask_archive(room, &query, &page, wanted).await?;
                recovered &= met;
                page.more |= !met;
                // With a hole before the log, an old client gets what is whole.
                if met || wanted == Wanted::Raw {
                    archived
                } else {
                    Vec::new()
                }
            }
            Missing::Perhaps(query) => match self.ask_archive(room, &query, &page, wanted).await {
                Ok((archived, _)) => archived,
                Err(_) => {
                    recovered = false;
                    Vec::new()
                }
            },
        };
        let events = std::mem::take(&mut page.events);
        let more = page.more;
        // A raw page that was cut ends below the room's position; the live delivery starts at its end.
        let top = match (wanted, events.last()) {
            (Wanted::Raw, Some(last)) if more => last.position,
            _ => page.top,
        };
        let (messages, changes) = match wanted {
            Wanted::Raw => (
                archived
                    .into_iter()
                    .chain(events.into_iter().map(|event| event.json))
                    .collect(),
                Vec::new(),
            ),
            Wanted::Folded => {
                let Folded { messages, changes } = fold(archived, events);
                (newest(messages, PREVIOUS_MAX), changes)
            }
        };
        Ok(Previous {
            messages,
            changes,
            top,
            epoch: page.epoch.clone(),
            recovered,
            more,
            page,
        })
    }

    /// Reads the log for a cursor and tells what it lacks.
    pub(super) async fn read_for(
        &self,
        room: &RoomId,
        cursor: Option<&Cursor>,
        wanted: Wanted,
        limit: PageLimit,
        exists: bool,
    ) -> Result<FromLog, ChatError> {
        let after = match cursor {
            None => After::Start,
            Some(Cursor::Time(ts)) => After::Time(*ts),
            Some(Cursor::Message(id)) => id.parse().map_or(After::Start, After::Position),
            Some(Cursor::Event { seq, ts: Some(ts), .. }) => After::Position(Position { ts: *ts, seq: *seq }),
            Some(Cursor::Event { seq, .. }) => After::Seq(*seq),
        };
        let take = if wanted == Wanted::Raw && cursor.is_some() {
            Take::Oldest
        } else {
            Take::Newest
        };
        let mut page = self.redis.read_log(room, after, take, limit, exists).await?;
        let mut since = None;
        if let Some(opening) = newest_time(cursor).and_then(|ts| opening_before(&page.epochs, ts)) {
            let after = After::Seq(opening.after);
            let reopened = self.redis.read_log(room, after, take, limit, exists).await?;
            // An id that stands in the log is of no lost event.
            if !names_one_of(cursor, &reopened.events) {
                page = reopened;
                since = Some(opening.before);
            }
        }
        let mut recovered = true;
        let mut missing = Missing::Nothing;
        match cursor {
            None => {
                recovered = false;
                // A short log may be the end of a long history.
                if !page.more && page.events.len() < MORE_MAX {
                    let timestamp = page.events.first().map(|event| event.position.ts);
                    missing = Missing::Perhaps(Query {
                        timestamp,
                        oldmessage: None,
                        newer: false,
                    });
                }
            }
            Some(Cursor::Time(ts)) => missing = below_floor(&page, since.unwrap_or(*ts)),
            Some(Cursor::Message(id)) => {
                missing = match id.parse::<Position>() {
                    Ok(_) if let Some(since) = since => below_floor(&page, since),
                    // A place of this log, unless it comes from a log of before.
                    Ok(position) if page.floor.seq > 0 && position >= page.floor && position.seq >= page.floor.seq => {
                        Missing::Nothing
                    }
                    Ok(position) => below_floor(&page, position.ts),
                    // An id of another making: only the archive knows where it is, if it still does.
                    Err(_) => Missing::Perhaps(Query {
                        timestamp: None,
                        oldmessage: Some(id.clone()),
                        newer: true,
                    }),
                };
            }
            Some(Cursor::Event { epoch, seq, ts }) => {
                if !is_provable(&page, epoch, *seq) {
                    recovered = false;
                    page = self
                        .redis
                        .read_log(room, After::Start, Take::Newest, limit, exists)
                        .await?;
                } else if *seq < page.floor.seq {
                    match ts {
                        Some(ts) => missing = below_floor(&page, *ts),
                        None => recovered = false,
                    }
                }
            }
        }
        if page.deleted {
            return Err(ChatError::RoomGone);
        }
        if wanted == Wanted::Folded && page.more {
            // The newest fill the answer: nothing older is part of it.
            missing = Missing::Nothing;
            recovered = false;
        }
        Ok(FromLog {
            page,
            recovered,
            missing,
        })
    }

    /// Asks the archive, page by page, up to where the log begins; tells whether it got there.
    async fn ask_archive(
        &self,
        room: &RoomId,
        query: &Query,
        log: &LogPage,
        wanted: Wanted,
    ) -> Result<(Vec<Box<RawValue>>, bool), ChatError> {
        let floor = log.floor;
        let mut found: Vec<Box<RawValue>> = Vec::new();
        let mut timestamp = query.timestamp;
        let mut oldmessage = query.oldmessage.as_deref();
        let mut complete = false;
        for _ in 0..ARCHIVE_PAGES_MAX {
            let limit = Some(u32::try_from(PREVIOUS_MAX).unwrap_or(u32::MAX)).filter(|_| query.newer);
            let page = MessageQuery {
                timestamp,
                oldmessage,
                newer: query.newer,
                limit,
            };
            let page = match (page.oldmessage, page.newer) {
                (None, false) => self.newest_archived(room, timestamp, floor.seq).await?,
                _ => self.upstream.messages(room, &page).await?,
            };
            let page = fold(page, Vec::new()).messages;
            let reached = page.last().map(|message| message.place.0);
            let progress = reached.is_some_and(|reached| timestamp.is_none_or(|before| reached > before));
            // The raw events of the log follow, so what it has must not come from here too.
            let in_log = |message: &Message| wanted == Wanted::Raw && floor.seq > 0 && message.place.0 > floor.ts;
            // Said and archived since the log was read: it comes live.
            let is_to_come = |message: &Message| message.place.1 > log.top.seq && message.is_of(&log.epoch);
            found.extend(
                page.into_iter()
                    .filter(|message| !in_log(message) && !is_to_come(message))
                    .map(|message| message.json),
            );
            complete = !query.newer || !progress || reached.is_some_and(|reached| reached >= floor.ts);
            if complete || found.len() >= PREVIOUS_MAX {
                break;
            }
            (timestamp, oldmessage) = (reached, None);
        }
        // Everything below the log is in the archive once nothing that old waits to be archived.
        let waiting = if complete && floor.seq > 0 {
            self.redis.oldest_unarchived(room).await?
        } else {
            None
        };
        Ok((found, complete && waiting.is_none_or(|oldest| oldest > floor.ts)))
    }

    /// The newest archived messages before a time, as of a moment ago: all who come back at once ask for the same. What the
    /// log gives up meanwhile raises its floor, and is asked for anew.
    async fn newest_archived(
        &self,
        room: &RoomId,
        timestamp: Option<UnixMs>,
        floor: Seq,
    ) -> Result<Vec<Box<RawValue>>, ChatError> {
        let query = MessageQuery {
            timestamp,
            ..MessageQuery::default()
        };
        let asked = async { self.upstream.messages(room, &query).await.map(Arc::new) };
        let page = self
            .archived
            .try_get_with((room.clone(), timestamp, floor), asked)
            .await?;
        Ok(page.to_vec())
    }

    /// Up to 50 messages strictly older than the cursor, or strictly newer, ascending.
    pub async fn more(
        &self,
        room: &RoomId,
        cursor: Option<&Cursor>,
        newer: bool,
    ) -> Result<Vec<Box<RawValue>>, ChatError> {
        let page = self
            .redis
            .read_log(room, After::Start, Take::Newest, PageLimit::FULL, false)
            .await?;
        if page.deleted {
            return Err(ChatError::RoomGone);
        }
        let begins_at_start = !page.more && page.floor.seq == 0;
        let log_begin = page.events.first().map(|event| (event.position.ts, event.position.seq));
        let mut query = Query {
            timestamp: None,
            oldmessage: None,
            newer,
        };
        let bound = match cursor {
            None => None,
            Some(Cursor::Time(ts) | Cursor::Event { ts: Some(ts), .. }) => {
                query.timestamp = Some(*ts);
                Some((*ts, if newer { u64::MAX } else { 0 }))
            }
            Some(Cursor::Message(id)) => match id.parse::<Position>() {
                Ok(position) => {
                    query.timestamp = Some(position.ts);
                    Some((position.ts, position.seq))
                }
                Err(_) => {
                    query.oldmessage = Some(id.clone());
                    None
                }
            },
            Some(Cursor::Event { ts: None, .. }) => return Err(ChatError::BadPayload("`ts` is missing".into())),
        };
        let in_span = |place: (UnixMs, u64)| match bound {
            Some(bound) if newer => place > bound,
            Some(bound) => place < bound,
            // After an id of another making comes all of the log; before it comes nothing of it.
            None => query.oldmessage.is_none() || newer,
        };
        let from_log = fold(Vec::new(), page.events.clone()).messages;
        let in_log = from_log.iter().filter(|message| in_span(message.place)).count();
        let log_suffices = query.oldmessage.is_none()
            && if newer {
                bound.is_some_and(|bound| log_begin.is_some_and(|begin| bound >= begin))
            } else {
                in_log >= MORE_MAX
            };
        // The archive is asked for the span itself; of the log, which also brings changes, only the span is shown.
        let mut all = if log_suffices {
            from_log
        } else {
            let query = MessageQuery {
                timestamp: query.timestamp,
                oldmessage: query.oldmessage.as_deref(),
                newer,
                limit: None,
            };
            match self.upstream.messages(room, &query).await {
                Ok(archived) => fold(archived, page.events).messages,
                // Everything there ever was is in the log, unless another service wrote before this one.
                Err(_) if begins_at_start && in_log > 0 => from_log,
                Err(error) => return Err(error.into()),
            }
        };
        all.retain(|message| message.archived || in_span(message.place));
        Ok(if newer {
            all.into_iter().take(MORE_MAX).map(|message| message.json).collect()
        } else {
            newest(all, MORE_MAX)
        })
    }

    /// Raw events by number, for a protocol-2 client that sees a gap. Numbers that `epoch` does not have any more, because
    /// its tail was lost, are not found: another event may stand there now.
    pub async fn gap(
        &self,
        room: &RoomId,
        epoch: Option<Epoch>,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<Box<RawValue>>, ChatError> {
        let count = usize::try_from(to.saturating_sub(from))
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .min(PREVIOUS_MAX);
        let page = self
            .redis
            .read_log(
                room,
                After::Seq(from.saturating_sub(1)),
                Take::Oldest,
                PageLimit::events(count),
                false,
            )
            .await?;
        if page.deleted {
            return Err(ChatError::RoomGone);
        }
        let provable = epoch.is_none_or(|epoch| epoch == page.epoch || is_provable(&page, &epoch, to));
        if from <= page.floor.seq || !provable {
            return Err(ChatError::NotFound);
        }
        Ok(page
            .events
            .into_iter()
            .filter(|event| event.position.seq <= to)
            .map(|event| event.json)
            .collect())
    }

    /// The room's events after a place, as they are in the log: the delivery's way to fill holes.
    pub async fn events_after(&self, room: &RoomId, at: Position) -> Result<LogPage, ChatError> {
        // After a lost tail the place itself may not exist any more; its number still says where to go on.
        let after = if at.ts == 0 {
            After::Seq(at.seq)
        } else {
            After::Position(at)
        };
        Ok(self
            .redis
            .read_log(room, after, Take::Oldest, PageLimit::events(FILL_PAGE), false)
            .await?)
    }
}

fn newest(mut messages: Vec<Message>, max: usize) -> Vec<Box<RawValue>> {
    let cut = messages.len().saturating_sub(max);
    messages.drain(..cut);
    messages.into_iter().map(|message| message.json).collect()
}

/// The time of a client's newest message, of which nobody knows the epoch.
fn newest_time(cursor: Option<&Cursor>) -> Option<UnixMs> {
    match cursor? {
        Cursor::Time(ts) => Some(*ts),
        Cursor::Message(id) => id.parse::<Position>().ok().map(|position| position.ts),
        Cursor::Event { .. } => None,
    }
}

fn names_one_of(cursor: Option<&Cursor>, events: &[RoomEvent]) -> bool {
    let Some(Cursor::Message(id)) = cursor else {
        return false;
    };
    id.parse::<Position>()
        .is_ok_and(|position| events.iter().any(|event| event.position == position))
}

/// What is missing below the log for a client that has everything up to `ts`.
fn below_floor(page: &LogPage, ts: UnixMs) -> Missing {
    let query = Query {
        timestamp: Some(ts),
        oldmessage: None,
        newer: true,
    };
    if page.floor.seq > 0 {
        return if ts < page.floor.ts {
            Missing::Surely(query)
        } else {
            Missing::Nothing
        };
    }
    // The log begins with the room's first event here; what came before was another service's.
    match page.events.first() {
        Some(first) if first.position.seq > 1 => Missing::Nothing,
        _ if page.top.seq > 0 && ts >= page.top.ts => Missing::Nothing,
        _ => Missing::Perhaps(query),
    }
}

/// Whether the room's epochs prove that (epoch, seq) is part of the history that exists now.
fn is_provable(page: &LogPage, epoch: &Epoch, seq: Seq) -> bool {
    if *epoch == page.epoch {
        return seq <= page.top.seq;
    }
    first_after(&page.epochs, epoch).is_some_and(|first| seq < first)
}
