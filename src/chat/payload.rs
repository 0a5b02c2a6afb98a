//! Hostile JSON becomes a checked object whose fields can be passed on verbatim.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use time::format_description::well_known::Iso8601;

use super::ChatError;
use crate::model::{Cursor, Epoch, Position, RoomId, Seq, UnixMs};

/// Fields of one object; more is no message but an attack on whoever walks them.
const MAX_FIELDS: usize = 128;
/// Nesting that every JSON parser in use accepts.
const MAX_DEPTH: usize = 64;
/// Times and sequence numbers stay below what a double (JavaScript, Lua) holds exactly.
const MAX_NUMBER: u64 = 9_000_000_000_000_000;
/// Characters of a `cid`.
const MAX_CID: usize = 64;

/// Names the server writes; a client's fields of these names are removed.
const RESERVED: &[&str] = &[
    "id",
    "roomID",
    "platformid",
    "username",
    "message",
    "timestamp",
    "ts",
    "seq",
    "epoch",
    "kind",
    "cid",
    "rev",
    "gpt",
    "clientTimestamp",
];

/// The object a client sent, its values still in the client's own text.
#[derive(Debug)]
pub struct Payload<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Payload<'a> {
    /// Reads an object; its nesting and escapes are checked, so that its values can be passed on verbatim.
    pub fn parse(raw: &'a RawValue) -> Result<Self, ChatError> {
        check_passable(raw.get())?;
        let payload: Self = serde_json::from_str(raw.get()).map_err(|_| bad("the payload must be an object"))?;
        if payload.fields.len() > MAX_FIELDS {
            return Err(ChatError::TooLarge(format!("at most {MAX_FIELDS} fields")));
        }
        Ok(payload)
    }

    /// The value of a field; of a repeated field the last, as every JSON parser in use has it. `null` is absent.
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.fields
            .iter()
            .rev()
            .find(|(field, _)| field == name)
            .map(|(_, value)| *value)
            .filter(|value| value.get() != "null")
    }

    /// A text field.
    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, ChatError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        Ok(Some(
            read_text(raw).ok_or_else(|| bad(format!("`{name}` must be a string")))?,
        ))
    }

    /// A text field that must be there.
    pub fn required_text(&self, name: &str) -> Result<Cow<'a, str>, ChatError> {
        self.text(name)?.ok_or_else(|| bad(format!("`{name}` is missing")))
    }

    /// An id that must be there, a string or (old clients) a number.
    pub fn id_text(&self, name: &str) -> Result<Cow<'a, str>, ChatError> {
        let raw = self.raw(name).ok_or_else(|| bad(format!("`{name}` is missing")))?;
        read_id(raw).ok_or_else(|| bad(format!("`{name}` must be a string")))
    }

    /// A room that must be named.
    pub fn room(&self, name: &str) -> Result<RoomId, ChatError> {
        RoomId::new(&self.id_text(name)?).map_err(|error| bad(format!("`{name}` {error}")))
    }

    /// A flag; absent is `false`.
    pub fn flag(&self, name: &str) -> Result<bool, ChatError> {
        match self.raw(name).map(RawValue::get) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("`{name}` must be true or false"))),
        }
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, ChatError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str::<u64>(raw.get()) {
            Ok(number) if number < MAX_NUMBER => Ok(Some(number)),
            _ => Err(bad(format!("`{name}` must be a whole number"))),
        }
    }

    /// The client's id of a message.
    pub fn cid(&self) -> Result<Option<String>, ChatError> {
        let Some(cid) = self.text("cid")? else { return Ok(None) };
        let length = cid.chars().count();
        if length == 0 || length > MAX_CID || cid.chars().any(|c| c.is_control() || c == '{' || c == '}') {
            return Err(bad(format!(
                "`cid` must have 1 to {MAX_CID} characters, without braces or control characters"
            )));
        }
        Ok(Some(cid.into_owned()))
    }

    /// A cursor in any form of the contract: ms, numeric text, ISO 8601, a message id or a message.
    pub fn cursor(&self, name: &str) -> Result<Option<Cursor>, ChatError> {
        self.raw(name)
            .map(|raw| read_cursor(raw).ok_or_else(|| bad(format!("`{name}` is no time and no message"))))
            .transpose()
    }

    /// The position of a protocol-2 client: `{epoch, seq, ts?}` in this object.
    pub fn event_cursor(&self) -> Result<Option<Cursor>, ChatError> {
        let (Some(epoch), Some(seq)) = (self.text("epoch")?, self.number("seq")?) else {
            return Ok(None);
        };
        Ok(Some(Cursor::Event {
            epoch: Epoch::from(&*epoch),
            seq: seq as Seq,
            ts: self.number("ts")?,
        }))
    }

    /// Writes the client's own fields into `out`, each with a leading comma unless `out` ends with the opening brace.
    pub fn write_own_fields(&self, out: &mut String) {
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let repeated = self.fields[index + 1..].iter().any(|(later, _)| later == name);
            if RESERVED.contains(&name.as_ref()) || repeated {
                continue;
            }
            write_field(out, name, value.get());
        }
        if let Some(timestamp) = self.raw("timestamp") {
            write_field(out, "clientTimestamp", timestamp.get());
        }
    }
}

