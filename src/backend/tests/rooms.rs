//! Rooms, their participants, and seeding.

use serde_json::{Value, json};

use super::support::{Database, Server, config, event};

async fn rooms_of(server: &Server, number: u32) -> Value {
    let body = json!({ "platformid": format!("p{number}"), "username": format!("user{number}") });
    server.ok("/api/rooms/user-rooms", body).await["rooms"].clone()
}

async fn check(server: &Server, room: &str) -> Value {
    server.ok("/api/rooms/check-room", json!({ "roomID": room })).await
}

async fn leave(server: &Server, room: &str, number: u32) -> bool {
    let user = (format!("p{number}"), format!("user{number}"));
    let body = json!({ "roomID": room, "createdAt": null, "platformid": user.0, "username": user.1 });
    server.ok("/api/rooms/delete-room", body).await["deleted"]
        .as_bool()
        .unwrap()
}

#[tokio::test]
async fn seeding_puts_every_user_in_one_room_and_can_be_repeated() {
    let (server, database) = Server::seeded().await;
    let expected = check(&server, "room-1").await;
    let people = [1, 4, 7].map(|i| json!({ "nickname": format!("user{i}"), "platformid": format!("p{i}") }));
    assert_eq!(expected, json!({ "exist": true, "participants": people }));
    server.save(&[event("message", "a", 1, 1, "kept")]).await;
    server.stop().await;
    let server = Server::start(config(&database)).await;
    assert_eq!(check(&server, "room-1").await, expected);
    assert_eq!(rooms_of(&server, 8).await, json!(["room-2"]));
    assert_eq!(server.ids("room-0", "").await, ["a"]);
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_users_are_seeded_quickly() {
    let database = Database::new().await;
    let mut config = config(&database);
    (config.seed_users, config.seed_rooms) = (10_000, 100);
    let started = std::time::Instant::now();
    let server = Server::start(config).await;
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    assert_eq!(rooms_of(&server, 9_999).await, json!(["room-99"]));
    assert_eq!(
        check(&server, "room-99").await["participants"]
            .as_array()
            .unwrap()
            .len(),
        100
    );
}

#[tokio::test]
async fn unknown_users_have_no_rooms() {
    let (server, _database) = Server::seeded().await;
    let path = "/api/rooms/user-rooms";
    for (platformid, username) in [("p1", "user2"), ("p99", "user99"), ("nobody", "user1")] {
        let body = json!({ "platformid": platformid, "username": username });
        server.refused(path, body, 403, "unknown_user").await;
    }
    assert_eq!(
        server
            .ok(path, json!({ "platformid": "p1", "username": "User1" }))
            .await["rooms"],
        json!(["room-1"])
    );
    server.login("Kim").await;
    let body = json!({ "platformid": "p-kim", "username": "kim" });
    assert_eq!(server.ok(path, body).await, json!({ "rooms": [] }));
}

#[tokio::test]
async fn a_forged_room_is_told_apart_from_a_missing_one() {
    let (server, _database) = Server::seeded().await;
    let path = "/api/rooms/check-room";
    let created_at = 1_700_000_000_123_i64;
    let room = json!({
        "roomID": "r", "createdAt": "2023-11-14T22:13:20.123Z", "owner": "p1", "gptPrompt": "Answer in verse.",
        "participants": [{ "platformid": "p1", "nickname": "user1" }],
    });
    assert_eq!(server.post("/api/rooms/create-room", room).await.0, 201);
    for time in [
        json!(created_at),
        json!(created_at.to_string()),
        json!("2023-11-14T22:13:20.123Z"),
        json!(null),
    ] {
        let answer = server.ok(path, json!({ "roomID": "r", "createdAt": time })).await;
        assert_eq!((&answer["exist"], &answer["owner"]), (&json!(true), &json!("p1")));
        assert_eq!(answer["gptPrompt"], "Answer in verse.");
    }
    let forged = json!({ "roomID": "r", "createdAt": created_at + 1 });
    assert_eq!(
        server.refused(path, forged, 400, "forged").await.as_deref(),
        Some("createdAt")
    );
    let missing = server.ok(path, json!({ "roomID": "nowhere", "createdAt": 5 })).await;
    assert_eq!(missing, json!({ "exist": false, "participants": [] }));
    assert_eq!(
        server.ok(path, json!({ "roomID": "room-0", "createdAt": 5 })).await["exist"],
        true,
        "nothing to contradict"
    );
}

#[tokio::test]
async fn malformed_room_bodies_are_refused_by_field() {
    let (server, _database) = Server::seeded().await;
    let person = json!({ "platformid": "p1", "nickname": "user1" });
    for (path, body, field) in [
        ("check-room", json!({}), "roomID"),
        ("check-room", json!({ "roomID": 7 }), "roomID"),
        ("check-room", json!({ "roomID": "" }), "roomID"),
        ("check-room", json!({ "roomID": "a{b" }), "roomID"),
        ("check-room", json!({ "roomID": "a\nb" }), "roomID"),
        ("check-room", json!({ "roomID": "a".repeat(257) }), "roomID"),
        ("check-room", json!({ "roomID": "a", "createdAt": "soon" }), "createdAt"),
        ("check-room", json!({ "roomID": "a", "createdAt": {} }), "createdAt"),
        ("user-rooms", json!({ "platformid": "p1" }), "username"),
        (
            "user-rooms",
            json!({ "platformid": "", "username": "user1" }),
            "platformid",
        ),
        ("create-room", json!({ "roomID": "r" }), "participants"),
        (
            "create-room",
            json!({ "roomID": "r", "participants": [] }),
            "participants",
        ),
        (
            "create-room",
            json!({ "roomID": "r", "participants": [person, {}] }),
            "participants[1].nickname",
        ),
        (
            "create-room",
            json!({ "roomID": "r", "participants": [{ "platformid": "}", "nickname": "a" }] }),
            "participants[0].platformid",
        ),
        (
            "create-room",
            json!({ "roomID": "r", "participants": [person], "owner": "p2" }),
            "owner",
        ),
        (
            "delete-room",
            json!({ "roomID": "r", "username": "user1" }),
            "platformid",
        ),
    ] {
        let named = server
            .refused(&format!("/api/rooms/{path}"), body, 400, "bad_request")
            .await;
        assert_eq!(named.as_deref(), Some(field), "{path}");
    }
    let crowd = vec![person; 10_001];
    let body = json!({ "roomID": "r", "participants": crowd });
    assert_eq!(
        server
            .refused("/api/rooms/create-room", body, 413, "too_large")
            .await
            .as_deref(),
        Some("participants")
    );
}

#[tokio::test]
async fn creating_a_room_again_adds_who_is_missing() {
    let (server, _database) = Server::seeded().await;
    let room = |created_at: i64, numbers: &[u32]| {
        let people = numbers
            .iter()
            .map(|i| json!({ "platformid": format!("p{i}"), "nickname": format!("user{i}") }));
        json!({ "roomID": "r", "createdAt": created_at, "participants": people.collect::<Vec<_>>() })
    };
    let path = "/api/rooms/create-room";
    assert_eq!(
        server.post(path, room(5, &[1])).await,
        (201, json!({ "roomID": "r", "created": true }))
    );
    assert_eq!(
        server.post(path, room(5, &[1, 2])).await,
        (200, json!({ "roomID": "r", "created": false }))
    );
    server.refused(path, room(6, &[3]), 409, "conflict").await;
    assert_eq!(check(&server, "r").await["participants"].as_array().unwrap().len(), 2);
    assert_eq!(rooms_of(&server, 2).await, json!(["r", "room-2"]));
}

#[tokio::test]
async fn a_room_goes_with_its_last_participant_and_stays_gone() {
    let (server, _database) = Server::seeded().await;
    server.save(&[event("message", "a", 1, 1, "hello")]).await;
    for number in [0, 3, 3, 6] {
        assert!(!leave(&server, "room-0", number).await);
    }
    assert_eq!(rooms_of(&server, 3).await, json!([]));
    assert_eq!(server.ids("room-0", "").await, ["a"]);
    assert!(leave(&server, "room-0", 9).await);
    assert!(
        leave(&server, "room-0", 9).await,
        "a repeated call gets the same answer"
    );
    assert_eq!(check(&server, "room-0").await["exist"], false);
    assert_eq!(server.page("room-0", "").await.len(), 0);
    assert_eq!(server.page("room-0", "raw=1").await.len(), 0);
    // What the archive still held arrives late.
    assert_eq!(server.save(&[event("message", "b", 2, 2, "late")]).await["saved"], 0);
    // A new room of that name begins empty, and only newer events count.
    let room = json!({ "roomID": "room-0", "participants": [{ "platformid": "p0", "nickname": "user0" }] });
    assert_eq!(server.post("/api/rooms/create-room", room).await.0, 201);
    let far = i64::MAX / 2;
    let answer = server
        .save(&[
            event("message", "b", 2, 2, "late"),
            event("message", "c", far, 3, "new"),
        ])
        .await;
    assert_eq!(answer["saved"], 1);
    assert_eq!(server.ids("room-0", "").await, ["c"]);
}

#[tokio::test]
async fn leaving_needs_the_right_identity_and_room() {
    let (server, _database) = Server::seeded().await;
    let path = "/api/rooms/delete-room";
    let body = json!({ "roomID": "room-0", "platformid": "p0", "username": "user3" });
    server.refused(path, body, 403, "unknown_user").await;
    let room = json!({
        "roomID": "r", "createdAt": 5, "owner": "p1",
        "participants": [{ "platformid": "p1", "nickname": "user1" }, { "platformid": "p2", "nickname": "user2" }],
    });
    server.post("/api/rooms/create-room", room).await;
    let body = json!({ "roomID": "r", "createdAt": 6, "platformid": "p1", "username": "user1" });
    server.refused(path, body, 400, "forged").await;
    let body = json!({ "roomID": "r", "createdAt": 5, "platformid": "p1", "username": "user1" });
    assert_eq!(server.ok(path, body).await, json!({ "deleted": false }));
    assert_eq!(check(&server, "r").await.get("owner"), None, "the owner left");
}
