//! Events become the messages that legacy clients show: edits applied, deleted ones left out.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::payload::{Payload, write_field};
use crate::model::{Epoch, EventKind, RoomEvent};

/// The messages of a span of a room's history.
#[derive(Debug, Default)]
pub struct Folded {
    /// Message objects, ascending.
    pub messages: Vec<Message>,
    /// Edits and deletions of messages outside the span.
    pub changes: Vec<RoomEvent>,
}

/// One message object and its place.
#[derive(Debug)]
pub struct Message {
    /// Server time and number; a message of before has number 0.
    pub place: (u64, u64),
    /// The message object.
    pub json: Box<RawValue>,
    /// Whether the archive has it, the log's version of it included.
    pub archived: bool,
}

impl Message {
    /// Whether it was written in this epoch.
    pub fn is_of(&self, epoch: &Epoch) -> bool {
        #[derive(Deserialize)]
        struct Written<'a> {
            #[serde(borrow)]
            epoch: Cow<'a, str>,
        }
        serde_json::from_str::<Written>(self.json.get()).is_ok_and(|written| written.epoch == epoch.as_str())
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    ts: Option<u64>,
    seq: Option<u64>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
}

/// Folds `events` (ascending) over what the archive already holds, which is folded itself and may overlap.
pub fn fold(archived: Vec<Box<RawValue>>, events: Vec<RoomEvent>) -> Folded {
    let mut slots: Vec<Option<Message>> = Vec::with_capacity(archived.len() + events.len());
    let mut by_id: HashMap<String, usize> = HashMap::new();
    let mut changes = Vec::new();
    for json in archived {
        let Some((id, place)) = identify(&json) else { continue };
        insert(
            &mut slots,
            &mut by_id,
            id,
            Message {
                place,
                json,
                archived: true,
            },
        );
    }
    for event in events {
        let Some((id, _)) = identify(&event.json) else { continue };
        match event.kind {
            EventKind::Message | EventKind::Gpt => {
                let place = (event.position.ts, event.position.seq);
                insert(
                    &mut slots,
                    &mut by_id,
                    id,
                    Message {
                        place,
                        json: event.json,
                        archived: false,
                    },
                );
            }
            EventKind::Edit => match by_id.get(&id).map(|slot| &mut slots[*slot]) {
                Some(Some(message)) => {
                    if let Some(json) = apply_edit(&message.json, &event.json) {
                        message.json = json;
                    }
                }
                // An edit of a message deleted in the span: nothing is shown of either.
                Some(None) => {}
                None => changes.push(event),
            },
            EventKind::Delete => match by_id.get(&id) {
                Some(slot) => slots[*slot] = None,
                None => changes.push(event),
            },
        }
    }
    let mut messages: Vec<Message> = slots.into_iter().flatten().collect();
    messages.sort_by_key(|message| message.place);
    Folded { messages, changes }
}

fn insert(slots: &mut Vec<Option<Message>>, by_id: &mut HashMap<String, usize>, id: String, mut message: Message) {
    match by_id.get(&id).map(|slot| &mut slots[*slot]) {
        Some(slot) => {
            message.archived |= slot.as_ref().is_some_and(|known| known.archived);
            *slot = Some(message);
        }
        None => {
            by_id.insert(id, slots.len());
            slots.push(Some(message));
        }
    }
}

/// The id and the place of a message object; archives of before know neither `ts` nor `seq`.
fn identify(json: &RawValue) -> Option<(String, (u64, u64))> {
    let head: Head<'_> = serde_json::from_str(json.get()).ok()?;
    let ts = head.ts.or_else(|| head.timestamp?.get().parse().ok()).or_else(|| {
        let payload = Payload::parse(json).ok()?;
        match payload.cursor("timestamp").ok()?? {
            crate::model::Cursor::Time(ts) => Some(ts),
            _ => None,
        }
    })?;
    let id = head.id.map_or_else(|| format!("at:{ts}"), Cow::into_owned);
    Some((id, (ts, head.seq.unwrap_or(0))))
}

/// The message with the edit's text and own fields; place and author stay the message's.
fn apply_edit(message: &RawValue, edit: &RawValue) -> Option<Box<RawValue>> {
    let edit = Payload::parse(edit).ok()?;
    let message = Payload::parse(message).ok()?;
    let mut out = String::from("{");
    message.write_edited(&edit, &mut out);
    if let Some(rev) = edit.raw("rev") {
        write_field(&mut out, "rev", rev.get());
    }
    out.push('}');
    RawValue::from_string(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Position;

    fn event(seq: u64, kind: EventKind, id: &str, text: &str) -> RoomEvent {
        let json = format!(
            r#"{{"own":{seq},"message":"{text}","kind":"{}","id":"{id}","timestamp":{seq}0,"ts":{seq}0,"seq":{seq},"epoch":"e"{}}}"#,
            kind.as_str(),
            if kind == EventKind::Edit {
                format!(",\"rev\":{seq}")
            } else {
                String::new()
            }
        );
        RoomEvent {
            position: Position { ts: seq * 10, seq },
            epoch: Epoch::from("e"),
            kind,
            json: RawValue::from_string(json).unwrap(),
        }
    }

    #[test]
    fn edits_are_applied_and_deleted_messages_are_left_out() {
        let folded = fold(
            vec![
                RawValue::from_string(
                    r#"{"id":"old","timestamp":"1970-01-01T00:00:00.001Z","message":"before"}"#.into(),
                )
                .unwrap(),
            ],
            vec![
                event(1, EventKind::Message, "10-1", "one"),
                event(2, EventKind::Message, "20-2", "two"),
                event(3, EventKind::Edit, "10-1", "uno"),
                event(4, EventKind::Delete, "20-2", ""),
                event(5, EventKind::Edit, "elsewhere", "x"),
                event(6, EventKind::Edit, "20-2", "never"),
            ],
        );
        let shown: Vec<serde_json::Value> = folded
            .messages
            .iter()
            .map(|m| serde_json::from_str(m.json.get()).unwrap())
            .collect();
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0]["message"], "before");
        assert_eq!(shown[1]["message"], "uno");
        assert_eq!(shown[1]["seq"], 1);
        assert_eq!(shown[1]["rev"], 3);
        assert_eq!(shown[1]["own"], 3);
        assert_eq!(shown[1]["kind"], "message");
        assert_eq!(folded.changes.len(), 1);
        assert_eq!(folded.changes[0].position.seq, 5);
    }

    #[test]
    fn the_archive_and_the_log_may_overlap() {
        let archived = vec![
            event(1, EventKind::Message, "10-1", "one").json,
            event(2, EventKind::Message, "20-2", "two").json,
        ];
        let folded = fold(
            archived,
            vec![
                event(2, EventKind::Message, "20-2", "two"),
                event(3, EventKind::Message, "30-3", "three"),
            ],
        );
        assert_eq!(folded.messages.iter().map(|m| m.place.1).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
