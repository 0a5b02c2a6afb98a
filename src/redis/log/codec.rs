//! How events are written for the script that posts, and read from logs and live channels.

use std::time::Duration;

use fred::prelude::*;
use serde_json::value::RawValue;

use super::{Draft, LogPage, PostLimits, reply_id};
use crate::model::{Epoch, EventKind, Position, RoomEvent, RoomId};
use crate::redis::Keys;

/// How long a `cid` makes a resend harmless.
const IDEMPOTENCY_TTL: Duration = Duration::from_secs(15 * 60);

/// The keys and arguments of a post. Most are plain messages, whose way is the busiest of all: they have no more of them
/// than they need.
pub fn post_call(
    keys: &Keys,
    publish: &'static str,
    room: &RoomId,
    drafts: &[Draft],
    contexts: &[String],
    limits: PostLimits,
) -> (Vec<String>, Vec<Value>) {
    let partition = keys.partition(room.as_str());
    let is_plain = drafts.iter().all(Draft::is_plain);
    let mut key_names = Vec::with_capacity(10 + drafts.len());
    key_names.extend([
        keys.log(room),
        keys.meta(room),
        keys.archive(partition),
        keys.active(partition),
        keys.live(room),
        keys.archive_bytes(partition),
    ]);
    if !is_plain {
        key_names.extend([
            keys.gone(room),
            keys.gpt_outbox(partition),
            keys.gpt_parts(room),
            keys.gpt_summary(room),
        ]);
    }
    let mut args: Vec<Value> = Vec::with_capacity(7 + drafts.len() * 11);
    args.push(room.as_str().into());
    args.push(i64::from(limits.log_max_len).into());
    args.push(integer(limits.archive_max_bytes));
    args.push(millis(IDEMPOTENCY_TTL));
    args.push(publish.into());
    args.push(integer(drafts.len()));
    args.push(integer(usize::from(!is_plain)));
    let mut onces = 0;
    for (draft, context) in drafts.iter().zip(contexts) {
        args.push(draft.prefix.as_str().into());
        args.push(draft.kind.as_str().into());
        args.push(draft.user.as_str().into());
        let once = match (&draft.answers, &draft.cid) {
            (Some(answers), _) => Some(keys.gpt_end(room, &answers.question)),
            (None, Some(cid)) => Some(keys.idempotency(room, &draft.user, cid)),
            (None, None) => None,
        };
        onces += usize::from(once.is_some());
        args.push(integer(if once.is_some() { onces } else { 0 }));
        key_names.extend(once);
        args.push(format!("{:016x}", draft.hash).into());
        args.push(context.as_str().into());
        if !is_plain {
            push_further(draft, &mut args);
        }
    }
    (key_names, args)
}

/// Adds the arguments that plain messages do without.
fn push_further(draft: &Draft, args: &mut Vec<Value>) {
    args.push(draft.target.as_deref().unwrap_or_default().into());
    args.push(draft.authority.as_str().into());
    let refusal = draft.asks.as_ref().map(|told| format!("~ {told}"));
    args.push(refusal.unwrap_or_default().into());
    let (id, generation) = match &draft.answers {
        Some(answers) => (reply_id(&answers.question), answers.generation.to_string()),
        None => Default::default(),
    };
    args.push(id.into());
    args.push(generation.into());
}

pub(super) fn millis(duration: Duration) -> Value {
    integer(usize::try_from(duration.as_millis()).unwrap_or(usize::MAX))
}

pub(super) fn integer(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// Reads the answer of `read`; `None` of anything else.
pub fn read_page(answer: Vec<Value>) -> Option<LogPage> {
    let [epoch, epochs, seq, ts, floor_seq, floor_ts, deleted, more, entries] = <[Value; 9]>::try_from(answer).ok()?;
    let epochs = epochs
        .as_str()?
        .split(',')
        .filter(|item| !item.is_empty())
        .map(|item| {
            item.split_once('=')
                .and_then(|(epoch, first)| Some((Epoch::from(epoch), first.parse().ok()?)))
        })
        .collect::<Option<_>>()?;
    Some(LogPage {
        epoch: Epoch::from(&*epoch.as_str()?),
        epochs,
        top: Position {
            ts: number(&ts)?,
            seq: number(&seq)?,
        },
        floor: Position {
            ts: number(&floor_ts)?,
            seq: number(&floor_seq)?,
        },
        deleted: deleted.as_i64()? == 1,
        more: more.as_i64()? == 1,
        events: entries
            .into_array()
            .iter()
            .map(|entry| Some(read_live(&entry.as_str()?)?.0))
            .collect::<Option<_>>()?,
    })
}

/// Reads an event as it is published, and as an entry of a page, `<position> <epoch> <kind> <trace> <json>`: the event, and its
/// trace's context (`-`: none).
pub fn read_live(payload: &str) -> Option<(RoomEvent, &str)> {
    let mut parts = payload.splitn(5, ' ');
    let (position, epoch, kind, context, json) = (
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
        parts.next()?,
    );
    let event = RoomEvent {
        position: position.parse().ok()?,
        epoch: Epoch::from(epoch),
        kind: EventKind::parse(kind)?,
        json: RawValue::from_string(json.to_owned()).ok()?,
    };
    Some((event, context))
}
