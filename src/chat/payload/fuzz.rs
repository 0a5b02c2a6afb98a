//! Whatever object a client sends: what is accepted passes on whole, and reads as every other parser reads it.

use serde_json::Value;

use super::*;
use crate::fuzz::{Damaged, Object};

fn nesting(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(nesting).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(nesting).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn accepted_fields_pass_on_verbatim_and_once_and_reserved_ones_never() {
    bolero::check!().with_type::<Object>().for_each(|Object(text)| {
        let Ok(raw) = RawValue::from_string(text.clone()) else {
            return;
        };
        let Ok(payload) = Payload::parse(&raw) else { return };
        let mut out = String::from("{");
        payload.write_own_fields(&mut out);
        out.push('}');
        let written: Payload<'_> = serde_json::from_str(&out).unwrap();
        let last = |payload: &Payload<'_>, name: &str| {
            let found = payload.fields.iter().rev().find(|(field, _)| field == name);
            found.map(|(_, value)| value.get().to_owned())
        };
        for (index, (name, value)) in written.fields.iter().enumerate() {
            assert!(
                written.fields[..index].iter().all(|(before, _)| before != name),
                "{name} twice: {out}"
            );
            let sent_as = if name == "clientTimestamp" { "timestamp" } else { name };
            assert!(sent_as != name || !RESERVED.contains(&sent_as), "{name}: {out}");
            assert_eq!(last(&payload, sent_as).as_deref(), Some(value.get()), "{name}");
        }
        for (name, _) in &payload.fields {
            assert!(
                RESERVED.contains(&&**name) || last(&written, name).is_some(),
                "{name} is gone: {out}"
            );
        }
    });
}

#[test]
fn readers_agree_with_a_full_parse() {
    bolero::check!().with_type::<Object>().for_each(|Object(text)| {
        let Ok(raw) = RawValue::from_string(text.clone()) else {
            return;
        };
        let Ok(payload) = Payload::parse(&raw) else { return };
        let value: Value = serde_json::from_str(text).expect("what is accepted, every parser takes");
        assert!(nesting(&value) <= MAX_DEPTH, "{text}");
        for (name, value) in value.as_object().unwrap() {
            if let Ok(text) = payload.text(name) {
                assert_eq!(text.as_deref(), value.as_str(), "{name}");
            }
            if let Ok(number) = payload.number(name) {
                assert_eq!(number, value.as_u64(), "{name}");
            }
            if let Ok(flag) = payload.flag(name) {
                assert_eq!(flag, value.as_bool().unwrap_or(false), "{name}");
            }
            if let Ok(room) = payload.room(name) {
                assert!(
                    value.is_string() && value.as_str() == Some(room.as_str()) || value.is_number(),
                    "{name}"
                );
            }
            match payload.cursor(name) {
                Ok(Some(Cursor::Time(at))) => assert!(at < MAX_NUMBER, "{name}: {value}"),
                Ok(None) => assert!(value.is_null(), "{name}"),
                _ => {}
            }
        }
        if let Ok(Some(cid)) = payload.cid() {
            assert!(
                (1..=MAX_CID).contains(&cid.chars().count()) && !cid.contains(['{', '}']),
                "{cid:?}"
            );
        }
        let _checked = payload.event_cursor();
    });
}

#[test]
fn text_that_is_no_json_does_no_harm() {
    bolero::check!().with_type::<Damaged>().for_each(|Damaged(text)| {
        let Ok(raw) = RawValue::from_string(text.clone()) else {
            return;
        };
        if Payload::parse(&raw).is_ok() {
            assert!(serde_json::from_str::<Value>(text).unwrap().is_object());
        }
        let _one_of_many = read_cursor(&raw);
    });
}
