//! What is looked at in the keys themselves: copies of them, their lives, and the JSON in them.

use std::fmt;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::wire::{Answer, Wire};

/// A key as `DUMP` has it, with its life in ms (0 = for ever).
pub type Key = (Vec<u8>, String, Answer);

async fn keys(wire: &mut Wire) -> Vec<Vec<u8>> {
    let names = wire.call(&["KEYS", "*"]).await.list();
    names.into_iter().map(|name| name.text().into_bytes()).collect()
}

/// A copy of every key.
pub async fn dump(wire: &mut Wire) -> Vec<Key> {
    let mut copies = Vec::new();
    for key in keys(wire).await {
        copies.push(dump_key(wire, &key).await);
    }
    copies
}

/// A copy of one key, which may be absent.
pub async fn dump_key(wire: &mut Wire, key: &[u8]) -> Key {
    let ttl = wire.ask(&[b"PTTL", key]).await.text().parse::<i64>().unwrap().max(0);
    (key.to_vec(), ttl.to_string(), wire.ask(&[b"DUMP", key]).await)
}

/// Makes the copies all that there is.
pub async fn restore(wire: &mut Wire, copies: &[Key]) {
    wire.call(&["FLUSHALL"]).await;
    for copy in copies {
        restore_key(wire, copy).await;
    }
}

/// Puts one key back.
pub async fn restore_key(wire: &mut Wire, (key, ttl, copy): &Key) {
    wire.ask(&[b"DEL", key]).await;
    if let Answer::Text(bytes) = copy {
        assert_eq!(wire.ask(&[b"RESTORE", key, ttl.as_bytes(), bytes]).await.text(), "OK");
    }
}

/// No key of a room stays for ever.
pub async fn keys_expire(wire: &mut Wire) -> Result<(), TestCaseError> {
    for key in keys(wire).await {
        let name = String::from_utf8_lossy(&key).into_owned();
        if !name.contains("}:room:") {
            continue;
        }
        let days = if name.contains(":idem:") {
            15.0 / 24.0 / 60.0
        } else {
            30.0
        };
        let ttl: i64 = wire.ask(&[b"PTTL", &key]).await.text().parse().unwrap();
        let most = days * 24.0 * 3_600_000.0;
        prop_assert!(ttl > 0 && ttl as f64 <= most, "{} lives for {} ms", name, ttl);
    }
    Ok(())
}

/// The members of a JSON object in their order, repeated ones too.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// An event is an object with the server's fields once each and at its end.
pub fn server_fields_come_once_and_last(json: &str) -> Result<(), TestCaseError> {
    let members = serde_json::from_str::<Members>(json);
    prop_assert!(members.is_ok(), "no JSON object: {}", json);
    let members = members.unwrap().0;
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let changes = members
        .iter()
        .any(|(name, value)| name == "kind" && (value == "edit" || value == "delete"));
    let mut server = vec!["id", "timestamp", "ts", "seq", "epoch"];
    server.extend(changes.then_some("rev"));
    prop_assert!(names.ends_with(&server), "{}", json);
    let own = &names[..names.len() - server.len()];
    prop_assert!(own.iter().all(|name| !server.contains(name)), "{}", json);
    Ok(())
}
