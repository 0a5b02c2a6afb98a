//! What the codec accepts, refuses and writes.

use serde_json::json;

use super::*;

fn packet(text: &str) -> Packet<'_> {
    Packet::parse(text).unwrap()
}

#[test]
fn engine_packets_are_told_apart() {
    let open =
        r#"0{"sid":"abc","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#;
    let EnginePacket::Open(open) = EnginePacket::parse(open).unwrap() else {
        panic!("not open")
    };
    assert_eq!(
        (open.sid.as_str(), open.ping_interval, open.max_payload),
        ("abc", 25000, 1_000_000)
    );
    assert_eq!(open.upgrades, ["websocket"]);
    assert!(matches!(EnginePacket::parse("1"), Ok(EnginePacket::Close)));
    assert!(matches!(EnginePacket::parse("2"), Ok(EnginePacket::Ping(""))));
    assert!(matches!(EnginePacket::parse("3probe"), Ok(EnginePacket::Pong("probe"))));
    assert!(matches!(
        EnginePacket::parse("42[\"a\"]"),
        Ok(EnginePacket::Message("2[\"a\"]"))
    ));
    assert!(matches!(EnginePacket::parse("5"), Ok(EnginePacket::Upgrade)));
    assert!(matches!(EnginePacket::parse("6"), Ok(EnginePacket::Noop)));
}

#[test]
fn an_event_keeps_its_array_and_ack_id() {
    let Body::Event { ack, name, array } = packet(r#"2["ev",{"a":1},"ü"]"#).body else {
        panic!("not an event")
    };
    assert_eq!((ack, name.as_str(), array), (None, "ev", r#"["ev",{"a":1},"ü"]"#));
    let Body::Event { ack, name, .. } = packet(r#"217["a\"b"]"#).body else {
        panic!("not an event")
    };
    assert_eq!((ack, name.as_str()), (Some(17), "a\"b"));
}

#[test]
fn connect_disconnect_error_and_ack_are_read() {
    assert!(matches!(packet("0").body, Body::Connect(None)));
    assert!(matches!(packet(r#"0{"sid":"x"}"#).body, Body::Connect(Some(p)) if p.get() == r#"{"sid":"x"}"#));
    assert!(matches!(packet("1").body, Body::Disconnect));
    assert!(matches!(packet(r#"4{"message":"no"}"#).body, Body::ConnectError(p) if p.get() == r#"{"message":"no"}"#));
    assert!(matches!(packet("31[]").body, Body::Ack { id: 1, array: "[]" }));
    assert!(matches!(
        packet("51-[\"b\",{\"_placeholder\":true,\"num\":0}]").body,
        Body::Binary { attachments: 1 }
    ));
}

#[test]
fn namespaces_are_split_off() {
    assert_eq!(packet("0/admin,").namespace, "/admin");
    assert_eq!(packet("1/admin").namespace, "/admin");
    let read = packet(r#"2/admin,7["x",1]"#);
    assert_eq!(read.namespace, "/admin");
    assert!(matches!(read.body, Body::Event { ack: Some(7), .. }));
    assert_eq!(packet(r#"2["x"]"#).namespace, "/");
}

#[test]
fn malformed_packets_are_errors() {
    for text in ["", "7", "x", "é", "0", "0{", "0[]", r#"0{"sid":1}"#] {
        assert!(EnginePacket::parse(text).is_err(), "{text:?} was read");
    }
    for text in [
        "",
        "9",
        "é",
        "2",
        "2[]",
        "2[1]",
        "2{}",
        "2[\"a\"",
        "2[\"a\"]x",
        "2[\"a\",]",
        "2null",
        "3",
        "3[]",
        "31",
        "31{}",
        "31[1",
        "0[]",
        "0x",
        "1{}",
        "4",
        "4{",
        "5",
        "5[\"a\"]",
        "5x-[]",
        "2/ns",
        "2/ns,",
        "299999999999999999999999[\"a\"]",
    ] {
        assert!(Packet::parse(text).is_err(), "{text:?} was read");
    }
}

#[test]
fn no_truncation_of_a_valid_packet_panics() {
    let full = r#"2/näme,123["ev",{"k":["é",null,1.5e3,"\u00e9"]}]"#;
    for end in (0..full.len()).filter(|end| full.is_char_boundary(*end)) {
        let _ = Packet::parse(&full[..end]);
        let _ = EnginePacket::parse(&full[end..]);
        let _ = Packet::parse(&full[end..]);
    }
}

#[test]
fn deep_nesting_is_checked_without_recursion() {
    let deep = format!("2[\"a\",{}{}]", "[".repeat(200_000), "]".repeat(200_000));
    assert!(Packet::parse(&deep).is_ok());
}

#[test]
fn frames_are_written_as_the_official_client_writes_them() {
    assert_eq!(encode_connect(None), "40");
    assert_eq!(encode_connect(Some(&json!({"t": 1}))), r#"40{"t":1}"#);
    let event = FrameWriter::event(None, "ev")
        .unwrap()
        .arg(&json!({"a": 1}))
        .unwrap()
        .arg("x")
        .unwrap();
    assert_eq!(event.finish(), r#"42["ev",{"a":1},"x"]"#);
    assert_eq!(FrameWriter::event(Some(3), "e").unwrap().finish(), r#"423["e"]"#);
    assert_eq!(FrameWriter::ack(9).finish(), "439[]");
    assert_eq!(
        FrameWriter::ack(9).arg(&1).unwrap().arg(&2).unwrap().finish(),
        "439[1,2]"
    );
}
