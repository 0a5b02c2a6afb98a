//! How saved events add up to messages, whatever order they come in.

use serde_json::{Value, json};

use super::support::{Server, event, ids};

async fn message(server: &Server, id: &str) -> (u16, Value) {
    server.get(&format!("/api/messages/get-message/room-0/{id}")).await
}

#[tokio::test]
async fn an_edit_may_come_before_its_message() {
    let (server, _database) = Server::seeded().await;
    server.save(&[event("edit", "a", 20, 2, "edited")]).await;
    assert_eq!(message(&server, "a").await.0, 404);
    assert_eq!(server.page("room-0", "").await.len(), 0);
    server.save(&[event("message", "a", 10, 1, "original")]).await;
    let (status, folded) = message(&server, "a").await;
    let mut expected = event("message", "a", 10, 1, "edited");
    expected["rev"] = json!(2);
    assert_eq!(
        (status, &folded),
        (200, &expected),
        "text and rev of the edit, all else of the original"
    );
    assert_eq!(server.page("room-0", "").await, [expected]);
}

#[tokio::test]
async fn the_highest_edit_wins_in_any_order() {
    let (server, _database) = Server::seeded().await;
    server.save(&[event("edit", "a", 30, 3, "third")]).await;
    server
        .save(&[
            event("message", "a", 10, 1, "first"),
            event("edit", "a", 20, 2, "second"),
        ])
        .await;
    assert_eq!(message(&server, "a").await.1["message"], "third");
    let mut last = event("edit", "a", 30, 4, "fourth");
    last["rev"] = json!(44);
    server.save(&[last]).await;
    let folded = message(&server, "a").await.1;
    assert_eq!(
        (&folded["message"], &folded["rev"], &folded["seq"]),
        (&json!("fourth"), &json!(44), &json!(1))
    );
}

#[tokio::test]
async fn a_deletion_is_final_for_what_came_before() {
    let (server, _database) = Server::seeded().await;
    server.save(&[event("delete", "a", 30, 3, "")]).await;
    server
        .save(&[
            event("message", "a", 10, 1, "late"),
            event("message", "b", 11, 2, "stays"),
        ])
        .await;
    server.save(&[event("edit", "a", 40, 4, "too late")]).await;
    assert_eq!(message(&server, "a").await.0, 404);
    assert_eq!(server.ids("room-0", "").await, ["b"]);
    assert_eq!(
        server.page("room-0", "raw=1").await.len(),
        4,
        "the events themselves are kept"
    );
    server.save(&[event("delete", "b", 50, 5, "")]).await;
    assert_eq!(server.page("room-0", "").await.len(), 0);
}

#[tokio::test]
async fn a_batch_may_hold_everything_about_a_message() {
    let (server, _database) = Server::seeded().await;
    let answer = server
        .save(&[
            event("edit", "a", 30, 3, "newest"),
            event("message", "a", 10, 1, "first"),
            event("edit", "a", 20, 2, "older"),
            event("message", "b", 40, 4, "x"),
            event("delete", "b", 50, 5, ""),
            event("gpt", "a-r", 60, 6, "answer"),
        ])
        .await;
    assert_eq!(answer, json!({ "saved": 6, "skipped": 0 }));
    let page = server.page("room-0", "").await;
    assert_eq!(ids(&page), ["a", "a-r"]);
    assert_eq!(page[0]["message"], "newest");
    assert_eq!(page[1]["kind"], "gpt");
}

#[tokio::test]
async fn saving_twice_changes_nothing() {
    let (server, _database) = Server::seeded().await;
    let events = [
        event("message", "a", 10, 1, "first"),
        event("edit", "a", 20, 2, "second"),
    ];
    assert_eq!(server.save(&events).await, json!({ "saved": 2, "skipped": 0 }));
    let before = (server.page("room-0", "").await, server.page("room-0", "raw=1").await);
    assert_eq!(server.save(&events).await, json!({ "saved": 0, "skipped": 2 }));
    // Same place, other content: the first one counts, also within one call.
    let other = event("message", "z", 99, 1, "impostor");
    assert_eq!(
        server.save(&[other.clone(), other]).await,
        json!({ "saved": 0, "skipped": 2 })
    );
    assert_eq!(
        (server.page("room-0", "").await, server.page("room-0", "raw=1").await),
        before
    );
    let twin = event("message", "c", 30, 3, "once");
    assert_eq!(
        server.save(&[twin.clone(), twin]).await,
        json!({ "saved": 1, "skipped": 1 })
    );
    assert_eq!(server.save(&[]).await, json!({ "saved": 0, "skipped": 0 }));
}

#[tokio::test]
async fn epochs_number_on_their_own() {
    let (server, _database) = Server::seeded().await;
    let mut second = event("message", "b", 20, 1, "after the failover");
    second["epoch"] = json!("e2");
    let mut edit = event("edit", "a", 30, 2, "changed in the second epoch");
    edit["epoch"] = json!("e2");
    let answer = server
        .save(&[event("message", "a", 10, 1, "before it"), second.clone(), edit.clone()])
        .await;
    assert_eq!(answer["saved"], 3);
    assert_eq!(server.ids("room-0", "").await, ["a", "b"]);
    assert_eq!(message(&server, "a").await.1["message"], "changed in the second epoch");
    assert_eq!(message(&server, "a").await.1["epoch"], "e1");
    assert_eq!(
        server.page("room-0", "type=gap&epoch=e2&from=1&to=9").await,
        [second, edit]
    );
    assert_eq!(server.page("room-0", "type=gap&epoch=e1&from=2&to=9").await.len(), 0);
}

