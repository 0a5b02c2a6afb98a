//! A room's log: one round trip to post, one to read a page with its position.

pub mod codec;

use std::time::Duration;

use fred::prelude::*;

use self::codec::{integer, millis, post_call, read_page};
use super::client::Purpose;
use super::durability::Replid;
use super::posted::{self, Posted};
use super::{Redis, RedisError, watched};
use crate::model::{Epoch, EventKind, Position, RoomEvent, RoomId, Seq, UnixMs, UserId};

/// How long a deleted room is remembered.
const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 3600);

/// By what right an event changes an earlier message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// Its author.
    Author,
    /// The room's owner.
    Owner,
    /// Checked against the archive, because the log no longer holds the message.
    Checked,
}

impl Authority {
    /// As `post` wants it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Author => "",
            Self::Owner => "owner",
            Self::Checked => "checked",
        }
    }
}

/// An event before it has a place.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event's JSON object without its closing brace and without the fields that depend on its place.
    pub prefix: String,
    /// What it does.
    pub kind: EventKind,
    /// Who does it.
    pub user: UserId,
    /// The message that an edit or a deletion changes.
    pub target: Option<String>,
    /// By what right.
    pub authority: Authority,
    /// The client's own id, which makes a resend harmless.
    pub cid: Option<String>,
    /// Hash of the content, to tell a resend from another message under the same `cid`.
    pub hash: u64,
    /// W3C trace context of what it is part of, or empty; what is stored is that of the post itself.
    pub trace: String,
    /// It asks the model; what the room is told when no more questions can be kept: an event's name and JSON up to its id.
    pub asks: Option<String>,
    /// The question that it answers: it is stored only if nothing else has ended that one.
    pub answers: Option<Answers>,
}

impl Draft {
    /// Whether it changes nothing, asks nothing and answers nothing.
    fn is_plain(&self) -> bool {
        self.target.is_none() && self.asks.is_none() && self.answers.is_none()
    }
}

/// What a reply answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The message that asks.
    pub question: String,
    /// The claim under which it was written: it is not stored once a later one writes.
    pub generation: u64,
}

/// The lower end of a page, which itself is not part of it.
#[derive(Debug, Clone, Copy)]
pub enum After {
    /// Everything the log has.
    Start,
    /// After this place.
    Position(Position),
    /// After this server time.
    Time(UnixMs),
    /// After this number.
    Seq(Seq),
}

/// Which part of what is above the lower end a page takes; it is ascending in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The oldest.
    Oldest,
    /// The newest.
    Newest,
}

/// How much one page may hold; at least one event, however large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit {
    /// Events.
    pub events: usize,
    /// Bytes of event JSON.
    pub bytes: usize,
}

impl PageLimit {
    /// The most that one answer holds: 1000 events or 1 MiB.
    pub const FULL: Self = Self {
        events: 1000,
        bytes: 1024 * 1024,
    };

    /// At most this many events.
    pub fn events(events: usize) -> Self {
        Self {
            events: events.min(Self::FULL.events),
            ..Self::FULL
        }
    }

    /// The share of each of `rooms` rooms in one answer: together about 10 000 events or 8 MiB.
    pub fn shared_by(rooms: usize) -> Self {
        let rooms = rooms.max(1);
        Self {
            events: (10 * Self::FULL.events / rooms).clamp(50, Self::FULL.events),
            bytes: (8 * Self::FULL.bytes / rooms).clamp(16 * 1024, Self::FULL.bytes),
        }
    }
}

/// A page of a room's log and the room's position at the same instant.
#[derive(Debug)]
pub struct LogPage {
    /// The current epoch.
    pub epoch: Epoch,
    /// The latest epochs with the first number of each, ascending.
    pub epochs: Vec<(Epoch, Seq)>,
    /// The newest event.
    pub top: Position,
    /// The newest event that the log no longer holds.
    pub floor: Position,
    /// Whether the room was deleted.
    pub deleted: bool,
    /// Whether events above the lower end were left out.
    pub more: bool,
    /// The events, ascending.
    pub events: Vec<RoomEvent>,
}

