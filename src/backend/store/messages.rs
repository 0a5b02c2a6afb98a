//! Events as they were saved, and the messages they add up to.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::json;

use super::Store;
use super::db::{Link, Row, Sql, over_rows};
use crate::backend::fold;

/// What an event does to the message its id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Message,
    Gpt,
    Edit,
    Delete,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Gpt => "gpt",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }
}

/// An event to save. `ts` is Unix milliseconds.
#[derive(Debug)]
pub struct Event<'a> {
    pub room_id: String,
    pub epoch: String,
    pub seq: i64,
    pub ts: i64,
    pub kind: Kind,
    pub id: String,
    /// The event's JSON, kept as it came.
    pub body: &'a str,
    /// Of an edit: the fields it replaces, as a JSON object.
    pub edit: Option<String>,
}

/// A place in a room's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub ts: i64,
    pub seq: i64,
}

impl Position {
    /// Before everything.
    pub const START: Self = Self {
        ts: i64::MIN,
        seq: i64::MIN,
    };
    /// After everything.
    pub const END: Self = Self {
        ts: i64::MAX,
        seq: i64::MAX,
    };
}

/// Which side of a position a page lies on. Pages are ascending either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest ones strictly after it.
    After,
    /// The newest ones strictly before it.
    Before,
    /// The newest ones of all that lie strictly after it.
    NewestAfter,
}

/// A page to read, at most `limit` objects and about `bytes` of JSON (at least one object).
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub order: Order,
    pub position: Position,
    pub limit: i64,
    pub bytes: usize,
}

const SAVE_EVENTS: Sql = over_rows!(
    "INSERT INTO events (room_id, epoch, seq, ts, kind, id, body)
     SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT), value->>4, value->>5, value->>6 FROM",
    "WHERE true ON CONFLICT DO NOTHING RETURNING room_id, epoch, seq"
);

const CLEARED_ROOMS: Sql = over_rows!(
    "SELECT room_id, gone, cleared_ts FROM rooms WHERE cleared_ts >= 0 AND room_id IN (SELECT value->>0 FROM",
    ")"
);

/// The three parts of a message are kept apart, each with the place it came from, so the order of arrival does not matter.
const KEEP_MESSAGES: Sql = over_rows!(
    "INSERT INTO messages (room_id, id, ts, seq, body)
     SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT), value->>4 FROM",
    "WHERE true ON CONFLICT (room_id, id) DO UPDATE SET ts = excluded.ts, seq = excluded.seq, body = excluded.body
     WHERE (excluded.ts, excluded.seq) > (messages.ts, messages.seq)"
);
const KEEP_EDITS: Sql = over_rows!(
    "INSERT INTO messages (room_id, id, edit_ts, edit_seq, edit)
     SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT), value->>4 FROM",
    "WHERE true ON CONFLICT (room_id, id) DO UPDATE
        SET edit_ts = excluded.edit_ts, edit_seq = excluded.edit_seq, edit = excluded.edit
     WHERE (excluded.edit_ts, excluded.edit_seq) > (messages.edit_ts, messages.edit_seq)"
);
const KEEP_DELETIONS: Sql = over_rows!(
    "INSERT INTO messages (room_id, id, del_ts, del_seq)
     SELECT value->>0, value->>1, CAST(value->>2 AS BIGINT), CAST(value->>3 AS BIGINT) FROM",
    "WHERE true ON CONFLICT (room_id, id) DO UPDATE SET del_ts = excluded.del_ts, del_seq = excluded.del_seq
     WHERE (excluded.del_ts, excluded.del_seq) > (messages.del_ts, messages.del_seq)"
);

macro_rules! shown {
    ($where_order:literal) => {
        concat!(
            "SELECT body, CASE WHEN (edit_ts, edit_seq) > (ts, seq) THEN edit END FROM messages
             WHERE room_id = $1 AND shown = 1 ",
            $where_order
        )
    };
}
const SHOWN_AFTER: &str = shown!("AND (ts, seq) > ($2, $3) ORDER BY ts, seq LIMIT $4");
const SHOWN_BEFORE: &str = shown!("AND (ts, seq) < ($2, $3) ORDER BY ts DESC, seq DESC LIMIT $4");
const SHOWN_NEWEST: &str = shown!("AND (ts, seq) > ($2, $3) ORDER BY ts DESC, seq DESC LIMIT $4");
const SHOWN_ONE: &str = shown!("AND id = $2");

