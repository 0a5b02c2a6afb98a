//! Sockets move to a node that was added, slowly, and only then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roomcast_load::client::{Client, CloseReason};
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{World, auth, until};

/// Sockets of each node at first; three quarters of them are its share with one node more.
const SOCKETS: usize = 120;
const SETTINGS: [(&str, &str); 4] = [
    ("GUARD_ALLOW", "127.0.0.0/8"),
    ("ROOMCAST_REBALANCE_PER_MINUTE", "1"),
    ("ROOMCAST_REBALANCE_ABOVE", "0.25"),
    ("ROOMCAST_REBALANCE_AFTER", "1s"),
];

/// What all people of a test share.
struct Crowd {
    /// Where the next one connects: the load balancer, taking nodes in turn.
    urls: std::sync::Mutex<Vec<String>>,
    next: AtomicUsize,
    reconnects: AtomicUsize,
    acked: AtomicUsize,
    stop: AtomicBool,
}

impl Crowd {
    fn url(&self) -> String {
        let urls = self.urls.lock().unwrap();
        urls[self.next.fetch_add(1, Ordering::Relaxed) % urls.len()].clone()
    }

    /// One person: connects wherever the load balancer says, comes back when sent away, writes if a writer.
    async fn person(self: Arc<Self>, number: usize) {
        let proto2 = number.is_multiple_of(2);
        let mut credentials = auth(number % 40);
        if proto2 {
            credentials["proto"] = json!(2);
        }
        let mut unanswered: Option<String> = None;
        while !self.stop.load(Ordering::Relaxed) {
            let connecting = Client::builder(self.url()).auth(credentials.clone()).connect();
            let Ok(client) = connecting.await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            if number < 20 {
                self.write(&client, number, &mut unanswered).await;
            } else {
                let leaves = async {
                    let told = client.expect_within("server:drain", Duration::from_secs(600)).await;
                    let after = told.map_or(0, |told| told[0]["afterMs"].as_u64().unwrap());
                    tokio::time::sleep(Duration::from_millis(after)).await;
                };
                tokio::select! {
                    reason = client.closed() => assert_ne!(reason, CloseReason::ServerDisconnect),
                    () = leaves => client.disconnect().await,
                }
            }
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes until the connection ends; what has no answer yet is written again, under the same `cid`.
    async fn write(&self, client: &Client, number: usize, unanswered: &mut Option<String>) {
        let room = format!("room-{}", number % 4);
        let joined = client.emit_ack("join", &json!({"roomID": room})).await;
        if joined.is_err() {
            return;
        }
        while !self.stop.load(Ordering::Relaxed) {
            let count = self.acked.load(Ordering::Relaxed);
            let cid = unanswered.get_or_insert_with(|| format!("{number}-{count}")).clone();
            let message = json!({"roomID": room, "message": cid, "cid": cid});
            match client.emit_ack("message", &message).await {
                Ok(ack) if ack[0]["ok"] == true => {
                    *unanswered = None;
                    self.acked.fetch_add(1, Ordering::Relaxed);
                }
                Ok(ack) => panic!("{ack:?}"),
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn counts(world: &World) -> Vec<usize> {
    let count = |node: &roomcast::node::Node| usize::try_from(node.metrics.connections.get()).unwrap();
    world.nodes.iter().map(count).collect()
}

fn sent_away(world: &World) -> u64 {
    let metrics = world.nodes.iter().map(|node| &node.metrics.departures_total);
    metrics
        .map(|total| total.get(["rebalance", "left"]) + total.get(["rebalance", "closed"]))
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_move_to_a_node_that_was_added_until_it_has_its_share() {
    let mut world = World::with(3, &SETTINGS).await;
    let crowd = Arc::new(Crowd {
        urls: std::sync::Mutex::new((0..3).map(|node| world.url(node)).collect()),
        next: AtomicUsize::new(0),
        reconnects: AtomicUsize::new(0),
        acked: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    });
    let mut people = JoinSet::new();
    for number in 0..3 * SOCKETS {
        people.spawn(crowd.clone().person(number));
    }
    until("everybody is connected", Duration::from_secs(30), || async {
        counts(&world).iter().sum::<usize>() == 3 * SOCKETS
    })
    .await;
    let looked = |world: &World| world.metric(0, "roomcast_live_nodes");
    until(
        "the nodes have looked at each other",
        Duration::from_secs(20),
        || async { looked(&world) == 3.0 },
    )
    .await;
    // Long enough for a look after ROOMCAST_REBALANCE_AFTER.
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        sent_away(&world),
        0,
        "equal nodes keep what they have: {:?}",
        counts(&world)
    );
    assert_eq!(crowd.reconnects.load(Ordering::Relaxed), 0);

    let added = world.add_node().await;
    // Round robin would need long: this one looks at connections, as one should.
    *crowd.urls.lock().unwrap() = vec![world.url(added)];
    let begin = Instant::now();
    let worst_rate = std::cell::Cell::new(0.0_f64);
    until("the new node has its share", Duration::from_secs(90), || async {
        let minutes = (begin.elapsed().as_secs_f64() + 12.0) / 60.0;
        worst_rate.set(worst_rate.get().max(sent_away(&world) as f64 / minutes));
        counts(&world)[added] >= SOCKETS / 2
    })
    .await;
    assert!(worst_rate.get() <= 3.0 * SOCKETS as f64, "{worst_rate:?} a minute");
    tokio::time::sleep(Duration::from_secs(8)).await;
    let now = counts(&world);
    let mean = 3 * SOCKETS / 4;
    assert!(now[..3].iter().all(|count| *count >= mean - 2), "{now:?}");
    assert!(now.iter().all(|count| *count * 4 <= mean * 5), "{now:?}");

    crowd.stop.store(true, Ordering::Relaxed);
    let acked = || crowd.acked.load(Ordering::Relaxed);
    let logged = async || -> usize {
        let mut logged = 0;
        for log in world.redis.cli(&["--scan", "--pattern", "rc:*:room:*:log"]).await {
            logged += world.redis.cli(&["XLEN", &log]).await[0].parse::<usize>().unwrap();
        }
        logged
    };
    // Those under way when the test ended have up to one message each without an ack.
    until("writers have stopped", Duration::from_secs(5), || async {
        let logged = logged().await;
        (acked()..=acked() + 20).contains(&logged)
    })
    .await;
    assert!(acked() > 1000, "{}", acked());
    people.shutdown().await;
}