#[tokio::test]
async fn raw_events_come_back_as_they_were_saved() {
    let (server, _database) = Server::seeded().await;
    // Numbers beyond 64 bits and a lone surrogate, which JavaScript can write, survive.
    let odd = r#"{"id":"a","roomID":"room-0","epoch":"e1","seq":1,"ts":10,"kind":"message","message":"\ud800 \u0000","n":12345678901234567890123}"#;
    let body = format!(r#"{{"events":[{odd}]}}"#);
    assert_eq!(server.post_text("/api/messages/save-messages", body).await.0, 200);
    let get = async |path: &str| {
        let response = reqwest::get(format!("{}/api/messages/{path}", server.url))
            .await
            .unwrap();
        response.text().await.unwrap()
    };
    assert_eq!(get("get-messages/room-0?raw=1").await, format!("[{odd}]"));
    assert_eq!(get("get-messages/room-0").await, format!("[{odd}]"));
    assert_eq!(get("get-message/room-0/a").await, odd);
    server.save(&[event("edit", "a", 20, 2, "sane")]).await;
    let folded = get("get-message/room-0/a").await;
    assert!(
        folded.contains("12345678901234567890123") && folded.contains(r#""message":"sane""#),
        "{folded}"
    );
}

#[tokio::test]
async fn ids_are_percent_decoded() {
    let (server, _database) = Server::seeded().await;
    let mut odd = event("message", "a/b c%", 10, 1, "x");
    odd["roomID"] = json!("방 1/2");
    server.save(&[odd.clone()]).await;
    let room = "%EB%B0%A9%201%2F2";
    assert_eq!(
        server
            .get(&format!("/api/messages/get-message/{room}/a%2Fb%20c%25"))
            .await,
        (200, odd.clone())
    );
    assert_eq!(server.page(room, "").await, [odd]);
}

#[tokio::test]
async fn malformed_events_are_refused_by_field_and_nothing_is_saved() {
    let (server, _database) = Server::seeded().await;
    let good = event("message", "a", 10, 1, "x");
    let with = |name: &str, value: Value| {
        let mut event = event("edit", "b", 20, 2, "x");
        event[name] = value;
        event
    };
    let without = |name: &str| {
        let mut event = event("edit", "b", 20, 2, "x");
        event.as_object_mut().unwrap().remove(name);
        event
    };
    for (bad, field) in [
        (json!(5), "events[1]"),
        (json!([]), "events[1]"),
        (without("roomID"), "events[1].roomID"),
        (with("roomID", json!("")), "events[1].roomID"),
        (without("id"), "events[1].id"),
        (with("id", json!("{")), "events[1].id"),
        (without("epoch"), "events[1].epoch"),
        (with("epoch", json!(3)), "events[1].epoch"),
        (without("seq"), "events[1].seq"),
        (with("seq", json!(-1)), "events[1].seq"),
        (with("seq", json!(1.5)), "events[1].seq"),
        (with("ts", json!(-1)), "events[1].ts"),
        (with("ts", json!("later")), "events[1].ts"),
        (with("kind", json!("shout")), "events[1].kind"),
        (without("kind"), "events[1].kind"),
        (without("message"), "events[1].message"),
    ] {
        let body = json!({ "events": [good, bad] });
        let named = server
            .refused("/api/messages/save-messages", body, 400, "bad_request")
            .await;
        assert_eq!(named.as_deref(), Some(field), "{bad}");
    }
    let large = with("message", json!("x".repeat(300_000)));
    let body = json!({ "events": [large] });
    assert_eq!(
        server
            .refused("/api/messages/save-messages", body, 413, "too_large")
            .await
            .as_deref(),
        Some("events[0]")
    );
    let many = vec![json!({}); 1001];
    let body = json!({ "events": many });
    assert_eq!(
        server
            .refused("/api/messages/save-messages", body, 413, "too_large")
            .await
            .as_deref(),
        Some("events")
    );
    assert_eq!(server.page("room-0", "raw=1").await.len(), 0);
    let mut bare = without("ts");
    bare["timestamp"] = json!("2023-11-14T22:13:20.123Z");
    assert_eq!(server.save(&[bare]).await["saved"], 1, "the timestamp will do");
}

#[tokio::test]
async fn concurrent_saves_of_the_same_events_store_them_once() {
    let (server, _database) = Server::seeded().await;
    let events: Vec<Value> = (0..500)
        .map(|i| event("message", &format!("m{i}"), i, i, "x"))
        .collect();
    let mut reversed = events.clone();
    reversed.reverse();
    let (a, b, c) = tokio::join!(server.save(&events), server.save(&reversed), server.save(&events));
    let saved: u64 = [a, b, c].iter().map(|answer| answer["saved"].as_u64().unwrap()).sum();
    assert_eq!(saved, 500);
    assert_eq!(server.page("room-0", "limit=1000").await.len(), 500);
}
