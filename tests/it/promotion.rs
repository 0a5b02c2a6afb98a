//! A planned failover: the sentinels replace a primary that is healthy and goes on acknowledging.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{TestRedis, Topology, World, send, until};

/// Writes as fast as it is acked until told to stop; returns the texts that were acked.
async fn write(client: &Client, name: usize, stop: tokio::sync::watch::Receiver<bool>) -> Vec<String> {
    let mut acked = Vec::new();
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let text = format!("{name}:{number}");
        let message = json!({"roomID": "room-0", "message": text});
        if client.emit_ack("message", &message).await.unwrap()[0]["ok"] == true {
            acked.push(text);
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    acked
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
        futures::future::join_all(writing).await.concat()
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
    let acked = flow.await.unwrap();

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
        "{} acked, {} lost, the old primary demoted after {demoted:?}",
        acked.len(),
        lost.len()
    );
    assert!(
        lost.is_empty(),
        "{} of {} acked are lost: {lost:?}",
        lost.len(),
        acked.len()
    );
}
