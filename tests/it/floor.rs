//! Where the log ends and the archive begins: both meet, or the answer says that they do not.

use std::time::Duration;

use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{Switchable, World, auth, join, send, until};

fn numbers(messages: &Value, field: &str) -> Vec<u64> {
    messages
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message[field].as_u64().unwrap())
        .collect()
}

/// A world whose worker trims everything but the 10 newest events, with 100 messages in room-0.
async fn trimmed_world() -> (
    World,
    roomcast::worker::Worker,
    roomcast_load::client::Client,
    Vec<Value>,
) {
    let settings = [("ROOMCAST_LOG_KEEP_EVENTS", "10"), ("ROOMCAST_LOG_KEEP_AGE", "0s")];
    let world = World::with(2, &settings).await;
    let worker = world.worker().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let mut sent = Vec::new();
    for n in 0..100 {
        sent.push(send(&writer, "room-0", &format!("m{n}")).await);
    }
    until("all is archived", Duration::from_secs(10), || async {
        world.services.messages("room-0").await.len() == 100
    })
    .await;
    // The next batch trims what this one has archived.
    sent.push(send(&writer, "room-0", "m100").await);
    until("the log is trimmed", Duration::from_secs(10), || async {
        log_length(&world).await == 10
    })
    .await;
    (world, worker, writer, sent)
}

async fn proto2(world: &World, node: usize, user: usize) -> Client {
    let mut auth = auth(user);
    auth["proto"] = json!(2);
    world.client(node, user).auth(auth).connect().await.unwrap()
}

