//! `/api/messages/*`.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::BackendError;
use super::input::{Body, Path, Query, Time, check_count, check_id, check_name, optional_millis, parse};
use super::store::{Event, Kind, Order, Page, Position};
use super::{Backend, fold};

/// Objects in a page when the caller does not say.
const DEFAULT_LIMIT: i64 = 50;
/// Most objects in a page, and most messages of a room in a sync.
const MAX_LIMIT: i64 = 1000;
/// Most rooms in a sync.
const MAX_ROOMS: usize = 1000;
/// Most events in a save.
const MAX_EVENTS: usize = 1000;
/// Largest event; a node accepts payloads of 64 KiB and adds its own fields.
const MAX_EVENT_BYTES: usize = 256 * 1024;
/// A page ends early rather than exceed this.
const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Most JSON of one room in a sync; clients are promised no more.
const SYNC_ROOM_BYTES: usize = 1024 * 1024;
/// Most JSON in a sync: with many rooms each gets its share of it.
const SYNC_BYTES: usize = 64 * 1024 * 1024;

/// Stored JSON objects as an array, copied as they are.
struct JsonArray(Vec<String>);

impl IntoResponse for JsonArray {
    fn into_response(self) -> Response {
        json_text(format!("[{}]", self.0.join(",")))
    }
}

fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

#[derive(Deserialize)]
pub struct Selection {
    timestamp: Option<Time>,
    seq: Option<i64>,
    oldmessage: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    limit: Option<i64>,
    raw: Option<String>,
    epoch: Option<String>,
    from: Option<i64>,
    to: Option<i64>,
}

pub async fn list(
    State(backend): State<Backend>,
    Path(room_id): Path<String>,
    Query(selection): Query<Selection>,
) -> Result<Response, BackendError> {
    check_id(&room_id, "roomId")?;
    let limit = selection.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(BackendError::bad("limit", format!("expected 1 to {MAX_LIMIT}")));
    }
    let raw = match selection.raw.as_deref() {
        None | Some("" | "0" | "false") => false,
        Some("1" | "true") => true,
        Some(_) => return Err(BackendError::bad("raw", "expected 1 or 0")),
    };
    let order = match selection.kind.as_deref() {
        Some("gap") => return gap(&backend, &room_id, &selection).await,
        Some("new") => Order::After,
        Some("old") => Order::Before,
        // Raw events are read onwards from a position, messages backwards from the newest.
        None | Some("") => {
            if raw {
                Order::After
            } else {
                Order::Before
            }
        }
        Some(_) => return Err(BackendError::bad("type", "expected new, old or gap")),
    };
    let position = backend.position(&room_id, &selection, order).await?;
    let page = Page {
        order,
        position,
        limit,
        bytes: PAGE_BYTES,
    };
    let objects = if raw {
        backend.store().events(&room_id, page).await?
    } else {
        backend.store().messages(&room_id, page).await?
    };
    Ok(JsonArray(objects).into_response())
}

async fn gap(backend: &Backend, room_id: &str, selection: &Selection) -> Result<Response, BackendError> {
    let epoch = selection
        .epoch
        .as_deref()
        .ok_or_else(|| BackendError::bad("epoch", "required with type=gap"))?;
    check_id(epoch, "epoch")?;
    let from = selection
        .from
        .ok_or_else(|| BackendError::bad("from", "required with type=gap"))?;
    let to = selection
        .to
        .ok_or_else(|| BackendError::bad("to", "required with type=gap"))?;
    if from > to {
        return Err(BackendError::bad("from", "must not exceed `to`"));
    }
    // A hole is asked for by its ends, so the page size does not shorten it unless the caller says so.
    let limit = selection.limit.unwrap_or(MAX_LIMIT);
    let events = backend
        .store()
        .events_between(room_id, epoch, (from, to), limit, PAGE_BYTES)
        .await?;
    Ok(JsonArray(events).into_response())
}

impl Backend {
    /// Where a page begins: the message named, else the time given, else the end the order starts from.
    async fn position(&self, room_id: &str, selection: &Selection, order: Order) -> Result<Position, BackendError> {
        let time = optional_millis(selection.timestamp.as_ref(), "timestamp")?;
        if let Some(id) = selection.oldmessage.as_deref().filter(|id| !id.is_empty()) {
            check_id(id, "oldmessage")?;
            match self.store().position(room_id, id).await? {
                Some(position) => return Ok(position),
                None if time.is_none() => return Err(BackendError::NotFound { what: "oldmessage" }),
                None => {}
            }
        }
        Ok(match (time, selection.seq, order) {
            (Some(ts), Some(seq), _) => Position { ts, seq },
            // Strictly older or newer than a time leaves out everything of that very millisecond.
            (Some(ts), None, Order::Before) => Position { ts, seq: i64::MIN },
            (Some(ts), None, _) => Position { ts, seq: i64::MAX },
            (None, Some(_), _) => return Err(BackendError::bad("seq", "needs a timestamp")),
            (None, None, Order::Before) => Position::END,
            (None, None, _) => Position::START,
        })
    }
}

