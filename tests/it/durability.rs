//! When a message counts as stored.

use std::process::Stdio;
use std::time::{Duration, Instant};

use roomcast::node::Node;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::support::{World, send, standalone, until};

/// A replica of the world's Redis.
struct Replica {
    port: u16,
    _folder: tempfile::TempDir,
    child: Child,
}

impl Replica {
    async fn of(world: &World) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let folder = tempfile::tempdir().unwrap();
        let primary = world.redis.port().to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--replicaof", "127.0.0.1", &primary])
            .args(["--enable-debug-command", "local", "--dir"])
            .arg(folder.path())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        until("the replica follows", Duration::from_secs(10), || async {
            world
                .redis
                .cli(&["INFO", "replication"])
                .await
                .iter()
                .any(|line| line.contains("state=online"))
        })
        .await;
        Self {
            port,
            _folder: folder,
            child,
        }
    }

    /// Lets the replica fall behind for so long.
    fn freeze(&self, seconds: &str) -> Child {
        Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "DEBUG", "SLEEP", seconds])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    }
}

async fn post(client: &roomcast_load::client::Client, cid: &str) -> Value {
    let message = json!({"roomID": "room-0", "message": "x", "cid": cid});
    client.emit_ack("message", &message).await.unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_that_lags_makes_messages_uncertain_and_a_resend_harmless() {
    let mut world = standalone(0, &[("ROOMCAST_DURABILITY", "replica")]).await;
    for (name, value) in [("min-replicas-to-write", "1"), ("min-replicas-max-lag", "3")] {
        assert_eq!(world.redis.cli(&["CONFIG", "SET", name, value]).await, ["OK"]);
    }
    let mut replica = Replica::of(&world).await;
    world.add_node().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    assert_eq!(post(&writer, "first").await["ok"], true);

    let mut frozen = replica.freeze("2");
    until("the replica lags", Duration::from_secs(5), || async {
        let started = Instant::now();
        let ack = post(&writer, "second").await;
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        ack["code"] == "uncertain"
    })
    .await;
    frozen.wait().await.unwrap();
    let again = post(&writer, "second").await;
    assert_eq!((&again["ok"], &again["dup"]), (&json!(true), &json!(true)), "{again}");

    replica.child.kill().await.unwrap();
    until("the primary refuses writes", Duration::from_secs(8), || async {
        post(&writer, "third").await["code"] == "unavailable"
    })
    .await;
    let _back = Replica::of(&world).await;
    until("it accepts them again", Duration::from_secs(8), || async {
        post(&writer, "third").await["ok"] == true
    })
    .await;
    let log = world.redis.cli(&["KEYS", "*:room:room-0:log"]).await;
    assert_eq!(world.redis.cli(&["XLEN", &log[0]]).await, ["3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_an_uncertain_message_is_not_sent_and_a_resend_keeps_the_order() {
    const MESSAGES: usize = 100;
    let mut world = standalone(0, &[("ROOMCAST_DURABILITY", "replica")]).await;
    world.redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let replica = Replica::of(&world).await;
    world.add_node().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let mut frozen = replica.freeze("5");
    until("the replica lags", Duration::from_secs(5), || async {
        post(&writer, "first").await["code"] == "uncertain"
    })
    .await;
    let send_all = || async {
        let sent: Vec<_> = (0..MESSAGES)
            .map(|number| {
                let message = json!({"roomID": "room-0", "message": "x", "cid": number.to_string()});
                writer.emit_ack_later("message", &message).unwrap()
            })
            .collect();
        let acks = futures::future::join_all(sent).await;
        let acks: Vec<Value> = acks.into_iter().map(|ack| ack.unwrap().0[0].clone()).collect();
        acks
    };
    // More than one call takes: the first ones are stored, without the replica; the others waited meanwhile.
    let acks = send_all().await;
    assert!(acks.iter().all(|ack| ack["code"] == "uncertain"), "{acks:?}");
    let log = world.redis.cli(&["KEYS", "*:room:room-0:log"]).await;
    let stored: usize = world.redis.cli(&["XLEN", &log[0]]).await[0].parse().unwrap();
    assert!(stored <= 1 + 64, "{stored} are stored");

    frozen.wait().await.unwrap();
    until("the replica keeps up", Duration::from_secs(10), || async {
        post(&writer, "first").await["ok"] == true
    })
    .await;
    let acks = send_all().await;
    assert!(acks.iter().all(|ack| ack["ok"] == true), "{acks:?}");
    assert!(acks.is_sorted_by_key(|ack| ack["seq"].as_u64()), "{acks:?}");
    let stored = world.redis.cli(&["XLEN", &log[0]]).await;
    assert_eq!(stored, [(1 + MESSAGES).to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn posts_that_wait_for_replicas_share_their_wait() {
    let mut world = standalone(0, &[("ROOMCAST_DURABILITY", "replica")]).await;
    world.redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let _replica = Replica::of(&world).await;
    world.add_node().await;
    let mut writers = Vec::new();
    for user in 0..20 {
        writers.push(world.joined(0, user * 4 % 40, "room-0").await.0);
    }
    world.redis.cli(&["CONFIG", "RESETSTAT"]).await;
    futures::future::join_all(writers.iter().map(|writer| async {
        for _ in 0..10 {
            send(writer, "room-0", "x").await;
        }
    }))
    .await;
    let stats = world.redis.cli(&["INFO", "commandstats"]).await;
    let calls = |name: &str| -> u64 {
        let prefix = format!("cmdstat_{name}:calls=");
        let line = stats.iter().find_map(|line| line.strip_prefix(&prefix)).unwrap();
        line.split(',').next().unwrap().parse().unwrap()
    };
    assert!(calls("wait") < 150, "{} waits for 200 posts", calls("wait"));
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_cannot_keep_the_promise_is_refused_at_start() {
    for (level, setting, value) in [
        ("fsync", "appendfsync", "everysec"),
        ("replica", "min-replicas-to-write", "0"),
    ] {
        let world = standalone(0, &[("ROOMCAST_DURABILITY", level)]).await;
        world.redis.cli(&["CONFIG", "SET", setting, value]).await;
        let node = Node::start(world.config()).await.unwrap();
        let error = node.ready().await.unwrap_err().to_string();
        assert!(
            error.contains("ROOMCAST_DURABILITY") && error.contains(setting),
            "{error}"
        );
    }
    let mut world = standalone(0, &[("ROOMCAST_DURABILITY", "fsync")]).await;
    world.add_node().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_that_takes_over_must_keep_the_promise_too() {
    let world = standalone(1, &[("ROOMCAST_DURABILITY", "fsync")]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    assert_eq!(post(&writer, "first").await["ok"], true);
    // As after a failover to a server that was set up differently.
    world.redis.cli(&["CONFIG", "SET", "appendfsync", "everysec"]).await;
    world.redis.cli(&["DEBUG", "CHANGE-REPL-ID"]).await;
    until("messages are refused", Duration::from_secs(15), || async {
        post(&writer, "second").await["code"] == "unavailable"
    })
    .await;
    let reasons = world.nodes[0].health.reasons().concat();
    assert!(reasons.contains("appendfsync"), "{reasons}");
    world.redis.cli(&["CONFIG", "SET", "appendfsync", "always"]).await;
    until("messages are stored again", Duration::from_secs(15), || async {
        post(&writer, "second").await["ok"] == true
    })
    .await;
    assert!(world.nodes[0].health.is_ready());
}