const EVENTS_AFTER: &str =
    "SELECT body FROM events WHERE room_id = $1 AND (ts, seq) > ($2, $3) ORDER BY ts, seq LIMIT $4";
const EVENTS_BEFORE: &str =
    "SELECT body FROM events WHERE room_id = $1 AND (ts, seq) < ($2, $3) ORDER BY ts DESC, seq DESC LIMIT $4";
const EVENTS_NEWEST: &str =
    "SELECT body FROM events WHERE room_id = $1 AND (ts, seq) > ($2, $3) ORDER BY ts DESC, seq DESC LIMIT $4";

fn message(row: &Row) -> Result<String, sqlx::Error> {
    let body = row.text(0)?;
    match row.maybe_text(1)? {
        Some(edit) => fold::apply_edit(&body, &edit).map_err(|error| sqlx::Error::Decode(error.into())),
        None => Ok(body),
    }
}

impl Store {
    /// Saves events in one transaction; how many were new. Events known by (room, epoch, seq) change nothing,
    /// and events of a room that was cleared after them are dropped.
    pub async fn save_events(&self, events: &[Event<'_>]) -> Result<u64, sqlx::Error> {
        let mut link = self.write().await?;
        let cleared = cleared_rooms(&mut link, events).await?;
        let living = events.iter().filter(|event| {
            cleared
                .get(&event.room_id)
                .is_none_or(|&(gone, cleared_ts)| !gone && event.ts > cleared_ts)
        });
        // Sorted, so that two saves which overlap take their locks in the same order.
        let mut by_key: BTreeMap<_, &Event<'_>> = BTreeMap::new();
        for event in living {
            by_key
                .entry((event.room_id.as_str(), event.epoch.as_str(), event.seq))
                .or_insert(event);
        }
        if by_key.is_empty() {
            return Ok(0);
        }
        let rows = by_key.values().map(|event| {
            json!([
                event.room_id,
                event.epoch,
                event.seq,
                event.ts,
                event.kind.as_str(),
                event.id,
                event.body
            ])
        });
        let rows = serde_json::Value::from_iter(rows).to_string();
        let mut fresh = HashSet::new();
        for row in link.rows(SAVE_EVENTS, &[(&rows).into()]).await? {
            fresh.insert((row.text(0)?, row.text(1)?, row.int(2)?));
        }
        by_key.retain(|&(room, epoch, seq), _| fresh.contains(&(room.to_owned(), epoch.to_owned(), seq)));
        keep(&mut link, &by_key).await?;
        link.commit().await?;
        Ok(fresh.len() as u64)
    }

    /// A page of current messages: edits applied, deleted ones omitted, ascending.
    pub async fn messages(&self, room_id: &str, page: Page) -> Result<Vec<String>, sqlx::Error> {
        let sql = match page.order {
            Order::After => SHOWN_AFTER,
            Order::Before => SHOWN_BEFORE,
            Order::NewestAfter => SHOWN_NEWEST,
        };
        self.page(sql, room_id, page, message).await
    }

    /// A page of events as they were saved, ascending.
    pub async fn events(&self, room_id: &str, page: Page) -> Result<Vec<String>, sqlx::Error> {
        let sql = match page.order {
            Order::After => EVENTS_AFTER,
            Order::Before => EVENTS_BEFORE,
            Order::NewestAfter => EVENTS_NEWEST,
        };
        self.page(sql, room_id, page, |row| row.text(0)).await
    }

    async fn page(
        &self,
        sql: &'static str,
        room_id: &str,
        page: Page,
        read: impl Fn(&Row) -> Result<String, sqlx::Error>,
    ) -> Result<Vec<String>, sqlx::Error> {
        let args = [
            room_id.into(),
            page.position.ts.into(),
            page.position.seq.into(),
            page.limit.into(),
        ];
        let mut bodies = take_within(&mut self.read().await?, sql, &args, page.bytes, read).await?;
        if page.order != Order::After {
            bodies.reverse();
        }
        Ok(bodies)
    }

    /// The events of one epoch with `from <= seq <= to`, ascending, at most `limit`.
    pub async fn events_between(
        &self,
        room_id: &str,
        epoch: &str,
        (from, to): (i64, i64),
        limit: i64,
        bytes: usize,
    ) -> Result<Vec<String>, sqlx::Error> {
        let sql = "SELECT body FROM events WHERE room_id = $1 AND epoch = $2 AND seq BETWEEN $3 AND $4
                   ORDER BY seq LIMIT $5";
        let args = [room_id.into(), epoch.into(), from.into(), to.into(), limit.into()];
        take_within(&mut self.read().await?, sql, &args, bytes, |row| row.text(0)).await
    }

    /// One current message; none when it is unknown or deleted.
    pub async fn message(&self, room_id: &str, id: &str) -> Result<Option<String>, sqlx::Error> {
        let row = self
            .read()
            .await?
            .first(SHOWN_ONE, &[room_id.into(), id.into()])
            .await?;
        row.as_ref().map(message).transpose()
    }

    /// Where a message stands in its room, deleted or not.
    pub async fn position(&self, room_id: &str, id: &str) -> Result<Option<Position>, sqlx::Error> {
        let sql = "SELECT ts, seq FROM messages WHERE room_id = $1 AND id = $2 AND ts >= 0";
        let row = self.read().await?.first(sql, &[room_id.into(), id.into()]).await?;
        row.map(|row| {
            Ok(Position {
                ts: row.int(0)?,
                seq: row.int(1)?,
            })
        })
        .transpose()
    }
}

/// The rooms of these events that were cleared: whether they are gone for good, and up to which time.
async fn cleared_rooms(link: &mut Link, events: &[Event<'_>]) -> Result<HashMap<String, (bool, i64)>, sqlx::Error> {
    let rooms: HashSet<_> = events.iter().map(|event| event.room_id.as_str()).collect();
    let rooms = serde_json::Value::from_iter(rooms.into_iter().map(|room| json!([room]))).to_string();
    let rows = link.rows(CLEARED_ROOMS, &[(&rooms).into()]).await?;
    rows.iter()
        .map(|row| Ok((row.text(0)?, (row.int(1)? != 0, row.int(2)?))))
        .collect()
}

/// Merges new events into the messages, per id and part only the last of them: one statement may touch a row once.
async fn keep(link: &mut Link, events: &BTreeMap<(&str, &str, i64), &Event<'_>>) -> Result<(), sqlx::Error> {
    for (sql, kinds) in [
        (KEEP_MESSAGES, &[Kind::Message, Kind::Gpt][..]),
        (KEEP_EDITS, &[Kind::Edit]),
        (KEEP_DELETIONS, &[Kind::Delete]),
    ] {
        let mut last: BTreeMap<(&str, &str), &Event<'_>> = BTreeMap::new();
        for event in events.values().filter(|event| kinds.contains(&event.kind)) {
            let slot = last.entry((&event.room_id, &event.id)).or_insert(event);
            if (event.ts, event.seq) > (slot.ts, slot.seq) {
                *slot = event;
            }
        }
        if last.is_empty() {
            continue;
        }
        let rows = last.values().map(|event| {
            let text = event.edit.as_deref().unwrap_or(event.body);
            json!([event.room_id, event.id, event.ts, event.seq, text])
        });
        link.execute(sql, &[(&serde_json::Value::from_iter(rows).to_string()).into()])
            .await?;
    }
    Ok(())
}

/// Reads rows until the next one would exceed `bytes`, but at least one.
async fn take_within(
    link: &mut Link,
    sql: &'static str,
    args: &[super::db::Arg<'_>],
    bytes: usize,
    read: impl Fn(&Row) -> Result<String, sqlx::Error>,
) -> Result<Vec<String>, sqlx::Error> {
    let (mut bodies, mut total) = (Vec::new(), 0);
    link.rows_while(sql, args, |row| {
        let body = read(row)?;
        total += body.len();
        if total > bytes && !bodies.is_empty() {
            return Ok(false);
        }
        bodies.push(body);
        Ok(true)
    })
    .await?;
    Ok(bodies)
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;

    #[tokio::test]
    async fn every_page_is_read_from_an_index_without_sorting() {
        let Store::Sqlite { write, .. } = Store::open("sqlite::memory:").await.unwrap() else {
            unreachable!()
        };
        for sql in [
            SHOWN_AFTER,
            SHOWN_BEFORE,
            SHOWN_NEWEST,
            EVENTS_AFTER,
            EVENTS_BEFORE,
            EVENTS_NEWEST,
        ] {
            let explain = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
            let plan = explain
                .bind("r")
                .bind(1)
                .bind(1)
                .bind(1)
                .fetch_all(&write)
                .await
                .unwrap();
            let steps: Vec<String> = plan.iter().map(|step| step.get("detail")).collect();
            assert!(
                steps.len() == 1 && steps[0].contains("(room_id=? AND (ts,seq)"),
                "{sql}: {steps:?}"
            );
        }
    }
}