pub async fn get(
    State(backend): State<Backend>,
    Path((room_id, id)): Path<(String, String)>,
) -> Result<Response, BackendError> {
    check_id(&room_id, "roomId")?;
    check_id(&id, "id")?;
    let message = backend.store().message(&room_id, &id).await?;
    message.map(json_text).ok_or(BackendError::NotFound { what: "message" })
}

#[derive(Deserialize)]
pub struct SyncRooms {
    username: String,
    rooms: Vec<SyncRoom>,
}

#[derive(Deserialize)]
pub struct SyncRoom {
    #[serde(rename = "roomId", alias = "roomID")]
    room_id: String,
    timestamp: Option<Time>,
}

pub async fn sync(State(backend): State<Backend>, Body(sync): Body<SyncRooms>) -> Result<Response, BackendError> {
    check_name(&sync.username, "username")?;
    check_count(sync.rooms.len(), MAX_ROOMS, "rooms")?;
    let mut wanted = Vec::with_capacity(sync.rooms.len());
    for (index, room) in sync.rooms.iter().enumerate() {
        check_id(&room.room_id, &format!("rooms[{index}].roomId"))?;
        let since = optional_millis(room.timestamp.as_ref(), &format!("rooms[{index}].timestamp"))?;
        wanted.push((&room.room_id, since));
    }
    let account = backend
        .store()
        .account_by_name(&sync.username)
        .await?
        .ok_or(BackendError::UnknownUser)?;
    let bytes = SYNC_ROOM_BYTES.min(SYNC_BYTES / wanted.len().max(1));
    let mut answer = String::from("[");
    for (room_id, since) in wanted {
        let messages = if backend.store().is_member(room_id, &account.platformid).await? {
            let position = since.map_or(Position::START, |ts| Position { ts, seq: i64::MAX });
            let page = Page {
                order: Order::NewestAfter,
                position,
                limit: MAX_LIMIT,
                bytes,
            };
            backend.store().messages(room_id, page).await?
        } else {
            Vec::new()
        };
        if answer.len() > 1 {
            answer.push(',');
        }
        let room_id = Value::from(room_id.as_str());
        answer.push_str(&format!(
            r#"{{"roomId":{room_id},"messages":[{}]}}"#,
            messages.join(",")
        ));
    }
    answer.push(']');
    Ok(json_text(answer))
}

#[derive(Deserialize)]
pub struct SaveMessages {
    events: Vec<Box<RawValue>>,
}

/// The fields of an event the archive looks at.
#[derive(Deserialize)]
struct EventFields<'a> {
    #[serde(rename = "roomID", alias = "roomId")]
    room_id: String,
    id: String,
    epoch: String,
    seq: i64,
    ts: Option<i64>,
    timestamp: Option<Time>,
    kind: Kind,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    rev: Option<i64>,
}

pub async fn save(State(backend): State<Backend>, Body(save): Body<SaveMessages>) -> Result<Json<Value>, BackendError> {
    check_count(save.events.len(), MAX_EVENTS, "events")?;
    let events = save
        .events
        .iter()
        .enumerate()
        .map(|(index, body)| event(body.get(), &format!("events[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let saved = backend.store().save_events(&events).await?;
    // Known already, or of a room that is gone.
    let skipped = events.len() as u64 - saved;
    Ok(Json(json!({ "saved": saved, "skipped": skipped })))
}

fn event<'a>(body: &'a str, at: &str) -> Result<Event<'a>, BackendError> {
    if body.len() > MAX_EVENT_BYTES {
        return Err(BackendError::TooLarge {
            field: at.to_owned(),
            limit: format!("{MAX_EVENT_BYTES} bytes"),
        });
    }
    let fields: EventFields<'_> = parse(body, at)?;
    check_id(&fields.room_id, &format!("{at}.roomID"))?;
    check_id(&fields.id, &format!("{at}.id"))?;
    check_id(&fields.epoch, &format!("{at}.epoch"))?;
    let ts = match fields.ts {
        Some(ts) => Some(ts),
        None => optional_millis(fields.timestamp.as_ref(), &format!("{at}.timestamp"))?,
    };
    let ts = ts.ok_or_else(|| BackendError::bad(format!("{at}.ts"), "required"))?;
    for (value, name) in [(ts, "ts"), (fields.seq, "seq")] {
        if value < 0 {
            return Err(BackendError::bad(format!("{at}.{name}"), "must not be negative"));
        }
    }
    let edit = match (fields.kind, fields.message) {
        (Kind::Edit, Some(message)) => Some(fold::edit_fields(message, fields.rev.unwrap_or(fields.seq))),
        (Kind::Edit, None) => return Err(BackendError::bad(format!("{at}.message"), "required in an edit")),
        _ => None,
    };
    Ok(Event {
        room_id: fields.room_id,
        epoch: fields.epoch,
        seq: fields.seq,
        ts,
        kind: fields.kind,
        id: fields.id,
        body,
        edit,
    })
}
