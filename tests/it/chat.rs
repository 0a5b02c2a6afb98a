//! The events of the contract, done well.

use std::time::Duration;

use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{World, join, send, until};

async fn ack(client: &Client, event: &str, payload: Value) -> Value {
    client.emit_ack(event, &payload).await.unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_deletions_are_the_authors_and_reach_everybody() {
    let world = World::start(2).await;
    let (author, _) = world.joined(0, 0, "room-0").await;
    let (other, _) = world.joined(1, 4, "room-0").await;
    let sent = send(&author, "room-0", "one").await;
    let (id, room) = (&sent["id"], "room-0");

    let refused = ack(
        &other,
        "editMessage",
        json!({"roomID": room, "id": id, "message": "mine"}),
    )
    .await;
    assert_eq!(refused["code"], "not_author");
    let edited = ack(
        &author,
        "editMessage",
        json!({"roomID": room, "id": id, "message": "two"}),
    )
    .await;
    assert_eq!(edited["ok"], true, "{edited}");
    let event = &other.expect("editMessage").await.unwrap()[0];
    assert_eq!(
        (&event["id"], &event["message"], &event["kind"]),
        (id, &json!("two"), &json!("edit"))
    );
    assert_eq!(event["rev"], event["seq"]);

    let (late, previous) = world.joined(1, 8, "room-0").await;
    assert_eq!(previous.len(), 1);
    assert_eq!((&previous[0]["message"], &previous[0]["id"]), (&json!("two"), id));
    drop(late);

    assert_eq!(
        ack(&other, "deleteMessage", json!({"roomID": room, "id": id})).await["code"],
        "not_author"
    );
    assert_eq!(
        ack(&author, "deleteMessage", json!({"roomID": room, "id": id})).await["ok"],
        true
    );
    assert_eq!(&other.expect("deleteMessage").await.unwrap()[0]["id"], id);
    assert_eq!(
        ack(
            &author,
            "editMessage",
            json!({"roomID": room, "id": id, "message": "x"})
        )
        .await["code"],
        "not_found"
    );
    assert_eq!(
        ack(&author, "deleteMessage", json!({"roomID": room, "id": "1-99"})).await["code"],
        "not_found"
    );
    let (_, previous) = world.joined(1, 12, "room-0").await;
    assert!(previous.is_empty(), "{previous:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_message_is_changed_by_its_author_and_an_owner_may_delete() {
    let world = World::start(1).await;
    let _worker = world.worker().await;
    let people = json!([{"platformid": "p0", "nickname": "user0"}, {"platformid": "p1", "nickname": "user1"}]);
    world
        .services
        .post(
            "/api/rooms/create-room",
            json!({"roomID": "owned", "owner": "p1", "participants": people}),
        )
        .await;
    let (author, _) = world.joined(0, 0, "owned").await;
    let (owner, _) = world.joined(0, 1, "owned").await;
    let first = send(&author, "owned", "first").await;
    let second = send(&author, "owned", "second").await;
    until("both are archived", Duration::from_secs(10), || async {
        world.services.messages("owned").await.len() == 2
    })
    .await;
    assert_eq!(
        ack(&owner, "deleteMessage", json!({"roomID": "owned", "id": second["id"]})).await["ok"],
        true
    );
    until("the deletion is archived", Duration::from_secs(10), || async {
        world.services.messages("owned").await.len() == 1
    })
    .await;

    // As after a week of silence: the log is gone, its position is not.
    let key = world.redis.cli(&["--scan", "--pattern", "rc:*:room:owned:log"]).await;
    world.redis.cli(&["DEL", &key[0]]).await;
    assert_eq!(
        ack(
            &owner,
            "editMessage",
            json!({"roomID": "owned", "id": first["id"], "message": "x"})
        )
        .await["code"],
        "not_author"
    );
    let edited = ack(
        &author,
        "editMessage",
        json!({"roomID": "owned", "id": first["id"], "message": "premier"}),
    )
    .await;
    assert_eq!(edited["seq"], 4, "{edited}");
    let (_, previous) = world.joined(0, 0, "owned").await;
    assert_eq!(
        previous
            .iter()
            .map(|m| m["message"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["premier"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cid_makes_a_resend_harmless() {
    let world = World::start(2).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let (elsewhere, _) = world.joined(1, 0, "room-0").await;
    let message = json!({"roomID": "room-0", "message": "once", "cid": "c-1"});
    let first = ack(&client, "message", message.clone()).await;
    let again = ack(&elsewhere, "message", message).await;
    assert_eq!(
        (first["dup"].clone(), again["dup"].clone()),
        (json!(false), json!(true))
    );
    for field in ["id", "seq", "epoch", "ts"] {
        assert_eq!(first[field], again[field], "{field}");
    }
    let other = ack(
        &client,
        "message",
        json!({"roomID": "room-0", "message": "other", "cid": "c-1"}),
    )
    .await;
    assert_eq!(other["code"], "cid_conflict");
    assert_eq!(client.expect("message").await.unwrap()[0]["cid"], "c-1");
    send(&client, "room-0", "next").await;
    assert_eq!(client.expect("message").await.unwrap()[0]["message"], "next");
}

#[tokio::test(flavor = "multi_thread")]
async fn join_gives_what_was_missed_for_every_form_of_cursor() {
    let world = World::start(1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let mut acks = Vec::new();
    for n in 0..5 {
        acks.push(send(&writer, "room-0", &format!("m{n}")).await);
    }
    let ts = acks[1]["ts"].as_u64().unwrap();
    let iso = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ts) * 1_000_000).unwrap();
    let iso = iso
        .format(&time::format_description::well_known::Iso8601::DEFAULT)
        .unwrap();
    let cursors = [
        json!(ts),
        json!(ts.to_string()),
        json!(iso),
        acks[1]["id"].clone(),
        json!({"id": acks[1]["id"], "ts": ts, "seq": 2, "timestamp": ts}),
    ];
    for cursor in cursors {
        let reader = world.connect(0, 4).await;
        ack(&reader, "join", json!({"roomID": "room-0", "lastmessage": cursor})).await;
        let previous = reader.expect("previousMessages").await.unwrap();
        let texts: Vec<&str> = previous[0]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["message"].as_str().unwrap())
            .collect();
        assert_eq!(texts, ["m2", "m3", "m4"], "{cursor}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_2_client_resumes_by_epoch_and_seq() {
    let world = World::start(1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let mut acks = Vec::new();
    for n in 0..5 {
        acks.push(send(&writer, "room-0", &format!("m{n}")).await);
    }
    ack(
        &writer,
        "editMessage",
        json!({"roomID": "room-0", "id": acks[0]["id"], "message": "edited"}),
    )
    .await;
    let mut auth = crate::support::auth(4);
    auth["proto"] = json!(2);
    let reader = world.client(0, 4).auth(auth).connect().await.unwrap();
    let epoch = &acks[0]["epoch"];
    for cursor in [
        json!({"roomID": "room-0", "epoch": epoch, "seq": 3}),
        json!({"roomID": "room-0", "epoch": epoch, "seq": 3, "ts": acks[2]["ts"]}),
    ] {
        ack(&reader, "join", cursor).await;
        let previous = reader.expect("previousMessages").await.unwrap();
        let kinds: Vec<_> = previous[0]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| (e["seq"].as_u64().unwrap(), e["kind"].as_str().unwrap()))
            .collect();
        assert_eq!(kinds, [(4, "message"), (5, "message"), (6, "edit")]);
        assert_eq!(
            (&previous[1]["recovered"], &previous[1]["topSeq"], &previous[1]["epoch"]),
            (&json!(true), &json!(6), epoch)
        );
    }
    for unprovable in [
        json!({"roomID": "room-0", "epoch": "other", "seq": 3}),
        json!({"roomID": "room-0", "epoch": epoch, "seq": 7}),
    ] {
        ack(&reader, "join", unprovable).await;
        assert_eq!(reader.expect("previousMessages").await.unwrap()[1]["recovered"], false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn load_more_pages_exactly() {
    let world = World::start(1).await;
    let _worker = world.worker().await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let mut acks = Vec::new();
    for n in 0..120 {
        acks.push(send(&client, "room-0", &format!("m{n}")).await);
    }
    let page = |payload: Value| {
        let client = &client;
        async move {
            let messages = ack(client, "loadMoreMessages_for_room", payload).await;
            messages
                .as_array()
                .unwrap_or_else(|| panic!("{messages}"))
                .iter()
                .map(|m| m["seq"].as_u64().unwrap())
                .collect::<Vec<_>>()
        }
    };
    let range = |from: u64, to: u64| (from..=to).collect::<Vec<_>>();
    assert_eq!(
        page(json!({"roomId": "room-0", "timestamp": acks[99]["ts"]})).await,
        range(50, 99)
    );
    assert_eq!(
        page(json!({"roomId": "room-0", "oldmessage": acks[99]["id"]})).await,
        range(50, 99)
    );
    assert_eq!(
        page(json!({"roomId": "room-0", "oldmessage": acks[49]["id"]})).await,
        range(1, 49)
    );
    assert_eq!(
        page(json!({"roomId": "room-0", "timestamp": acks[59]["ts"], "type": "new"})).await,
        range(61, 110)
    );
    assert_eq!(
        page(json!({"roomId": "room-0", "type": "gap", "epoch": acks[0]["epoch"], "from": 7, "to": 9})).await,
        range(7, 9)
    );
    // Numbers of an epoch that is not this room's may stand for other events.
    let foreign = json!({"roomId": "room-0", "type": "gap", "epoch": "00000000-1", "from": 7, "to": 9});
    let refused = client.emit_ack("loadMoreMessages_for_room", &foreign).await.unwrap();
    assert_eq!(refused[0]["code"], "not_found", "{refused:?}");
    assert_eq!(page(json!({"roomId": "room-0"})).await, range(71, 120));
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_rooms_answers_few_rooms_and_many() {
    let world = World::start(1).await;
    let names: Vec<String> = (0..12).map(|n| format!("sync-{n}")).collect();
    for name in &names {
        let people = json!([{"platformid": "p0", "nickname": "user0"}]);
        world
            .services
            .post(
                "/api/rooms/create-room",
                json!({"roomID": name, "participants": people}),
            )
            .await;
    }
    let client = world.connect(0, 0).await;
    let mut first = Value::Null;
    for name in &names {
        join(&client, name).await;
        for n in 0..3 {
            let sent = send(&client, name, &format!("m{n}")).await;
            if n == 0 && first.is_null() {
                first = sent;
            }
        }
    }
    let rooms: Vec<Value> = names.iter().map(|name| json!({"roomId": name})).collect();
    ack(&client, "syncRooms", json!({"platformid": "p0", "rooms": rooms[..2]})).await;
    let few = client.expect("syncRoomsResponse").await.unwrap()[0].clone();
    assert_eq!(few.as_array().unwrap().len(), 2);
    assert_eq!(few[0]["roomId"], "sync-0");
    assert_eq!(few[0]["messages"].as_array().unwrap().len(), 3);

    ack(&client, "syncRooms", json!({"platformId": "p0", "rooms": rooms})).await;
    let many = client.expect("updatedRooms").await.unwrap()[0].clone();
    assert_eq!(many.as_array().unwrap().len(), 12);
    assert!(
        many.as_array()
            .unwrap()
            .iter()
            .all(|room| room["messages"].as_array().unwrap().len() == 3)
    );

    let since = json!([{"roomId": "sync-0", "timestamp": first["ts"]}]);
    ack(&client, "syncRooms", json!({"platformid": "p0", "rooms": since})).await;
    assert_eq!(
        client.expect("syncRoomsResponse").await.unwrap()[0][0]["messages"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deleteroom_removes_the_user_everywhere_and_the_last_one_takes_the_room_along() {
    let world = World::start(2).await;
    let people = json!([{"platformid": "p0", "nickname": "user0"}, {"platformid": "p1", "nickname": "user1"}]);
    world
        .services
        .post(
            "/api/rooms/create-room",
            json!({"roomID": "temp", "participants": people}),
        )
        .await;
    let (phone, _) = world.joined(0, 0, "temp").await;
    let (laptop, _) = world.joined(1, 0, "temp").await;
    let (other, _) = world.joined(1, 1, "temp").await;
    let leave =
        |user: usize| json!({"roomID": "temp", "platformid": format!("p{user}"), "username": format!("user{user}")});
    assert_eq!(ack(&phone, "deleteroom", leave(0)).await["ok"], true);
    let update = other
        .expect_where("roomUpdate", |args| {
            args[0]["participants"]
                .as_array()
                .is_some_and(|people| people.len() == 1)
        })
        .await
        .unwrap();
    assert_eq!(update[0]["roomID"], "temp");
    until("the other device has left too", Duration::from_secs(5), || async {
        world.redis.members("joinedRoomUsers:temp").await == [other.sid()]
    })
    .await;
    assert_eq!(world.redis.members("roomUsers:temp").await, [other.sid()]);
    assert_eq!(
        ack(&laptop, "message", json!({"roomID": "temp", "message": "x"})).await["code"],
        "not_member"
    );
    send(&other, "temp", "alone").await;
    laptop.expect_none("message", Duration::from_millis(200)).await.unwrap();

    assert_eq!(ack(&other, "deleteroom", leave(1)).await["ok"], true);
    until("nothing is left", Duration::from_secs(5), || async {
        let keys = world.redis.cli(&["--scan", "--pattern", "*temp*"]).await;
        keys.iter().all(|key| key.ends_with(":meta"))
    })
    .await;
    assert_eq!(
        ack(&other, "join", json!({"roomID": "temp"})).await["code"],
        "not_member"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leave_ends_the_live_delivery_only() {
    let world = World::start(1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(0, 4, "room-0").await;
    assert_eq!(
        ack(&reader, "leave", json!({"roomID": "room-0", "username": "user4"})).await["ok"],
        true
    );
    assert_eq!(world.redis.members("joinedRoomUsers:room-0").await, [writer.sid()]);
    assert_eq!(world.redis.members("roomUsers:room-0").await.len(), 2);
    send(&writer, "room-0", "x").await;
    writer.expect("message").await.unwrap();
    assert!(reader.take("message").is_empty());
    assert_eq!(
        ack(&reader, "message", json!({"roomID": "room-0", "message": "x"})).await["code"],
        "not_joined"
    );
    let previous = join(&reader, "room-0").await;
    assert_eq!(previous.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_archived_in_order_and_once() {
    let world = World::start(2).await;
    let worker = world.worker().await;
    let second = world.worker().await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    for n in 0..50 {
        send(&client, "room-0", &format!("m{n}")).await;
    }
    worker.stop().await;
    for n in 50..100 {
        send(&client, "room-0", &format!("m{n}")).await;
    }
    until("everything is archived", Duration::from_secs(25), || async {
        world.services.messages("room-0").await.len() == 100
    })
    .await;
    let texts: Vec<String> = world
        .services
        .messages("room-0")
        .await
        .iter()
        .map(|m| m["message"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(texts, (0..100).map(|n| format!("m{n}")).collect::<Vec<_>>());
    second.stop().await;
}
