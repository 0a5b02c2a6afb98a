//! Pages, gaps and syncs: exact at their ends.

use serde_json::{Value, json};

use super::support::{Server, event, ids};

/// Messages m0…m(n-1) of which each pair shares one time: ts 100, 100, 101, 101, …
async fn pairs(server: &Server, count: i64) {
    let events: Vec<Value> = (0..count)
        .map(|i| event("message", &format!("m{i}"), 100 + i / 2, i, "x"))
        .collect();
    for chunk in events.chunks(1000) {
        server.save(chunk).await;
    }
}

fn names(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|i| format!("m{i}")).collect()
}

#[tokio::test]
async fn pages_are_fifty_ascending_and_end_at_the_cursor() {
    let (server, _database) = Server::seeded().await;
    pairs(&server, 120).await;
    assert_eq!(server.ids("room-0", "").await, names(70..120));
    assert_eq!(server.ids("room-0", "type=old").await, names(70..120));
    assert_eq!(server.ids("room-0", "type=new").await, names(0..50));
    assert_eq!(server.ids("room-0", "limit=1000").await, names(0..120));
    // Strictly older and newer than a time: both messages of that millisecond are left out.
    assert_eq!(server.ids("room-0", "timestamp=110&limit=3").await, names(17..20));
    assert_eq!(
        server.ids("room-0", "timestamp=110&type=new&limit=3").await,
        names(22..25)
    );
    assert_eq!(server.ids("room-0", "timestamp=100").await, names(0..0));
    assert_eq!(server.ids("room-0", "timestamp=159&type=new").await, names(0..0));
    // By message id the neighbour of the same millisecond is kept.
    assert_eq!(server.ids("room-0", "oldmessage=m21&limit=2").await, names(19..21));
    assert_eq!(
        server.ids("room-0", "oldmessage=m20&limit=2&type=new").await,
        names(21..23)
    );
    assert_eq!(server.ids("room-0", "oldmessage=m0").await, names(0..0));
    // So it is by (timestamp, seq).
    assert_eq!(
        server.ids("room-0", "timestamp=110&seq=21&limit=2").await,
        names(19..21)
    );
    assert_eq!(server.ids("nowhere", "").await, names(0..0));
}

#[tokio::test]
async fn walking_by_message_id_meets_every_message_once() {
    let (server, _database) = Server::seeded().await;
    pairs(&server, 120).await;
    server
        .save(&[
            event("delete", "m60", 500, 500, ""),
            event("edit", "m61", 501, 501, "y"),
        ])
        .await;
    let expected: Vec<_> = names(0..120).into_iter().filter(|id| id != "m60").collect();
    for (kind, backwards) in [("old", true), ("new", false)] {
        let (mut met, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = server
                .ids("room-0", &format!("type={kind}&limit=7&oldmessage={cursor}"))
                .await;
            let Some(next) = (if backwards { page.first() } else { page.last() }) else {
                break;
            };
            cursor.clone_from(next);
            if backwards {
                met.splice(0..0, page);
            } else {
                met.extend(page);
            }
        }
        assert_eq!(met, expected, "{kind}");
    }
    // A deleted message still marks its place.
    assert_eq!(server.ids("room-0", "oldmessage=m60&limit=2").await, names(58..60));
}

#[tokio::test]
async fn an_unknown_message_is_no_cursor_unless_a_time_stands_in() {
    let (server, _database) = Server::seeded().await;
    pairs(&server, 10).await;
    server
        .save(&[event("edit", "held", 500, 500, "waits for its message")])
        .await;
    for id in ["unknown", "held"] {
        let (status, answer) = server
            .get(&format!("/api/messages/get-messages/room-0?oldmessage={id}"))
            .await;
        assert_eq!((status, &answer["error"]), (404, &json!("not_found")));
        assert_eq!(
            server.ids("room-0", &format!("oldmessage={id}&timestamp=102")).await,
            names(0..4)
        );
    }
}