async fn log_length(world: &World) -> usize {
    let key = world.redis.cli(&["KEYS", "*:room:room-0:log"]).await;
    world.redis.cli(&["XLEN", &key[0]]).await[0].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_events_leave_the_log_and_come_from_the_archive_once() {
    let (world, _worker, _writer, sent) = trimmed_world().await;
    // An old client, by time.
    let old = world.connect(1, 4).await;
    let cursor = json!({"roomID": "room-0", "lastmessage": sent[4]["ts"]});
    let ack = old.emit_ack("join", &cursor).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    let previous = old.expect("previousMessages").await.unwrap();
    assert_eq!(numbers(&previous[0], "seq"), (6..=101).collect::<Vec<_>>());
    // Protocol 2, by number and time.
    let new = proto2(&world, 1, 8).await;
    let cursor = json!({"roomID": "room-0", "epoch": sent[4]["epoch"], "seq": 5, "ts": sent[4]["ts"]});
    let ack = new.emit_ack("join", &cursor).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    let previous = new.expect("previousMessages").await.unwrap();
    assert_eq!(numbers(&previous[0], "seq"), (6..=101).collect::<Vec<_>>());
    assert_eq!(previous[1]["recovered"], true, "{}", previous[1]);
    assert_eq!(previous[1]["topSeq"], 101);
    // At or above the floor the archive is not asked.
    world.services.fail("/api/messages", Switchable::Status(503));
    let ack = new.emit_ack("leave", &json!({"roomID": "room-0"})).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    let cursor = json!({"roomID": "room-0", "epoch": sent[90]["epoch"], "seq": 91, "ts": sent[90]["ts"]});
    let ack = new.emit_ack("join", &cursor).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    let previous = new.expect("previousMessages").await.unwrap();
    assert_eq!(numbers(&previous[0], "seq"), (92..=101).collect::<Vec<_>>());
    assert_eq!(previous[1]["recovered"], true);
    // Below it the answer says that it cannot be given now.
    let other = proto2(&world, 0, 12).await;
    let cursor = json!({"roomID": "room-0", "epoch": sent[4]["epoch"], "seq": 5, "ts": sent[4]["ts"]});
    let ack = other.emit_ack("join", &cursor).await.unwrap();
    assert_eq!(
        (&ack[0]["ok"], &ack[0]["code"]),
        (&json!(false), &json!("unavailable")),
        "{ack:?}"
    );
    assert!(ack[0]["retryAfterMs"].is_u64(), "{ack:?}");
    world.services.heal();
    let ack = other.emit_ack("join", &cursor).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_archived_messages_are_applied_once() {
    let (world, _worker, writer, sent) = trimmed_world().await;
    let edit = json!({"roomID": "room-0", "id": sent[4]["id"], "message": "changed"});
    assert_eq!(writer.emit_ack("editMessage", &edit).await.unwrap()[0]["ok"], true);
    let delete = json!({"roomID": "room-0", "id": sent[5]["id"]});
    assert_eq!(writer.emit_ack("deleteMessage", &delete).await.unwrap()[0]["ok"], true);
    let old = world.connect(1, 4).await;
    let cursor = json!({"roomID": "room-0", "lastmessage": sent[3]["ts"]});
    assert_eq!(old.emit_ack("join", &cursor).await.unwrap()[0]["ok"], true);
    let previous = old.expect("previousMessages").await.unwrap();
    let texts: Vec<&str> = previous[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["message"].as_str().unwrap())
        .collect();
    assert_eq!(
        texts[..2],
        ["changed", "m6"],
        "the edit is applied, the deleted one is gone"
    );
    assert_eq!(texts.len(), 96);
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_waits_for_the_services_and_drains() {
    let world = World::start(1).await;
    let worker = world.worker().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    world
        .services
        .fail("/api/messages/save-messages", Switchable::Status(503));
    for n in 0..200 {
        send(&writer, "room-0", &format!("m{n}")).await;
    }
    let gauge = |name: &str| {
        let page = worker.metrics.render();
        let line = page
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        // Nothing is shown before the first look.
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
    };
    until("the lag is visible", Duration::from_secs(10), || async {
        gauge("roomcast_archive_lag_seconds") >= 2.0 && gauge("roomcast_archive_backlog_events") == 200.0
    })
    .await;
    world.services.heal();
    until("everything is archived, once", Duration::from_secs(10), || async {
        world.services.messages("room-0").await.len() == 200
    })
    .await;
    until("nothing lags", Duration::from_secs(10), || async {
        gauge("roomcast_archive_lag_seconds") == 0.0 && gauge("roomcast_archive_backlog_events") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archive_that_is_full_refuses_messages_until_it_drains() {
    let world = World::with(1, &[("ROOMCAST_ARCHIVE_MAX_BYTES", "4000")]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let mut stored = 0;
    let refusal = loop {
        let ack = writer
            .emit_ack("message", &json!({"roomID": "room-0", "message": "x"}))
            .await
            .unwrap();
        if ack[0]["ok"] != true {
            break ack;
        }
        stored += 1;
        assert!(stored < 100, "the limit holds");
    };
    assert_eq!(refusal[0]["code"], "unavailable", "{refusal:?}");
    assert!(refusal[0]["retryAfterMs"].is_u64(), "{refusal:?}");
    // Another room of another partition is not concerned.
    let (other, _) = world.joined(0, 1, "room-1").await;
    send(&other, "room-1", "x").await;
    let _worker = world.worker().await;
    until("there is room again", Duration::from_secs(10), || async {
        writer
            .emit_ack("message", &json!({"roomID": "room-0", "message": "y"}))
            .await
            .unwrap()[0]["ok"]
            == true
    })
    .await;
    let fresh = world.connect(0, 4).await;
    assert_eq!(join(&fresh, "room-0").await.len(), stored + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_archived_while_somebody_joins_comes_once() {
    let world = World::start(1).await;
    let _worker = world.worker().await;
    // In rooms of their own: of one room only the first would ask.
    let rooms = ["room-0", "room-1"];
    let writers = [
        world.joined(0, 0, rooms[0]).await.0,
        world.joined(0, 1, rooms[1]).await.0,
    ];
    // What the archive has below an empty log was asked a moment ago; of one with a message it is asked anew.
    for (writer, room) in writers.iter().zip(rooms) {
        send(writer, room, "before").await;
    }
    // A log that is short may be the end of a long history, so both ask the archive.
    world.services.fail("/api/messages/get-messages", Switchable::Held);
    let joining = [world.connect(0, 4).await, proto2(&world, 0, 5).await];
    let acks = [0, 1].map(|n| {
        let ack = joining[n].emit_ack_later("join", &json!({"roomID": rooms[n]}));
        ack.unwrap()
    });
    until("both have read the log", Duration::from_secs(2), || async {
        world.services.held() == 2
    })
    .await;
    for (writer, room) in writers.iter().zip(rooms) {
        send(writer, room, "meanwhile").await;
    }
    // Not by the services, whose answers are held: by what is left to be saved.
    until("all is archived", Duration::from_secs(4), || async {
        let waiting = world.redis.cli(&["--scan", "--pattern", "rc:*:archive"]).await;
        for stream in &waiting {
            if world.redis.cli(&["XLEN", stream]).await != ["0"] {
                return false;
            }
        }
        true
    })
    .await;
    world.services.heal();
    for ack in acks {
        assert_eq!(ack.await.unwrap().0[0]["ok"], true);
    }
    for (writer, room) in writers.iter().zip(rooms) {
        send(writer, room, "afterwards").await;
    }
    for client in &joining {
        let previous = client.expect("previousMessages").await.unwrap();
        let mut seen = numbers(&previous[0], "seq");
        while seen.last() != Some(&3) {
            seen.push(client.expect("message").await.unwrap()[0]["seq"].as_u64().unwrap());
        }
        assert_eq!(seen, [1, 2, 3]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_come_back_at_once_ask_the_archive_together() {
    let world = World::start(1).await;
    world.services.fail("/api/messages/get-messages", Switchable::Held);
    let mut joining = Vec::new();
    for n in 1..6 {
        joining.push(world.connect(0, 4 * n).await);
    }
    let join = |client: &Client| client.emit_ack_later("join", &json!({"roomID": "room-0"})).unwrap();
    let acks: Vec<_> = joining.iter().map(join).collect();
    until("an answer is waited for", Duration::from_secs(2), || async {
        world.services.held() == 1
    })
    .await;
    world.services.heal();
    for ack in acks {
        assert_eq!(ack.await.unwrap().0[0]["ok"], true);
    }
    let calls = world.metric(0, "roomcast_upstream_requests_total{call=\"messages\",result=\"ok\"}");
    assert!(calls < 5.0, "{calls} calls for five joins");
}