impl Payload<'_> {
    /// Writes this message object with the text and the own fields of `edit`, and without `rev`.
    pub fn write_edited(&self, edit: &Payload<'_>, out: &mut String) {
        let by_edit = |name: &str| (name == "message" || !RESERVED.contains(&name)) && edit.raw(name).is_some();
        for (name, value) in &self.fields {
            if name != "rev" && !by_edit(name) {
                write_field(out, name, value.get());
            }
        }
        for (name, value) in &edit.fields {
            if by_edit(name) {
                write_field(out, name, value.get());
            }
        }
    }
}

/// Appends `"name":value`; `value` is JSON already.
pub fn write_field(out: &mut String, name: &str, value: &str) {
    write_name(out, name);
    out.push_str(value);
}

/// Appends `"name":"value"` with the text escaped.
pub fn write_text(out: &mut String, name: &str, value: &str) {
    write_name(out, name);
    write_string(out, value);
}

fn write_name(out: &mut String, name: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    write_string(out, name);
    out.push(':');
}

/// Appends a JSON string; most texts have nothing to escape.
fn write_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        return out.push_str(&serde_json::Value::from(text).to_string());
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// A JSON string.
pub fn read_text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// A JSON string, or the text of a number.
pub fn read_id(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        Some(Cow::Borrowed(text))
    } else {
        read_text(raw)
    }
}

fn bad(message: impl Into<String>) -> ChatError {
    ChatError::BadPayload(message.into())
}

/// Refuses JSON that other parsers on the way (services, clients) may refuse: deep nesting, broken surrogates and numbers
/// that no double holds.
fn check_passable(text: &str) -> Result<(), ChatError> {
    let openings = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if openings > MAX_DEPTH && depth(text) > MAX_DEPTH {
        return Err(bad(format!("nested deeper than {MAX_DEPTH} levels")));
    }
    // Only escapes can write half a surrogate pair, and only long or exponential numbers are too large; a full parse finds
    // both.
    if (text.contains("\\u") || may_overflow(text)) && serde_json::from_str::<serde_json::Value>(text).is_err() {
        return Err(bad("broken \\u escape, or a number out of range"));
    }
    Ok(())
}

/// Whether something in the text looks like a number with an exponent, or has more digits than a double's range (309).
fn may_overflow(text: &str) -> bool {
    let mut digits = 0;
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' => digits += 1,
            b'e' | b'E' if digits > 0 => return true,
            _ => digits = 0,
        }
        if digits > 300 {
            return true;
        }
    }
    false
}

/// The depth of syntactically valid JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn read_cursor(raw: &RawValue) -> Option<Cursor> {
    let text = raw.get();
    if text.starts_with('{') {
        return message_cursor(raw);
    }
    if text.starts_with('"') {
        return text_cursor(&read_text(raw)?);
    }
    let number: f64 = text.parse().ok()?;
    (0.0..MAX_NUMBER as f64)
        .contains(&number)
        .then_some(Cursor::Time(number as UnixMs))
}

/// A message object stands for its place: by id where it is one of ours, else by time.
fn message_cursor(raw: &RawValue) -> Option<Cursor> {
    let message = Payload::parse(raw).ok()?;
    if let Some(seq) = message.number("seq").ok()?
        && let Some(ts) = message.number("ts").ok()?
    {
        return Some(Cursor::Message(Position { ts, seq }.to_string()));
    }
    if let Some(Cursor::Time(ts)) = message.raw("timestamp").and_then(read_cursor) {
        return Some(Cursor::Time(ts));
    }
    message
        .raw("id")
        .or_else(|| message.raw("_id"))
        .and_then(read_id)
        .map(|id| Cursor::Message(id.into_owned()))
}