#[tokio::test]
async fn times_may_be_iso() {
    let (server, _database) = Server::seeded().await;
    server
        .save(&[
            event("message", "a", 1_700_000_000_122, 1, "x"),
            event("message", "b", 1_700_000_000_123, 2, "x"),
            event("message", "c", 1_700_000_000_124, 3, "x"),
        ])
        .await;
    for time in [
        "1700000000123",
        "2023-11-14T22:13:20.123Z",
        "2023-11-15T07:13:20.123%2B09:00",
    ] {
        assert_eq!(server.ids("room-0", &format!("timestamp={time}")).await, ["a"]);
        assert_eq!(server.ids("room-0", &format!("timestamp={time}&type=new")).await, ["c"]);
    }
}

#[tokio::test]
async fn raw_events_are_read_onwards() {
    let (server, _database) = Server::seeded().await;
    let events = [
        event("message", "a", 100, 1, "x"),
        event("edit", "a", 100, 2, "y"),
        event("delete", "a", 101, 3, ""),
        event("message", "b", 102, 4, "z"),
    ];
    server.save(&events).await;
    assert_eq!(server.page("room-0", "raw=1").await, events);
    assert_eq!(server.page("room-0", "raw=1&limit=2").await, events[..2]);
    assert_eq!(server.page("room-0", "raw=1&timestamp=100&seq=1").await, events[1..]);
    assert_eq!(server.page("room-0", "raw=1&timestamp=100").await, events[2..]);
    assert_eq!(server.page("room-0", "raw=1&oldmessage=a&limit=1").await, events[1..2]);
    assert_eq!(
        server.page("room-0", "raw=1&type=old&timestamp=102&limit=2").await,
        events[1..3]
    );
}

#[tokio::test]
async fn a_gap_is_filled_by_seq_both_ends_included() {
    let (server, _database) = Server::seeded().await;
    pairs(&server, 200).await;
    assert_eq!(server.ids("room-0", "type=gap&epoch=e1&from=3&to=5").await, names(3..6));
    assert_eq!(server.ids("room-0", "type=gap&epoch=e1&from=7&to=7").await, names(7..8));
    assert_eq!(
        server.ids("room-0", "type=gap&epoch=e1&from=0&to=150").await,
        names(0..151)
    );
    assert_eq!(
        server.ids("room-0", "type=gap&epoch=e1&from=0&to=150&limit=2").await,
        names(0..2)
    );
    assert_eq!(
        server.ids("room-0", "type=gap&epoch=other&from=0&to=150").await,
        names(0..0)
    );
}

#[tokio::test]
async fn malformed_selections_are_refused_by_field() {
    let (server, _database) = Server::seeded().await;
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=many", "query"),
        ("type=sideways", "type"),
        ("timestamp=yesterday", "timestamp"),
        ("seq=4", "seq"),
        ("raw=perhaps", "raw"),
        ("oldmessage=%7B", "oldmessage"),
        ("oldmessage=%00", "oldmessage"),
        ("type=gap&from=1&to=2", "epoch"),
        ("type=gap&epoch=e1&to=2", "from"),
        ("type=gap&epoch=e1&from=1", "to"),
        ("type=gap&epoch=e1&from=3&to=2", "from"),
        ("type=new&type=old", "query"),
    ] {
        let (status, answer) = server.get(&format!("/api/messages/get-messages/room-0?{query}")).await;
        assert_eq!(
            (status, answer["field"].as_str()),
            (400, Some(field)),
            "{query}: {answer}"
        );
    }
    for path in [
        "get-messages/%FF",
        "get-message/room-0/%FF",
        "get-messages/a%7Bb",
        "get-message/room-0/%00",
    ] {
        assert_eq!(server.get(&format!("/api/messages/{path}")).await.0, 400, "{path}");
    }
}

