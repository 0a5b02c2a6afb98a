//! Silent failures of the bus: what no reconnect announces is found and repaired, or the sockets are let go.

use std::time::{Duration, Instant};

use roomcast_load::client::ConnectError;
use serde_json::json;

use crate::support::{join, send, standalone, until, within};

/// Puts an event into a room's log as `post` does, and publishes nothing: a message that the bus lost.
const POST_UNHEARD: &str = r#"
local log = redis.call('KEYS', '*:room:room-0:log')[1]
local meta = redis.call('KEYS', '*:room:room-0:meta')[1]
local active = string.match(log, '^(.-}):') .. ':active'
local seq = redis.call('HGET', meta, 'seq') + 1
local ts = string.format('%d', redis.call('HGET', meta, 'ts') + 1)
local epoch = redis.call('HGET', meta, 'epoch')
local json = '{"roomID":"room-0","platformid":"p8","username":"user8","message":"unheard","kind":"message","id":"'
  .. ts .. '-' .. seq .. '","timestamp":' .. ts .. ',"ts":' .. ts .. ',"seq":' .. seq .. ',"epoch":"' .. epoch .. '"}'
redis.call('XADD', log, ts .. '-' .. seq, 'k', 'message', 'u', 'p8', 'p', epoch, 't', '', 'e', json)
redis.call('HSET', meta, 'seq', seq, 'ts', ts)
redis.call('ZADD', active, ts, 'room-0')
return seq
"#;

#[tokio::test(flavor = "multi_thread")]
async fn message_that_the_bus_lost_arrives_within_10_s_although_nobody_writes_again() {
    let world = standalone(2, &[]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    send(&writer, "room-0", "heard").await;
    for client in [&writer, &reader] {
        client.expect("message").await.unwrap();
    }
    assert_eq!(world.redis.cli(&["EVAL", POST_UNHEARD, "0"]).await, ["2"]);
    for client in [&writer, &reader] {
        let message = client.expect_within("message", Duration::from_secs(10)).await.unwrap();
        assert_eq!(
            (&message[0]["message"], &message[0]["seq"]),
            (&json!("unheard"), &json!(2))
        );
    }
    assert_eq!(world.metric(1, "roomcast_rooms_behind_total"), 1.0);
    send(&writer, "room-0", "heard again").await;
    assert_eq!(reader.expect("message").await.unwrap()[0]["seq"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_joined_a_room_learns_within_5_s_that_something_happens_there() {
    let world = standalone(2, &[]).await;
    let outsider = world.connect(1, 4).await;
    let stranger = world.connect(1, 1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    for _ in 0..3 {
        send(&writer, "room-0", "x").await;
    }
    let started = Instant::now();
    let update = within(
        "the activity is told",
        outsider.expect_where("roomUpdate", |args| args[0]["topSeq"] == 3),
    )
    .await
    .unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(update[0]["roomID"], "room-0");
    let told = |client: &roomcast_load::client::Client| {
        client
            .take("roomUpdate")
            .iter()
            .any(|args| args[0]["roomID"] == "room-0" && args[0].get("topSeq").is_some())
    };
    assert!(!told(&writer), "who has joined gets the messages themselves");
    assert!(!told(&stranger), "who does not belong to the room hears nothing of it");
    // It is told once, and again only when there is more.
    send(&writer, "room-0", "more").await;
    outsider
        .expect_where("roomUpdate", |args| args[0]["topSeq"] == 4)
        .await
        .unwrap();
    assert!(!told(&outsider));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_hears_nothing_of_redis_closes_its_connections_within_10_s_and_comes_back() {
    let world = standalone(1, &[]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let sent = send(&client, "room-0", "before").await;
    let started = Instant::now();
    // Connected and silent, as behind a cable that was pulled.
    let frozen = world.redis.cli(&["DEBUG", "SLEEP", "13"]);
    let watched = async {
        until("the node is unready", Duration::from_secs(8), || async {
            !world.nodes[0].health.is_ready()
        })
        .await;
        within("the connection is closed", client.closed()).await;
        let after = started.elapsed();
        assert!(after <= Duration::from_secs(10), "{after:?}");
        match world.client(0, 0).connect().await {
            Err(ConnectError::Http { status: 503, .. }) => {}
            other => panic!("{other:?}"),
        }
    };
    tokio::join!(frozen, watched);
    until("the node serves again", Duration::from_secs(5), || async {
        world.nodes[0].health.is_ready()
    })
    .await;
    let client = world.connect(0, 0).await;
    assert_eq!(join(&client, "room-0").await[0]["id"], sent["id"]);
    send(&client, "room-0", "after").await;
    client.expect("message").await.unwrap();
}