impl Redis {
    /// Stores `drafts` in the room's log, in order and at once, and publishes them. One round trip, and the wait of the
    /// durability level.
    ///
    /// An [`RedisError::Uncertain`] holds for all of them: they were stored together or not at all.
    pub async fn post(&self, room: &RoomId, drafts: &[Draft], limits: PostLimits) -> Result<Vec<Posted>, RedisError> {
        let spans = watched::begin(room, drafts);
        let contexts: Vec<String> = (0..)
            .zip(drafts)
            .map(|(index, draft)| watched::context(&spans, index, draft))
            .collect();
        let asked = || post_call(&self.keys, self.publish_verb(), room, drafts, &contexts, limits);
        let (answer, client): (Vec<String>, _) = self.call_for(room, Purpose::Post, &self.scripts.post, asked).await?;
        let (epoch, outcomes) = posted::read(&answer, drafts.len()).ok_or(RedisError::Unexpected("post"))?;
        if let Some(meter) = &self.posted {
            meter.count(&outcomes);
        }
        let posted: Vec<Posted> = outcomes.into_iter().map(|outcome| outcome.posted).collect();
        if posted.iter().any(|posted| matches!(posted, Posted::Stored(_))) {
            self.commit(&client, room, Replid::of_epoch(epoch)).await?;
        }
        watched::end(&spans, &posted);
        Ok(posted)
    }

    /// Reads a page of the room's log from the primary; `exists` when the room service has just said so.
    pub async fn read_log(
        &self,
        room: &RoomId,
        after: After,
        take: Take,
        limit: PageLimit,
        exists: bool,
    ) -> Result<LogPage, RedisError> {
        let (bound, value) = match after {
            After::Start => ("none", String::new()),
            After::Position(position) => ("id", position.to_string()),
            After::Time(ts) => ("time", ts.to_string()),
            After::Seq(seq) => ("seq", seq.to_string()),
        };
        let args = vec![
            bound.into(),
            value.into(),
            if take == Take::Oldest { "asc" } else { "desc" }.into(),
            integer(limit.events),
            integer(limit.bytes),
            if exists { "1" } else { "0" }.into(),
        ];
        let key_names = vec![self.keys.log(room), self.keys.meta(room)];
        let answer: Vec<Value> = self.call_for_room(room, &self.scripts.read, key_names, args).await?;
        read_page(answer).ok_or(RedisError::Unexpected("read"))
    }

    /// Removes what is archived up to a number and old enough from a room's log; returns how many events.
    pub async fn trim_log(&self, room: &RoomId, archived: Seq, keep: LogKeep) -> Result<u64, RedisError> {
        let key_names = vec![self.keys.log(room), self.keys.meta(room)];
        let args = vec![
            archived.to_string().into(),
            i64::from(keep.events).into(),
            millis(keep.age),
        ];
        self.call_for_room(room, &self.scripts.trim_log, key_names, args).await
    }

    /// Publishes a `roomUpdate` to the nodes that have the room joined; it has no place in the log.
    pub async fn publish_update(&self, room: &RoomId, json: &str) -> Result<(), RedisError> {
        self.publish_live(room, format!("! {json}")).await
    }

    /// Publishes on a room's live channel, beside its events.
    pub(super) async fn publish_live(&self, room: &RoomId, payload: String) -> Result<(), RedisError> {
        let client = self.for_room(room, Purpose::Other)?;
        let channel = self.keys.live(room);
        let () = if self.is_clustered() {
            client.spublish(channel, payload).await?
        } else {
            client.publish(channel, payload).await?
        };
        Ok(())
    }

    /// The command by which scripts publish on a live channel.
    pub(super) fn publish_verb(&self) -> &'static str {
        if self.is_clustered() { "SPUBLISH" } else { "PUBLISH" }
    }

    /// Removes what the room kept and leaves a tombstone.
    pub async fn delete_room(&self, room: &RoomId) -> Result<(), RedisError> {
        let keys = &self.keys;
        let partition = keys.partition(room.as_str());
        let key_names = vec![
            keys.log(room),
            keys.meta(room),
            keys.gone(room),
            keys.active(partition),
            keys.gpt_summary(room),
        ];
        let args = vec![room.as_str().into(), millis(TOMBSTONE_TTL)];
        let _done: Value = self
            .call_for_room(room, &self.scripts.delete_room, key_names, args)
            .await?;
        Ok(())
    }
}

/// What a room's log keeps although it is archived: clients that come back soon need no archive.
#[derive(Debug, Clone, Copy)]
pub struct LogKeep {
    /// The newest events.
    pub events: u32,
    /// Events younger than this.
    pub age: Duration,
}

/// Bounds of what posts may leave in Redis.
#[derive(Debug, Clone, Copy)]
pub struct PostLimits {
    /// Events of one room's log.
    pub log_max_len: u32,
    /// Bytes of one partition waiting for the archive.
    pub archive_max_bytes: usize,
}

/// What the id of a reply has behind that of its question.
pub const REPLY_SUFFIX: &str = "-r";

/// The id of the reply to a question.
pub fn reply_id(question: &str) -> String {
    format!("{question}{REPLY_SUFFIX}")
}
