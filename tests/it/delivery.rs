//! Order, completeness and who gets what.

use std::time::Duration;

use roomcast_load::checker::{Checker, Entry, Mode, Receipt};
use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{World, join, send, standalone, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn message_reaches_members_on_other_nodes() {
    let world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    let ack = send(&writer, "room-0", "hello").await;
    for client in [&writer, &reader] {
        let message = &client.expect("message").await.unwrap()[0];
        assert_eq!(message["message"], "hello");
        assert_eq!(message["platformid"], "p0");
        assert_eq!(message["username"], "user0");
        assert_eq!(message["roomID"], "room-0");
        assert_eq!(message["kind"], "message");
        for field in ["id", "seq", "epoch", "ts"] {
            assert_eq!(message[field], ack[field], "{field}");
        }
        assert_eq!(message["timestamp"], message["ts"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn burst_of_1000_arrives_in_order_also_at_a_reader_that_pauses() {
    const MESSAGES: usize = 1000;
    let world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (near, _) = world.joined(0, 4, "room-0").await;
    let (far, _) = world.joined(1, 8, "room-0").await;
    let paused = world.client(1, 12).receive_buffer(4096).connect().await.unwrap();
    join(&paused, "room-0").await;

    let mut checker = Checker::new(Mode::Strict);
    let readers = [("writer", &writer), ("near", &near), ("far", &far), ("paused", &paused)];
    for (name, _) in readers {
        checker.joined(name, "room-0", None);
    }
    paused.pause_reading();
    let padding = "x".repeat(400);
    let acks: Vec<_> = (0..MESSAGES)
        .map(|n| {
            checker.sent("writer", "room-0", &n.to_string());
            writer
                .emit_ack_later(
                    "message",
                    &json!({"roomID": "room-0", "message": padding, "n": n.to_string()}),
                )
                .unwrap()
        })
        .collect();
    for (n, ack) in acks.into_iter().enumerate() {
        let (ack, _) = ack.await.unwrap();
        assert_eq!(ack[0]["ok"], true, "message {n}: {ack:?}");
        let (id, epoch) = (ack[0]["id"].as_str().unwrap(), ack[0]["epoch"].as_str().unwrap());
        let receipt = Receipt {
            id,
            epoch,
            seq: ack[0]["seq"].as_u64().unwrap(),
            ts: ack[0]["ts"].as_u64().unwrap(),
        };
        checker.acked("writer", "room-0", &n.to_string(), receipt);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    paused.resume_reading();
    for (name, client) in readers {
        for _ in 0..MESSAGES {
            receive(&mut checker, name, client).await;
        }
    }
    let report = checker.finish();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.delivered_ratio(), 1.0, "{report}");
}

async fn receive(checker: &mut Checker, reader: &str, client: &Client) -> Value {
    let args = client
        .expect("message")
        .await
        .unwrap_or_else(|error| panic!("{reader}: {error}"));
    let message = &args[0];
    let entry = Entry {
        epoch: message["epoch"].as_str().unwrap(),
        seq: message["seq"].as_u64().unwrap(),
        id: message["id"].as_str().unwrap(),
        key: message["n"].as_str(),
    };
    checker.received(reader, "room-0", entry);
    message.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn join_in_the_same_tick_as_connect_is_always_answered() {
    const CLIENTS: usize = 2000;
    // More handshakes than one address may make.
    let world = World::with(2, &[("GUARD_ALLOW", "127.0.0.0/8")]).await;
    let mut answered = 0;
    for batch in 0..CLIENTS / 100 {
        let clients = futures::future::join_all((0..100).map(|n| {
            let user = (batch * 100 + n) % 40;
            world
                .client(n % 2, user)
                .emit_on_connect("join", json!({"roomID": format!("room-{}", user % 4)}))
                .timeout(Duration::from_secs(30))
                .connect()
        }))
        .await;
        let clients: Vec<Client> = clients.into_iter().map(Result::unwrap).collect();
        for client in &clients {
            client.expect("previousMessages").await.unwrap();
            answered += 1;
        }
    }
    assert_eq!(answered, CLIENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_without_joined_sockets_receives_nothing_of_a_room() {
    let world = World::start(3).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    // Connected, belongs to the room, and has not joined it.
    let idle = world.connect(2, 8).await;
    let (other, _) = world.joined(2, 1, "room-1").await;
    let before = world.metric(2, "roomcast_bus_messages_received_total");
    for n in 0..50 {
        send(&writer, "room-0", &format!("m{n}")).await;
    }
    for _ in 0..50 {
        reader.expect("message").await.unwrap();
    }
    // A message of the room that node 2 has joined proves that its bus was listening all the time.
    send(&other, "room-1", "here").await;
    other.expect("message").await.unwrap();
    assert_eq!(world.metric(2, "roomcast_bus_messages_received_total") - before, 1.0);
    assert!(world.metric(1, "roomcast_bus_messages_received_total") >= 50.0);
    assert!(idle.take("message").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn hole_of_a_lost_bus_connection_is_filled_from_the_log() {
    let world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    let mut sent = 0u64;
    for round in 0..5 {
        for _ in 0..20 {
            send(&writer, "room-0", "x").await;
            sent += 1;
        }
        if round < 4 {
            world.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        }
        if round == 2 {
            world.redis.cli(&["SCRIPT", "FLUSH"]).await;
        }
    }
    for client in [&writer, &reader] {
        for seq in 1..=sent {
            assert_eq!(client.expect("message").await.unwrap()[0]["seq"], seq);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_never_reads_is_cut_and_nobody_else_notices() {
    let world = World::with(1, &[("ROOMCAST_WRITE_STALL", "2s")]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(0, 4, "room-0").await;
    let stalled = world.client(0, 8).receive_buffer(4096).connect().await.unwrap();
    join(&stalled, "room-0").await;
    stalled.pause_reading();
    let padding = "x".repeat(15_000);
    for _ in 0..600 {
        send(&writer, "room-0", &padding).await;
        reader.expect("message").await.unwrap();
        writer.expect("message").await.unwrap();
    }
    until("the stalled socket is gone", Duration::from_secs(25), || async {
        world.metric(0, "roomcast_connections") == 2.0
    })
    .await;
    let room = world.redis.members("joinedRoomUsers:room-0").await;
    assert_eq!(room.len(), 2, "{room:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn late_joiner_gets_what_was_said_and_then_the_live_rest() {
    let world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let ack = send(&writer, "room-0", "first").await;
    send(&writer, "room-0", "second").await;

    let writing = tokio::spawn(async move {
        for n in 0..200 {
            send(&writer, "room-0", &format!("m{n}")).await;
        }
        writer
    });
    let reader = world.connect(1, 4).await;
    let cursor = &ack["id"];
    let joined = reader
        .emit_ack("join", &json!({"roomID": "room-0", "lastmessage": cursor}))
        .await
        .unwrap();
    assert_eq!(joined[0]["ok"], true);
    let previous = reader.expect("previousMessages").await.unwrap();
    let mut seqs: Vec<u64> = previous[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["seq"].as_u64().unwrap())
        .collect();
    let _writer = within("the writer is done", writing).await.unwrap();
    while *seqs.last().unwrap() < 202 {
        seqs.push(reader.expect("message").await.unwrap()[0]["seq"].as_u64().unwrap());
    }
    assert_eq!(seqs, (2..=202).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_that_lags_is_brought_up_from_the_log_without_a_hole() {
    const MESSAGES: u64 = 700;
    let world = World::start(1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let slow = world.client(0, 4).receive_buffer(4096).connect().await.unwrap();
    join(&slow, "room-0").await;
    slow.pause_reading();
    // More than the kernel's buffers and the socket's queue hold together, and fewer events behind than cut it.
    let padding = "x".repeat(16_000);
    for _ in 0..MESSAGES {
        send(&writer, "room-0", &padding).await;
    }
    assert_eq!(world.metric(0, "roomcast_lagging_sockets"), 1.0, "the reader lags");
    slow.resume_reading();
    for seq in 1..=MESSAGES {
        assert_eq!(slow.expect("message").await.unwrap()[0]["seq"], seq);
    }
    until("it is live again", Duration::from_secs(5), || async {
        world.metric(0, "roomcast_lagging_sockets") == 0.0
    })
    .await;
    send(&writer, "room-0", "live").await;
    assert_eq!(slow.expect("message").await.unwrap()[0]["message"], "live");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_is_shared_lingers_and_ends() {
    let world = standalone(2, &[]).await;
    let (first, _) = world.joined(0, 0, "room-0").await;
    let channel = world.redis.cli(&["PUBSUB", "CHANNELS", "*:room:room-0:live"]).await;
    assert_eq!(channel.len(), 1);
    let subscribers = async || world.redis.cli(&["PUBSUB", "NUMSUB", &channel[0]]).await[1].clone();
    assert_eq!(subscribers().await, "1");
    let (second, _) = world.joined(0, 4, "room-0").await;
    assert_eq!(subscribers().await, "1", "one node, one subscription");
    let (other, _) = world.joined(1, 8, "room-0").await;
    assert_eq!(subscribers().await, "2");
    for client in [&first, &other] {
        assert_eq!(
            client.emit_ack("leave", &json!({"roomID": "room-0"})).await.unwrap()[0]["ok"],
            true
        );
    }
    second.kill();
    until("the socket is gone", Duration::from_secs(10), || async {
        world.metric(0, "roomcast_connections") == 1.0
    })
    .await;
    assert_eq!(subscribers().await, "2", "people come back");
    join(&first, "room-0").await;
    until("the other node lets go", Duration::from_secs(45), || async {
        subscribers().await == "1"
    })
    .await;
    // The room that somebody came back to is still heard.
    send(&first, "room-0", "here").await;
    first.expect("message").await.unwrap();
    assert_eq!(
        first.emit_ack("leave", &json!({"roomID": "room-0"})).await.unwrap()[0]["ok"],
        true
    );
    until("nobody listens", Duration::from_secs(45), || async {
        subscribers().await == "0"
    })
    .await;
}
