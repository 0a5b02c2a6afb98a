//! Hostile and broken input: the contract's answer, and nobody else notices.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{World, send};

#[tokio::test(flavor = "multi_thread")]
async fn every_event_answers_bad_input_with_the_contracts_code() {
    let world = World::with(1, &[("GUARD_STRIKES", "1000")]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let (bystander, _) = world.joined(0, 4, "room-0").await;
    let long = "x".repeat(20_000);
    let deep: Value = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let cases: Vec<(&str, Value, &str)> = vec![
        ("message", json!(null), "bad_payload"),
        ("message", json!("text"), "bad_payload"),
        ("message", json!([1]), "bad_payload"),
        ("message", json!({}), "bad_payload"),
        ("message", json!({"roomID": "room-0"}), "bad_payload"),
        ("message", json!({"roomID": 7, "message": "x"}), "not_member"),
        ("message", json!({"roomID": true, "message": "x"}), "bad_payload"),
        (
            "message",
            json!({"roomID": "room-0", "message": {"a": 1}}),
            "bad_payload",
        ),
        ("message", json!({"roomID": "room-0", "message": long}), "too_large"),
        (
            "message",
            json!({"roomID": "room-0", "message": "x", "deep": deep}),
            "bad_payload",
        ),
        ("message", json!({"roomID": "a{b}", "message": "x"}), "bad_payload"),
        ("message", json!({"roomID": "room-1", "message": "x"}), "not_member"),
        (
            "message",
            json!({"roomID": "room-0", "message": "x", "platformid": "p1"}),
            "bad_payload",
        ),
        (
            "message",
            json!({"roomID": "room-0", "message": "x", "username": "user1"}),
            "bad_payload",
        ),
        (
            "message",
            json!({"roomID": "room-0", "message": "x", "cid": "c".repeat(65)}),
            "bad_payload",
        ),
        ("join", json!({}), "bad_payload"),
        ("join", json!({"roomID": "room-1"}), "not_member"),
        ("join", json!({"roomID": "no such room"}), "not_member"),
        ("join", json!({"roomID": "room-0", "lastmessage": true}), "bad_payload"),
        ("join", json!({"roomID": "room-0", "platformid": "p1"}), "bad_payload"),
        ("leave", json!({}), "bad_payload"),
        ("leave", json!({"roomID": "room-1"}), "not_member"),
        (
            "editMessage",
            json!({"roomID": "room-0", "message": "x"}),
            "bad_payload",
        ),
        ("editMessage", json!({"roomID": "room-0", "id": "1-1"}), "bad_payload"),
        (
            "editMessage",
            json!({"roomID": "room-0", "id": "1-1", "message": "x"}),
            "not_found",
        ),
        ("deleteMessage", json!({"roomID": "room-0"}), "bad_payload"),
        ("deleteMessage", json!({"roomID": "room-0", "id": ["x"]}), "bad_payload"),
        ("deleteroom", json!({}), "bad_payload"),
        (
            "deleteroom",
            json!({"roomID": "room-1", "platformid": "p0", "username": "user0"}),
            "not_member",
        ),
        (
            "deleteroom",
            json!({"roomID": "room-0", "platformid": "p1", "username": "user1"}),
            "bad_payload",
        ),
        ("loadMoreMessages_for_room", json!({}), "bad_payload"),
        ("loadMoreMessages_for_room", json!({"roomId": "room-1"}), "not_member"),
        (
            "loadMoreMessages_for_room",
            json!({"roomId": "room-0", "type": "gap"}),
            "bad_payload",
        ),
        ("syncRooms", json!({"platformid": "p0"}), "bad_payload"),
        ("syncRooms", json!({"platformid": "p0", "rooms": "all"}), "bad_payload"),
        ("syncRooms", json!({"platformid": "p1", "rooms": []}), "bad_payload"),
        (
            "syncRooms",
            json!({"platformid": "p0", "rooms": [{"roomId": "room-1"}]}),
            "not_member",
        ),
        (
            "syncRooms",
            json!({"platformid": "p0", "rooms": vec![json!({"roomId": "room-0"}); 2000]}),
            "too_many_rooms",
        ),
    ];
    for (event, payload, code) in cases {
        let shown: String = payload.to_string().chars().take(80).collect();
        let ack = client
            .emit_ack(event, &payload)
            .await
            .unwrap_or_else(|error| panic!("{event} {shown}: {error}"));
        assert_eq!(ack[0]["code"], code, "{event} {shown}: {ack:?}");
        client.emit(event, &payload).unwrap();
        let error = client
            .expect("errorMessage")
            .await
            .unwrap_or_else(|error| panic!("{event} {shown}: {error}"));
        assert_eq!(
            (&error[0]["event"], &error[0]["code"]),
            (&json!(event), &json!(code)),
            "{shown}"
        );
    }
    client.emit_args("message", &[]).unwrap();
    assert_eq!(client.expect("errorMessage").await.unwrap()[0]["code"], "bad_payload");
    client.emit("no such event", &json!({})).unwrap();

    let sent = json!({
        "roomID": "room-0", "message": "fine", "id": "mine", "seq": -1, "ts": 0, "epoch": "x", "kind": "gpt", "rev": 1,
        "timestamp": "yesterday", "extra": {"id": 1},
    });
    assert_eq!(client.emit_ack("message", &sent).await.unwrap()[0]["ok"], true);
    let message = &bystander.expect("message").await.unwrap()[0];
    assert_eq!(
        (&message["seq"], &message["kind"], &message["message"]),
        (&json!(1), &json!("message"), &json!("fine"))
    );
    assert_eq!(
        (&message["clientTimestamp"], &message["extra"]),
        (&json!("yesterday"), &json!({"id": 1}))
    );
    assert!(message.get("rev").is_none());
    assert!(bystander.take("errorMessage").is_empty() && bystander.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_cut_only_their_sender() {
    let world = World::start(1).await;
    let (bystander, _) = world.joined(0, 4, "room-0").await;
    let frames: Vec<String> = vec![
        format!(
            "42[\"message\",{{\"roomID\":\"room-0\",\"message\":\"{}\"}}]",
            "x".repeat(100_000)
        ),
        "42[\"message\",".into(),
        "42{}".into(),
        "4".into(),
        "9garbage".into(),
        "".into(),
        "451-[\"message\",{\"_placeholder\":true,\"num\":0}]".into(),
        "40/other,{}".into(),
        "42[\"message\",\"\u{0}\"]".into(),
        "42[{\"not\":\"a name\"}]".into(),
        "43999[]".into(),
    ];
    for frame in frames {
        let shown: String = frame.chars().take(40).collect();
        let client = world.connect(0, 0).await;
        client.send_raw(frame).unwrap();
        // Either it is cut, or it is ignored and still served; in no case does anybody else notice.
        let payload = json!({"roomID": "room-0"});
        tokio::select! {
            _ = client.closed() => {}
            ack = client.emit_ack("join", &payload) => if let Ok(ack) = ack {
                assert_eq!(ack[0]["ok"], true, "{shown}");
            },
        }
        send(&bystander, "room-0", &shown.replace(['"', '\\', '\u{0}'], "")).await;
        bystander.expect("message").await.unwrap();
    }
    let large = world.connect(0, 0).await;
    large.send_raw(format!("42[\"x\",\"{}\"]", "x".repeat(70_000))).unwrap();
    tokio::time::timeout(Duration::from_secs(5), large.closed())
        .await
        .expect("an oversize frame cuts");
}

#[tokio::test(flavor = "multi_thread")]
async fn strikes_block_the_session_and_missing_platformid_blocks_at_once() {
    let world = World::with(1, &[("GUARD_STRIKES", "3")]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let other = world.connect(0, 1).await;
    for _ in 0..4 {
        let _cut_by_the_last = client.emit_ack("join", &json!({"roomID": "room-1"})).await;
    }
    client.closed().await;
    assert!(world.client(0, 0).connect().await.is_err());
    other.emit("syncRooms", &json!({"rooms": []})).unwrap();
    other.expect("security:notice").await.unwrap();
    other.closed().await;
    assert!(world.client(0, 1).connect().await.is_err());
    world.connect(0, 2).await;
}
