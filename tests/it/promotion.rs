//! A server is replaced by another: what its last moments leave behind.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{TestRedis, Topology, World, send, standalone, until};

/// What a client that has everything up to `cursor` gets when it joins.
async fn missed(world: &World, user: usize, cursor: impl Into<Value>) -> Vec<Value> {
    let client = world.connect(0, user).await;
    let payload = json!({"roomID": "room-0", "lastmessage": cursor.into()});
    assert_eq!(client.emit_ack("join", &payload).await.unwrap()[0]["ok"], true);
    let previous = client.expect("previousMessages").await.unwrap();
    let messages = previous[0].as_array().unwrap().iter();
    messages.map(|message| message["message"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn cursor_from_a_lost_tail_hides_nothing_of_the_new_epoch() {
    let world = World::start(1).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    send(&writer, "room-0", "kept").await;
    // As after a failover: another server finds a log that it did not write.
    let meta = world.redis.cli(&["--scan", "--pattern", "rc:*:room:room-0:meta"]).await;
    world.redis.cli(&["HSET", &meta[0], "boot", "0123456789"]).await;
    let first = send(&writer, "room-0", "first").await;
    let second = send(&writer, "room-0", "second").await;
    let ts = first["ts"].as_u64().unwrap();

    // What the old server said last was younger, by its clock, than what the new one says.
    assert_eq!(missed(&world, 4, ts + 5000).await, ["first", "second"]);
    let lost = format!("{}-2", ts + 5000);
    assert_eq!(missed(&world, 8, lost).await, ["first", "second"]);
    // An id that stands in the log is exact, and so is a time from long after.
    assert_eq!(missed(&world, 12, first["id"].clone()).await, ["second"]);
    assert_eq!(missed(&world, 16, second["id"].clone()).await, [""; 0]);
    assert_eq!(missed(&world, 20, ts + 25_000).await, [""; 0]);

    // The same when many rooms are brought up to date.
    let client = world.connect(0, 24).await;
    let rooms = json!({"platformid": "p24", "rooms": [{"roomId": "room-0", "timestamp": ts + 5000}]});
    client.emit("syncRooms", &rooms).unwrap();
    let synced = client.expect("syncRoomsResponse").await.unwrap();
    let messages = synced[0][0]["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2, "{messages:?}");
}

/// Writes as fast as it is acked until told to stop; returns the texts that were acked, and the longest time without one.
async fn write(client: &Client, name: usize, stop: tokio::sync::watch::Receiver<bool>) -> (Vec<String>, Duration) {
    let (mut acked, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let text = format!("{name}:{number}");
        let message = json!({"roomID": "room-0", "message": text});
        if client.emit_ack("message", &message).await.unwrap()[0]["ok"] == true {
            acked.push(text);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    (acked, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn planned_sentinel_failover_loses_nothing_that_was_acked() {
    let redis = TestRedis::start_as(Topology::Sentinel).await;
    let world = World::on(redis, 2, &[]).await;
    let mut writers = Vec::new();
    for (node, user) in [(0, 0), (1, 4), (0, 8), (1, 12)] {
        writers.push(world.joined(node, user, "room-0").await.0);
    }
    send(&writers[0], "room-0", "first").await;
    let old = world.redis.primaries().await[0];
    let replica = world.redis.replica_of(old).await;

    let (stop, stopped) = tokio::sync::watch::channel(false);
    let flow = tokio::spawn(async move {
        let writing = writers
            .iter()
            .enumerate()
            .map(|(name, client)| write(client, name, stopped.clone()));
        futures::future::join_all(writing).await
    });
    let ordered = Instant::now();
    assert_eq!(world.redis.order_failover().await, ["OK"]);
    until(
        "the old primary follows the new one",
        Duration::from_secs(30),
        || async { world.redis.primaries().await == [replica] },
    )
    .await;
    let demoted = ordered.elapsed();
    stop.send_replace(true);
    let (acked, gaps): (Vec<_>, Vec<_>) = flow.await.unwrap().into_iter().unzip();
    let (acked, longest) = (acked.concat(), gaps.into_iter().max().unwrap());

    let (late, _) = world.joined(0, 16, "room-0").await;
    send(&late, "room-0", "last").await;
    let log = world.redis.cli(&["KEYS", "*:room:room-0:log"]).await;
    let entries = world.redis.cli(&["XRANGE", &log[0], "-", "+"]).await;
    let stored: HashSet<String> = entries
        .iter()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).ok()?["message"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    let lost: Vec<&String> = acked.iter().filter(|text| !stored.contains(*text)).collect();
    println!(
        "{} acked, {} lost; nothing acked for {longest:?}, the old primary demoted after {demoted:?}",
        acked.len(),
        lost.len()
    );
    assert!(longest < Duration::from_secs(8), "{longest:?}");
    assert!(
        lost.is_empty(),
        "{} of {} acked are lost: {lost:?}",
        lost.len(),
        acked.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_server_took_along_is_written_anew_and_what_came_back_is_removed() {
    let world = standalone(1, &[]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let sid = client.sid();
    let owned = world.redis.cli(&["--scan", "--pattern", "rc:{node:*}:owned"]).await;
    // As after a failover that lost the join of one socket, a leave of it, and the end of another.
    let left = json!({"s": sid, "u": "p0", "r": ["room-0", "room-1"], "j": ["room-1"]});
    let ended = json!({"s": "AAAAAAAAAAAAAAAA", "u": "p4", "r": ["room-0"], "j": ["room-0"]});
    for (socket, entry) in [(sid, left), ("AAAAAAAAAAAAAAAA", ended)] {
        world.redis.cli(&["HSET", &owned[0], socket, &entry.to_string()]).await;
    }
    world.redis.cli(&["SREM", "joinedRoomUsers:room-0", sid]).await;
    world.redis.cli(&["SADD", "joinedRoomUsers:room-1", sid]).await;
    for set in ["roomUsers:room-0", "joinedRoomUsers:room-0"] {
        world.redis.cli(&["SADD", set, "AAAAAAAAAAAAAAAA"]).await;
    }
    until("the sets hold what is true", Duration::from_secs(20), || async {
        // Again and again: the node may not have seen yet who served before.
        world.redis.cli(&["DEBUG", "CHANGE-REPL-ID"]).await;
        world.redis.members("joinedRoomUsers:room-0").await == [sid]
            && world.redis.members("roomUsers:room-0").await == [sid]
            && world.redis.members("joinedRoomUsers:room-1").await.is_empty()
    })
    .await;
    assert_eq!(world.redis.cli(&["HLEN", &owned[0]]).await, ["1"]);
}
