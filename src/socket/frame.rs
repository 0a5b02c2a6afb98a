//! What is sent to a socket, as a packet for the engine and as a whole websocket frame.

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide_core::Value;
use socketioxide_core::parser::Parse as _;
use socketioxide_parser_common::CommonParser;

/// The first byte of an unmasked text frame that is not split (RFC 6455, 5.2).
const TEXT: u8 = 0x81;
/// Socket.IO's `EVENT` in Engine.IO's `message`.
const EVENT: &str = "42";
/// Socket.IO's `ACK` in Engine.IO's `message`.
const ACK: &str = "43";

/// An event or an ack, and what it carries.
pub enum Packet<'a, T: ?Sized> {
    /// An event by its name.
    Event(&'a str, &'a T),
    /// The ack that the client asked for by this number.
    Ack(i64, &'a T),
}

impl<T: Serialize + ?Sized> Packet<'_, T> {
    /// The frame that carries it; `None` when it cannot be written as JSON.
    pub fn frame(&self) -> Option<Bytes> {
        let (kind, value) = match *self {
            Self::Event(name, data) => (EVENT.to_owned(), CommonParser.encode_value(data, Some(name))),
            Self::Ack(id, data) => (format!("{ACK}{id}"), CommonParser.encode_value(data, None)),
        };
        let Ok(Value::Str(text, _)) = value else {
            tracing::error!(packet = kind, "a packet that is no JSON");
            return None;
        };
        let mut frame = Vec::new();
        push_text(&mut frame, &[&kind, text.as_str()]);
        Some(frame.into())
    }
}

/// Appends the frame of an event whose payload is JSON already; `name` needs no escapes.
pub fn push_event(frames: &mut Vec<u8>, name: &str, json: &RawValue) {
    push_text(frames, &[EVENT, "[\"", name, "\",", json.get(), "]"]);
}

/// Appends a text frame of these parts.
pub fn push_text(frames: &mut Vec<u8>, parts: &[&str]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    // The longest header.
    frames.reserve(10 + length);
    frames.push(TEXT);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => frames.push(short),
        (_, Ok(medium)) => {
            frames.push(126);
            frames.extend(medium.to_be_bytes());
        }
        _ => {
            frames.push(127);
            frames.extend((length as u64).to_be_bytes());
        }
    }
    for part in parts {
        frames.extend(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_and_acks_are_written_as_the_library_writes_them() {
        let payload = |frame: &[u8]| String::from_utf8(frame[2..].to_vec()).unwrap();
        let list = Packet::Event("a", [1, 2].as_slice()).frame().unwrap();
        assert_eq!(payload(&list), r#"42["a",[1,2]]"#);
        let two = Packet::Event("b", &(["x"].as_slice(), 2)).frame().unwrap();
        assert_eq!(payload(&two), r#"42["b",["x"],2]"#);
        let ack = Packet::Ack(7, &serde_json::json!({"ok": true})).frame().unwrap();
        assert_eq!(payload(&ack), r#"437[{"ok":true}]"#);
        let mut raw = Vec::new();
        push_event(&mut raw, "a", &serde_json::value::to_raw_value(&[1, 2]).unwrap());
        assert_eq!(raw, list);
        assert_eq!(raw[..2], [TEXT, 13]);
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        for (length, header) in [
            (125, vec![TEXT, 125]),
            (126, vec![TEXT, 126, 0, 126]),
            (65_535, vec![TEXT, 126, 255, 255]),
            (65_536, vec![TEXT, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut frame = Vec::new();
            push_text(&mut frame, &[&"x".repeat(length)]);
            assert_eq!(frame.len(), header.len() + length);
            assert_eq!(frame[..header.len()], header);
        }
    }
}
