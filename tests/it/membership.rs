//! The legacy keys: true through joins, leaves, devices, disconnects and crashes.

use std::time::Duration;

use roomcast::redis::NODE_TTL;
use serde_json::json;

use crate::support::{World, send, until};

fn sorted(mut sids: Vec<&str>) -> Vec<String> {
    sids.sort_unstable();
    sids.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_keys_follow_the_sockets() {
    let world = World::start(2).await;
    let phone = world.connect(0, 0).await;
    let (laptop, _) = world.joined(1, 0, "room-0").await;
    let (other, _) = world.joined(1, 4, "room-0").await;
    let redis = &world.redis;
    until("all are written", Duration::from_secs(5), || async {
        redis.members("roomUsers:room-0").await.len() == 3
    })
    .await;
    assert_eq!(
        redis.members("roomUsers:room-0").await,
        sorted(vec![phone.sid(), laptop.sid(), other.sid()])
    );
    assert_eq!(
        redis.members("joinedRoomUsers:room-0").await,
        sorted(vec![laptop.sid(), other.sid()])
    );
    assert_eq!(redis.members("userRooms:p0").await, ["room-0"]);
    let ttl: i64 = redis.cli(&["TTL", "userRooms:p0"]).await[0].parse().unwrap();
    assert!((60..=120).contains(&ttl), "{ttl}");
    for key in ["roomUsers:room-0", "joinedRoomUsers:room-0", "userRooms:p0"] {
        assert_eq!(redis.cli(&["TYPE", key]).await, ["set"]);
    }

    laptop.disconnect().await;
    until("the laptop is gone", Duration::from_secs(5), || async {
        redis.members("roomUsers:room-0").await == sorted(vec![phone.sid(), other.sid()])
            && redis.members("joinedRoomUsers:room-0").await == [other.sid()]
    })
    .await;
    phone.kill();
    other.kill();
    until("nobody is left", Duration::from_secs(5), || async {
        redis.members("roomUsers:room-0").await.is_empty() && redis.members("joinedRoomUsers:room-0").await.is_empty()
    })
    .await;
    let history = redis.cli(&["LRANGE", "connections:p0", "0", "-1"]).await;
    assert_eq!(history.len(), 4, "{history:?}");
    let newest: serde_json::Value = serde_json::from_str(&history[0]).unwrap();
    assert_eq!(newest["event"], "disconnect");
    assert_eq!(newest["ip"], "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn message_counts_are_flushed() {
    let world = World::start(1).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    for _ in 0..7 {
        send(&client, "room-0", "x").await;
    }
    until("seven are counted", Duration::from_secs(15), || async {
        world.redis.cli(&["GET", "messageRequests:p0"]).await == ["7"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_node_leaves_nothing_behind() {
    let mut world = World::start(2).await;
    let (gone, _) = world.joined(0, 0, "room-0").await;
    let (stays, _) = world.joined(1, 4, "room-0").await;
    let node = world.nodes.remove(0);
    node.stop().await;
    gone.closed().await;
    assert_eq!(world.redis.members("roomUsers:room-0").await, [stays.sid()]);
    assert_eq!(world.redis.members("joinedRoomUsers:room-0").await, [stays.sid()]);
    assert_eq!(
        world.redis.cli(&["--scan", "--pattern", "rc:{node:*"]).await.len(),
        2,
        "only the other node's keys"
    );
    send(&stays, "room-0", "still here").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashed_node_leaves_no_ghost_after_60_seconds() {
    let mut world = World::start(2).await;
    let (_gone, _) = world.joined(0, 0, "room-0").await;
    let (stays, _) = world.joined(1, 4, "room-0").await;
    let idle = world.connect(1, 8).await;
    // Reaping begins when Redis has been up for a minute: everybody had the time to come back.
    tokio::time::sleep(Duration::from_secs(35)).await;
    world.nodes.remove(0).crash();
    until("the ghost is gone", Duration::from_secs(60), || async {
        world.redis.members("roomUsers:room-0").await.len() == 2
    })
    .await;
    assert_eq!(world.redis.members("joinedRoomUsers:room-0").await, [stays.sid()]);
    // The dead node's sockets count for their address and user no longer.
    let leases = |scope: &str| format!("rc:{{{scope}}}:leases");
    let counted = world.redis.cli(&["ZCARD", &leases("tokenRequests:127.0.0.1")]).await;
    assert_eq!(counted, ["2"]);
    assert_eq!(world.redis.cli(&["EXISTS", &leases("user:p0")]).await, ["0"]);
    assert!(idle.is_connected() && stays.is_connected());
    send(&stays, "room-0", "x").await;
    assert_eq!(world.metric(0, "roomcast_reaped_sockets_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_lost_its_liveness_writes_its_sockets_anew() {
    let world = World::start(1).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    world.redis.cli(&["FLUSHALL"]).await;
    until("the socket is written again", Duration::from_secs(15), || async {
        world.redis.members("joinedRoomUsers:room-0").await == [client.sid()]
            && world.redis.members("roomUsers:room-0").await == [client.sid()]
    })
    .await;
    let ack = client
        .emit_ack("message", &json!({"roomID": "room-0", "message": "x"}))
        .await
        .unwrap();
    assert_eq!(ack[0]["ok"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_longer_than_a_node_lives_reaps_nobody() {
    let mut world = World::start(2).await;
    let (first, _) = world.joined(0, 0, "room-0").await;
    let (second, _) = world.joined(1, 4, "room-0").await;
    world.redis.kill().await;
    let away = tokio::time::Instant::now();
    for client in [&first, &second] {
        client.closed().await;
    }
    tokio::time::sleep_until(away + NODE_TTL + Duration::from_secs(3)).await;
    world.redis.resume().await;
    let mut sids = Vec::new();
    let mut clients = Vec::new();
    for (node, user) in [(0, 0), (1, 4)] {
        until("the node serves again", Duration::from_secs(10), || async {
            world.nodes[node].health.is_ready()
        })
        .await;
        let (client, _) = world.joined(node, user, "room-0").await;
        sids.push(client.sid().to_owned());
        clients.push(client);
    }
    sids.sort();
    until(
        "the sets hold who is there and nobody else",
        Duration::from_secs(15),
        || async {
            world.redis.members("joinedRoomUsers:room-0").await == sids
                && world.redis.members("roomUsers:room-0").await == sids
        },
    )
    .await;
    // Long enough for both to look for dead nodes again and again.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(world.redis.members("joinedRoomUsers:room-0").await, sids);
    for node in 0..2 {
        assert_eq!(world.metric(node, "roomcast_reaped_sockets_total"), 0.0);
    }
    send(&clients[0], "room-0", "still here").await;
    clients[1].expect("message").await.unwrap();
}
