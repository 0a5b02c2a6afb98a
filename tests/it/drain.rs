//! The end of a node: who is told what and when, and that nothing is lost by it.

mod balance;

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use roomcast_load::client::{Client, CloseReason, ConnectError, Transport};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{SECRET, World, auth, join, until, within};

/// A client that speaks protocol 2.
async fn modern(world: &World, node: usize, user: usize) -> Client {
    let mut auth = auth(user);
    auth["proto"] = json!(2);
    world.client(node, user).auth(auth).connect().await.unwrap()
}

/// Whether clients come back by themselves from this end.
fn invites_back(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::TransportClose(_))
}

/// The delay that a client is told.
async fn told(client: &Client) -> Duration {
    let drain = client.expect("server:drain").await.unwrap();
    Duration::from_millis(drain[0]["afterMs"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_node_sends_everybody_away_at_a_moment_of_their_own() {
    const SPREAD: Duration = Duration::from_secs(4);
    let mut world = World::with(1, &[("ROOMCAST_DRAIN_SPREAD", "4s")]).await;
    let clients = join_all((0..20).map(|user| world.connect(0, user))).await;
    let staying = join_all((20..30).map(|user| modern(&world, 0, user))).await;
    let leaving = join_all((30..40).map(|user| modern(&world, 0, user))).await;
    let newcomer = world.client(0, 0);
    let node = world.nodes.remove(0);
    let metrics = node.metrics.clone();
    let begin = Instant::now();
    let stopping = tokio::spawn(node.stop());

    let legacy = join_all(clients.iter().map(async |client| {
        let reason = client.closed().await;
        (begin.elapsed(), reason)
    }));
    let stay = join_all(staying.iter().map(async |client| {
        let told = told(client).await;
        let reason = client.closed().await;
        (told, begin.elapsed(), reason)
    }));
    let leave = join_all(leaving.iter().map(async |client| {
        let told = told(client).await;
        tokio::time::sleep(told).await;
        client.disconnect().await;
        told
    }));
    let refused = async {
        until("it has begun", Duration::from_secs(2), || async {
            metrics.drain_sockets.get() > 0
        })
        .await;
        let refused = newcomer.connect().await;
        let Err(ConnectError::Http { status, body, headers }) = refused else {
            panic!("{refused:?}");
        };
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(status == 503 && body["code"] == "draining", "{status} {body}");
        assert!(headers.iter().any(|(name, _)| name == "retry-after"), "{headers:?}");
    };
    let progress = async {
        until("half of them are gone", SPREAD, || async {
            (5..20).contains(&metrics.drain_sockets.get()) && metrics.drain_progress.get() > 0.5
        })
        .await;
    };
    let (legacy, stay, leave, (), ()) = within("all are gone", async {
        tokio::join!(legacy, stay, leave, refused, progress)
    })
    .await;
    within("the node ends", stopping).await.unwrap();

    let times: Vec<Duration> = legacy.iter().map(|(at, _)| *at).collect();
    assert!(legacy.iter().all(|(_, reason)| invites_back(reason)), "{legacy:?}");
    for quarter in 0..4 {
        let within = SPREAD / 4 * quarter..SPREAD / 4 * (quarter + 1) + Duration::from_millis(500);
        let count = times.iter().filter(|at| within.contains(*at)).count();
        assert!(count >= 3, "quarter {quarter}: {times:?}");
    }
    let delays: BTreeSet<Duration> = stay.iter().map(|(told, ..)| *told).chain(leave).collect();
    assert!(delays.len() > 18 && *delays.last().unwrap() < SPREAD, "{delays:?}");
    for (told, at, reason) in &stay {
        assert!(at > told && invites_back(reason), "{told:?} {at:?} {reason}");
    }
    let departed = |end| metrics.departures_total.get(["drain", end]);
    assert_eq!((departed("left"), departed("closed")), (10, 30));
    assert_eq!((metrics.drain_sockets.get(), metrics.drain_progress.get()), (0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn node_serves_until_load_balancers_had_the_time_to_notice() {
    let mut world = World::with(1, &[("ROOMCAST_DRAIN_NOTICE", "2s")]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let newcomer = world.client(0, 4);
    let node = world.nodes.remove(0);
    let ready = format!("http://{}/readyz", node.ops_address);
    let begin = Instant::now();
    let stopping = tokio::spawn(node.stop());
    until("it says that it is not ready", Duration::from_secs(1), || async {
        reqwest::get(&ready)
            .await
            .is_ok_and(|answer| answer.status().as_u16() == 503)
    })
    .await;
    let newcomer = newcomer.connect().await.unwrap();
    join(&newcomer, "room-0").await;
    crate::support::send(&client, "room-0", "still served").await;
    assert!(begin.elapsed() < Duration::from_secs(2), "too slow to tell");
    newcomer.expect("message").await.unwrap();
    within("the node ends", stopping).await.unwrap();
    assert!(begin.elapsed() >= Duration::from_secs(2));
    assert!(invites_back(&newcomer.closed().await));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_sent_is_acked_before_its_connection_ends() {
    let mut world = World::start(2).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let (witness, _) = world.joined(1, 4, "room-0").await;
    let messages = (0..300).map(|n| {
        let text = format!("message {n}");
        client.emit_ack_later("message", &json!({"roomID": "room-0", "message": text}))
    });
    let acks: Vec<_> = messages.map(Result::unwrap).collect();
    witness.expect("message").await.unwrap();
    world.nodes.remove(0).stop().await;
    for ack in acks {
        let (ack, _) = ack.await.unwrap();
        assert_eq!(ack[0]["ok"], true, "{ack:?}");
    }
    assert!(invites_back(&client.closed().await));
    until("everything has arrived", Duration::from_secs(5), || async {
        let room = world.redis.cli(&["--scan", "--pattern", "rc:*:room:room-0:log"]).await;
        world.redis.cli(&["XLEN", &room[0]]).await == ["300"]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_clients_are_not_told_to_stay_away() {
    let mut world = World::with(1, &[("ROOMCAST_DRAIN_SPREAD", "1s")]).await;
    let connect = |user| world.client(0, user).transport(Transport::Polling).connect();
    let clients = join_all((0..5).map(connect)).await;
    let clients: Vec<_> = clients.into_iter().map(Result::unwrap).collect();
    let stopping = tokio::spawn(world.nodes.remove(0).stop());
    for client in &clients {
        let reason = within("it is closed", client.closed()).await;
        assert!(invites_back(&reason), "{reason}");
    }
    within("the node ends", stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_ends_a_drain_at_once() {
    let world = World::start(0).await;
    let settings = world.redis.settings();
    let address = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut node = Command::new(env!("CARGO_BIN_EXE_roomcast"))
        .arg("node")
        .env_clear()
        .envs(settings)
        .envs([
            ("JWT_SECRET", SECRET),
            ("AUTH_URL", &world.services.url()),
            ("API_URL", &world.services.url()),
            ("VISION_APP_INFO", "VisionApp"),
            ("ROOMCAST_LISTEN", &address.to_string()),
            ("ROOMCAST_OPS_LISTEN", "127.0.0.1:0"),
            ("ROOMCAST_DRAIN_SPREAD", "10m"),
        ])
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let url = format!("http://{address}");
    let client = || world.client_at(&url, 0).connect();
    until("the node serves", Duration::from_secs(20), || async {
        client().await.is_ok()
    })
    .await;
    let clients = join_all((0..3).map(|user| world.client_at(&url, user).connect())).await;
    let pid = node.id().unwrap().to_string();
    let terminate = async || Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
    terminate().await;
    until("the drain has begun", Duration::from_secs(5), || async {
        matches!(client().await, Err(ConnectError::Http { status: 503, .. }))
    })
    .await;
    assert!(node.try_wait().unwrap().is_none(), "it drains for minutes");
    terminate().await;
    let status = within("it ends", node.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    for client in clients {
        assert!(invites_back(&client.unwrap().closed().await));
    }
}
