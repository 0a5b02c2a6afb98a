//! Whatever packet a client sends: it is split as it was put together, and every event's payload is read or refused.

use socketioxide_core::Str;

use super::*;
use crate::chat::SYNC_MAX_ROOMS;
use crate::fuzz::{Damaged, Object, pick};

fn packet(text: String) -> Value {
    Value::Str(Str::from(text), None)
}

fn event(packet: Value) -> Event {
    let incoming = Incoming {
        packet,
        ack_id: None,
        at: std::time::Instant::now(),
    };
    Event::new(incoming, 0)
}

#[test]
fn packets_are_split_as_they_were_put_together() {
    bolero::check!()
        .with_type::<(String, Object, u8)>()
        .for_each(|(random, Object(payload), which)| {
            let name = match NAMES.get(usize::from(*which)) {
                Some(name) => *name,
                None => random,
            };
            let quoted = serde_json::Value::from(name).to_string();
            let whole = packet(format!("[{quoted},{payload}]"));
            let (split_name, argument) = split(&whole).unwrap();
            assert_eq!((&*split_name, argument.unwrap().get()), (name, payload.as_str()));
            assert_eq!(is_message(&whole), name == "message");
            let known = NAMES.contains(&name);
            let event = event(whole);
            assert_eq!(event.reply.event, if known { name } else { "unknown" });
            let raw = RawValue::from_string(payload.clone()).unwrap();
            assert_eq!(event.payload().is_ok(), Payload::parse(&raw).is_ok());
        });
}

#[test]
fn damaged_packets_are_refused_or_read_but_do_no_harm() {
    let heads = ["[\"message\",", "[\"join\",", "[", "", "[[],", "[\"message\"", "[null,"];
    bolero::check!()
        .with_type::<(u8, Damaged)>()
        .for_each(|(head, Damaged(text))| {
            let head = heads[usize::from(*head) % heads.len()];
            let packet = packet(format!("{head}{text}]"));
            let (name, is_message) = (split(&packet).map(|(name, _)| name.into_owned()), is_message(&packet));
            // A packet that is stored with its neighbours is either a message or refused as none.
            assert!(
                !is_message || name.is_none() || name.as_deref() == Some("message"),
                "{name:?}"
            );
            let _refused = event(packet).payload();
        });
}

/// A `syncRooms` payload with as many rooms as are allowed, or a few more or less.
#[derive(Debug, Clone)]
struct Rooms(String);

impl bolero::TypeGenerator for Rooms {
    fn generate<D: bolero::Driver>(driver: &mut D) -> Option<Self> {
        let number = *pick(&[0, 1, 2, 3, 4, SYNC_MAX_ROOMS, SYNC_MAX_ROOMS + 1], driver)?;
        let Object(entry) = driver.produce()?;
        let mut rooms = Vec::new();
        for index in 0..number {
            rooms.push(match driver.produce::<u8>()? {
                0 => entry.clone(),
                1..128 => format!("{{\"roomId\":\"room-{}\"}}", index % 3),
                _ => format!("{{\"roomId\":\"room-{index}\",\"timestamp\":{index}}}"),
            });
        }
        Some(Self(format!("{{\"rooms\":[{}]}}", rooms.join(","))))
    }
}

#[test]
fn a_room_named_twice_is_synced_once_and_never_more_than_allowed() {
    bolero::check!().with_type::<Rooms>().for_each(|Rooms(text)| {
        let raw = RawValue::from_string(text.clone()).unwrap();
        let Ok(requests) = Payload::parse(&raw).and_then(|payload| sync::requests(&payload)) else {
            return;
        };
        let rooms: std::collections::HashSet<_> = requests.iter().map(|request| &request.room).collect();
        assert_eq!(rooms.len(), requests.len());
        assert!(requests.len() <= SYNC_MAX_ROOMS);
    });
}
