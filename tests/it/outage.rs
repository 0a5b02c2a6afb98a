//! Redis, the services or a node go away and come back.

use std::time::{Duration, Instant};

use roomcast_load::client::{Client, ConnectError};
use serde_json::json;

use crate::support::{Switchable, World, join, send, until};

async fn until_sent(client: &Client, room: &str, text: &str) {
    until("messages are stored again", Duration::from_secs(15), || async {
        let ack = client
            .emit_ack("message", &json!({"roomID": room, "message": text}))
            .await
            .unwrap();
        ack[0]["ok"] == true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restart_keeps_the_sockets_and_loses_nothing() {
    let mut world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    send(&writer, "room-0", "before").await;
    assert_eq!(reader.expect("message").await.unwrap()[0]["message"], "before");
    world.redis.kill().await;
    for _ in 0..3 {
        let started = Instant::now();
        let ack = writer
            .emit_ack("message", &json!({"roomID": "room-0", "message": "lost"}))
            .await
            .unwrap();
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        assert!(
            ["unavailable", "uncertain"].contains(&ack[0]["code"].as_str().unwrap()),
            "{ack:?}"
        );
        assert!(ack[0]["retryAfterMs"].as_u64().unwrap() > 0);
    }
    match world.client(0, 8).connect().await {
        Err(ConnectError::Http { status: 503, body, .. }) => assert!(body.contains("auth_unavailable"), "{body}"),
        other => panic!("{other:?}"),
    }
    world.redis.resume().await;
    let back = Instant::now();
    until_sent(&writer, "room-0", "after").await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    let after = reader
        .expect_where("message", |args| args[0]["message"] == "after")
        .await
        .unwrap();
    assert_eq!(after[0]["platformid"], "p0");
    assert!(writer.is_connected() && reader.is_connected());
    until("handshakes are let through again", Duration::from_secs(5), || async {
        world.client(0, 8).connect().await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_comes_back_empty_is_noticed_and_chat_goes_on() {
    let mut world = World::start(1).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let before = send(&client, "room-0", "before").await;
    client.expect("message").await.unwrap();
    world.redis.kill().await;
    world.redis.wipe_disk().await;
    world.redis.resume().await;
    // What the client has seen is gone: a legacy client's transport is closed, so that it comes back and joins again.
    tokio::time::timeout(Duration::from_secs(15), client.closed())
        .await
        .expect("continuity is lost, and told");
    // The way back may be a moment longer: who asks sentinels waits until they agree.
    until("handshakes are let through", Duration::from_secs(10), || async {
        world.client(0, 8).connect().await.is_ok()
    })
    .await;
    let client = world.connect(0, 0).await;
    join(&client, "room-0").await;
    let after = send(&client, "room-0", "after").await;
    assert_ne!(before["epoch"], after["epoch"]);
    assert_eq!(client.expect("message").await.unwrap()[0]["message"], "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_goes_on_without_the_services_and_the_archive_drains_afterwards() {
    let world = World::start(2).await;
    let _worker = world.worker().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    world.services.fail("/", Switchable::Status(503));
    for n in 0..20 {
        send(&writer, "room-0", &format!("m{n}")).await;
        reader.expect("message").await.unwrap();
    }
    // A new handshake needs no service while its token holds; a join does.
    let late = world.connect(0, 1).await;
    let ack = late.emit_ack("join", &json!({"roomID": "room-1"})).await.unwrap();
    assert_eq!(ack[0]["code"], "unavailable");
    world.services.heal();
    until("the archive has everything", Duration::from_secs(15), || async {
        world.services.messages("room-0").await.len() == 20
    })
    .await;
    until("the join works again", Duration::from_secs(15), || async {
        late.emit_ack("join", &json!({"roomID": "room-1"})).await.unwrap()[0]["ok"] == true
    })
    .await;
    assert!(writer.is_connected() && reader.is_connected());
    assert!(
        world.redis.cli(&["--scan", "--pattern", "*:ban"]).await.is_empty(),
        "an outage blocks nobody"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn node_started_before_redis_waits_and_serves_when_it_comes() {
    let mut world = World::start(0).await;
    world.redis.kill().await;
    let node = roomcast::node::Node::start(world.config()).await.unwrap();
    world.nodes.push(node);
    match world.client(0, 0).connect().await {
        Err(ConnectError::Http { status: 503, .. }) => {}
        other => panic!("{other:?}"),
    }
    let ready = reqwest::get(format!("http://{}/readyz", world.nodes[0].ops_address))
        .await
        .unwrap();
    assert_eq!(ready.status(), 503);
    world.redis.resume().await;
    tokio::time::timeout(Duration::from_secs(10), world.nodes[0].ready())
        .await
        .unwrap()
        .unwrap();
    let (client, _) = world.joined(0, 0, "room-0").await;
    send(&client, "room-0", "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_of_a_crashed_node_finds_everything_on_another() {
    let mut world = World::start(2).await;
    let (writer, _) = world.joined(1, 4, "room-0").await;
    let (reader, _) = world.joined(0, 0, "room-0").await;
    let seen = send(&writer, "room-0", "seen").await;
    reader.expect("message").await.unwrap();
    world.nodes.remove(0).crash();
    reader.closed().await;
    for n in 0..10 {
        send(&writer, "room-0", &format!("missed {n}")).await;
    }
    let reader = world.connect(0, 0).await;
    reader
        .emit_ack("join", &json!({"roomID": "room-0", "lastmessage": seen["ts"]}))
        .await
        .unwrap();
    let previous = reader.expect("previousMessages").await.unwrap();
    assert_eq!(previous[0].as_array().unwrap().len(), 10);
}
