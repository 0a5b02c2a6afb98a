//! Whatever a client sends: what the server says of a message comes last, once, and from the token.

use serde_json::value::RawValue;

use super::*;
use crate::fuzz::Object;
use crate::model::UserId;

/// A text field that the server has written, by name and value.
type Said = (&'static str, String);

fn caller() -> Identity {
    Identity {
        user: UserId::new("p0").unwrap(),
        username: "User0".to_owned(),
        session: None,
        expires_at: None,
        issued_at: None,
    }
}

/// Name and value of each field in their order, repeated ones too.
fn fields(object: &str) -> Vec<(String, String)> {
    struct Fields(Vec<(String, String)>);
    impl<'de> serde::Deserialize<'de> for Fields {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Fields;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                    let mut fields = Vec::new();
                    while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                        fields.push((name, value.get().to_owned()));
                    }
                    Ok(Fields(fields))
                }
            }
            deserializer.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Fields>(object)
        .unwrap_or_else(|error| panic!("{error}: {object}"))
        .0
}

/// Checks what a composed message says; returns it as it would be stored.
fn check(draft: &Draft, room: &RoomId, text: Option<&str>) -> String {
    let mut said: Vec<Said> = vec![
        ("roomID", room.to_string()),
        ("platformid", "p0".to_owned()),
        ("username", "User0".to_owned()),
    ];
    said.extend(text.map(|text| ("message", text.to_owned())));
    said.push(("kind", draft.kind.as_str().to_owned()));
    said.extend(draft.cid.clone().map(|cid| ("cid", cid)));
    let composed = fields(&format!("{}}}", draft.prefix));
    let composed = composed
        .strip_suffix(&[("gpt".to_owned(), "true".to_owned())])
        .unwrap_or(&composed);
    let (own, by_server) = composed.split_at(composed.len() - said.len());
    for ((name, value), (right, text)) in by_server.iter().zip(&said) {
        assert_eq!(
            (name.as_str(), value),
            (*right, &serde_json::Value::from(text.as_str()).to_string())
        );
    }
    // What the script adds: the place of the event.
    let stored = format!(
        "{},\"id\":\"5-2\",\"timestamp\":5,\"ts\":5,\"seq\":2,\"epoch\":\"e\"}}",
        draft.prefix
    );
    let all = fields(&stored);
    for (index, (name, _)) in all.iter().enumerate() {
        assert!(
            all[..index].iter().all(|(before, _)| before != name),
            "{name} twice: {stored}"
        );
    }
    let reserved = |name: &str| all.iter().skip(own.len()).any(|(later, _)| later == name);
    assert!(own.iter().all(|(name, _)| !reserved(name)), "{stored}");
    stored
}

#[test]
fn what_the_server_says_of_a_message_comes_last_and_once() {
    let (caller, room) = (caller(), RoomId::new("room-0").unwrap());
    bolero::check!()
        .with_type::<(Object, Object)>()
        .for_each(|(Object(first), Object(second))| {
            let objects = [first, second].map(|text| RawValue::from_string(text.clone()).unwrap());
            let [Ok(sent), Ok(changed)] = objects.each_ref().map(|raw| Payload::parse(raw)) else {
                return;
            };
            if let Ok(draft) = compose_delete(&sent, &caller, &room) {
                check(&draft, &room, None);
            }
            let text = |payload: &Payload<'_>| payload.required_text("message").map(std::borrow::Cow::into_owned);
            let Ok(message) = compose_message(&sent, &caller, &room, 64, "@gpt") else {
                return;
            };
            let stored = check(&message, &room, text(&sent).ok().as_deref());
            assert!(message.user.as_str() == "p0" && text(&sent).unwrap().len() <= 64);
            let Ok(edit) = compose_edit(&changed, &caller, &room, 64) else {
                return;
            };
            let edit = check(&edit, &room, text(&changed).ok().as_deref());
            let (stored, edit) = [stored, edit].map(|text| RawValue::from_string(text).unwrap()).into();
            let [stored, edit]: [Payload<'_>; 2] = [&stored, &edit].map(|raw| serde_json::from_str(raw.get()).unwrap());
            let mut folded = String::from("{");
            stored.write_edited(&edit, &mut folded);
            let folded = fields(&format!("{folded}}}"));
            let value = |name: &str| {
                let mut found = folded
                    .iter()
                    .filter(|(field, _)| field == name)
                    .map(|(_, value)| value.as_str());
                let value = found.next();
                assert!(found.next().is_none(), "{name} twice: {folded:?}");
                value
            };
            for (name, _) in &folded {
                value(name);
            }
            assert_eq!(value("message"), edit.raw("message").map(RawValue::get));
            assert_eq!(
                (value("platformid"), value("kind")),
                (Some("\"p0\""), Some("\"message\""))
            );
            assert_eq!(value("rev"), None);
        });
}

#[test]
fn nobody_speaks_for_another() {
    let caller = caller();
    bolero::check!().with_type::<Object>().for_each(|Object(text)| {
        let raw = RawValue::from_string(text.clone()).unwrap();
        let Ok(payload) = Payload::parse(&raw) else { return };
        if check_identity(&payload, &caller).is_err() {
            return;
        }
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        for (name, own) in [("platformid", "p0"), ("platformId", "p0"), ("username", "user0")] {
            match &value[name] {
                serde_json::Value::Null => {}
                named => assert_eq!(named.as_str().map(str::to_lowercase).as_deref(), Some(own), "{text}"),
            }
        }
    });
}