fn text_cursor(text: &str) -> Option<Cursor> {
    let text = text.trim();
    if text.is_empty() || text.len() > 256 {
        return None;
    }
    if let Ok(ts) = text.parse::<u64>() {
        return (ts < MAX_NUMBER).then_some(Cursor::Time(ts));
    }
    if text.contains('T')
        && let Ok(at) = time::OffsetDateTime::parse(text, &Iso8601::DEFAULT)
    {
        return u64::try_from(at.unix_timestamp_nanos() / 1_000_000)
            .ok()
            .map(Cursor::Time);
    }
    if let Ok(day) = time::Date::parse(text, &Iso8601::DATE) {
        return u64::try_from(day.midnight().assume_utc().unix_timestamp() * 1000)
            .ok()
            .map(Cursor::Time);
    }
    Some(Cursor::Message(text.to_owned()))
}

impl<'de> Deserialize<'de> for Payload<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Payload<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                #[derive(Deserialize)]
                #[serde(transparent)]
                struct Name<'n>(#[serde(borrow)] Cow<'n, str>);
                let mut fields = Vec::new();
                while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                    fields.push((name, map.next_value()?));
                }
                Ok(Payload { fields })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn reserved_names_are_removed_and_the_rest_passes_verbatim() {
        let raw = raw(r#"{"a":1.50,"\u0069d":"x","seq":9,"timestamp":"mine","b":{"id":1},"a":2,"__proto__":3}"#);
        let mut out = String::from("{");
        Payload::parse(&raw).unwrap().write_own_fields(&mut out);
        assert_eq!(out, r#"{"b":{"id":1},"a":2,"__proto__":3,"clientTimestamp":"mine""#);
    }

    #[test]
    fn what_other_parsers_would_refuse_is_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(matches!(Payload::parse(&raw(&deep)), Err(ChatError::BadPayload(_))));
        assert!(Payload::parse(&raw(r#"{"a":"\ud800"}"#)).is_err());
        assert!(Payload::parse(&raw(r#"{"a":"\ud83d\ude00"}"#)).is_ok());
        assert!(Payload::parse(&raw(r#"{"a":1.5e400}"#)).is_err());
        assert!(Payload::parse(&raw(&format!("{{\"a\":{}}}", "9".repeat(400)))).is_err());
        assert!(Payload::parse(&raw(r#"{"a":1e30,"b":"1e400"}"#)).is_ok());
        assert!(Payload::parse(&raw("[1]")).is_err());
        let wide = format!(
            "{{{}}}",
            (0..200).map(|n| format!("\"f{n}\":0")).collect::<Vec<_>>().join(",")
        );
        assert!(matches!(Payload::parse(&raw(&wide)), Err(ChatError::TooLarge(_))));
        assert_eq!(depth(r#"{"a":"[[[[\"[["}"#), 1);
    }

    #[test]
    fn cursors_have_many_forms() {
        let cursor = |text: &str| read_cursor(&raw(text));
        assert_eq!(cursor("1764000000000"), Some(Cursor::Time(1_764_000_000_000)));
        assert_eq!(cursor("\"1764000000000\""), Some(Cursor::Time(1_764_000_000_000)));
        assert_eq!(
            cursor("\"2025-11-24T16:00:00.500Z\""),
            Some(Cursor::Time(1_764_000_000_500))
        );
        assert_eq!(
            cursor("\"2025-11-24T17:00:00+01:00\""),
            Some(Cursor::Time(1_764_000_000_000))
        );
        assert_eq!(
            cursor("\"1764000000000-7\""),
            Some(Cursor::Message("1764000000000-7".into()))
        );
        assert_eq!(
            cursor(r#"{"id":"x","ts":5,"seq":2,"timestamp":5}"#),
            Some(Cursor::Message("5-2".into()))
        );
        assert_eq!(
            cursor(r#"{"id":"x","timestamp":"2025-11-24T16:00:00Z"}"#),
            Some(Cursor::Time(1_764_000_000_000))
        );
        assert_eq!(cursor("true"), None);
        assert_eq!(cursor("-1"), None);
    }
}