#[tokio::test]
async fn sync_gives_the_newest_of_the_rooms_one_is_in() {
    let (server, _database) = Server::seeded().await;
    pairs(&server, 1200).await;
    let mut elsewhere = event("message", "e", 100, 1, "secret");
    elsewhere["roomID"] = json!("room-1");
    server
        .save(&[
            elsewhere,
            event("edit", "m1199", 900, 5000, "edited"),
            event("delete", "m1198", 901, 5001, ""),
        ])
        .await;
    let sync = async |rooms: Value| {
        server
            .ok(
                "/api/messages/sync-rooms",
                json!({ "username": "User3", "rooms": rooms }),
            )
            .await
    };
    let answer = sync(json!([
        { "roomId": "room-0" },
        { "roomId": "room-1", "timestamp": 0 },
        { "roomId": "nowhere", "timestamp": null },
        { "roomId": "room-0", "timestamp": "650" },
        { "roomId": "room-0", "timestamp": 699 },
    ]))
    .await;
    let rooms: Vec<_> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|room| room["roomId"].as_str().unwrap())
        .collect();
    assert_eq!(rooms, ["room-0", "room-1", "nowhere", "room-0", "room-0"]);
    let messages = |index: usize| answer[index]["messages"].as_array().unwrap().clone();
    let mut newest = names(199..1200);
    newest.retain(|id| id != "m1198");
    assert_eq!(
        ids(&messages(0)),
        newest,
        "the newest thousand, ascending, without the deleted one"
    );
    assert_eq!(messages(0).last().unwrap()["message"], "edited");
    assert_eq!((messages(1).len(), messages(2).len(), messages(4).len()), (0, 0, 0));
    assert_eq!(ids(&messages(3)), newest[1102 - 199..]);
    assert_eq!(sync(json!([])).await, json!([]));
}

#[tokio::test]
async fn sync_stops_at_a_mebibyte_a_room() {
    let (server, _database) = Server::seeded().await;
    let text = "x".repeat(100_000);
    let events: Vec<Value> = (0..20)
        .map(|i| event("message", &format!("m{i}"), i, i, &text))
        .collect();
    server.save(&events).await;
    let body = json!({ "username": "user3", "rooms": [{ "roomId": "room-0" }] });
    let answer = server.ok("/api/messages/sync-rooms", body).await;
    assert_eq!(ids(answer[0]["messages"].as_array().unwrap()), names(10..20));
}

#[tokio::test]
async fn malformed_syncs_are_refused_by_field() {
    let (server, _database) = Server::seeded().await;
    let path = "/api/messages/sync-rooms";
    for (body, field) in [
        (json!({ "rooms": [] }), "username"),
        (json!({ "username": "user1" }), "rooms"),
        (json!({ "username": "user1", "rooms": {} }), "rooms"),
        (
            json!({ "username": "user1", "rooms": [{ "roomId": "a" }, {}] }),
            "rooms[1].roomId",
        ),
        (
            json!({ "username": "user1", "rooms": [{ "roomId": "{}" }] }),
            "rooms[0].roomId",
        ),
        (
            json!({ "username": "user1", "rooms": [{ "roomId": "a", "timestamp": "x" }] }),
            "rooms[0].timestamp",
        ),
        (
            json!({ "username": "user1", "rooms": [{ "roomId": "a", "timestamp": [] }] }),
            "rooms[0].timestamp",
        ),
    ] {
        assert_eq!(
            server.refused(path, body.clone(), 400, "bad_request").await.as_deref(),
            Some(field),
            "{body}"
        );
    }
    let body = json!({ "username": "user1", "rooms": vec![json!({ "roomId": "a" }); 1001] });
    assert_eq!(
        server.refused(path, body, 413, "too_large").await.as_deref(),
        Some("rooms")
    );
    server
        .refused(path, json!({ "username": "nobody", "rooms": [] }), 403, "unknown_user")
        .await;
}
