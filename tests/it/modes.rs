//! The same chat on every form of Redis, and what happens when a primary changes.

use std::time::{Duration, Instant};

use roomcast::node::Node;
use roomcast_load::client::Client;
use serde_json::{Value, json};

use crate::support::{TestRedis, Topology, World, send, until, within};

/// What the tests of behaviour cover on one server, once through on each other form.
async fn chat_works_on(topology: Topology) {
    let redis = TestRedis::start_as(topology).await;
    let world = World::on(redis, 2, &[]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;

    let first = send(&writer, "room-0", "first").await;
    assert_eq!(message(&reader).await, "first");

    // Membership, in the legacy keys.
    let mut sids = [writer.sid(), reader.sid()];
    sids.sort();
    assert_eq!(world.redis.members("roomUsers:room-0").await, sids);
    assert_eq!(world.redis.members("joinedRoomUsers:room-0").await, sids);
    assert_eq!(world.redis.members("userRooms:p0").await, ["room-0"]);

    // Edits and deletions reach everybody.
    let change = json!({"roomID": "room-0", "id": first["id"], "message": "first, edited"});
    assert_eq!(writer.emit_ack("editMessage", &change).await.unwrap()[0]["ok"], true);
    let edit = reader.expect("editMessage").await.unwrap();
    assert_eq!(edit[0]["message"], "first, edited");
    let second = send(&writer, "room-0", "second").await;
    assert_eq!(message(&reader).await, "second");
    let change = json!({"roomID": "room-0", "id": second["id"]});
    assert_eq!(writer.emit_ack("deleteMessage", &change).await.unwrap()[0]["ok"], true);
    assert_eq!(reader.expect("deleteMessage").await.unwrap()[0]["id"], second["id"]);

    // Who comes back gets what was missed, also when the scripts are gone.
    reader.kill();
    world.redis.cli(&["SCRIPT", "FLUSH"]).await;
    for n in 0..5 {
        send(&writer, "room-0", &format!("missed {n}")).await;
    }
    let reader = world.connect(1, 4).await;
    let payload = json!({"roomID": "room-0", "lastmessage": second["ts"]});
    assert_eq!(reader.emit_ack("join", &payload).await.unwrap()[0]["ok"], true);
    let missed = reader.expect("previousMessages").await.unwrap();
    assert_eq!(missed[0].as_array().unwrap().len(), 5, "{missed:?}");

    // Every room works, wherever its keys are; rooms of one node's sockets are on all primaries.
    for user in 1..4 {
        let room = format!("room-{user}");
        let (near, _) = world.joined(0, user, &room).await;
        let (far, _) = world.joined(1, user + 4, &room).await;
        send(&near, &room, "there?").await;
        assert_eq!(message(&far).await, "there?");
    }

    // An act for a user's sockets on every node.
    let scope = json!({"platformid": "p4"});
    let response = reqwest::Client::new()
        .post(format!("http://{}/admin/revoke", world.nodes[0].ops_address))
        .bearer_auth("admin")
        .json(&scope)
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success(), "{response:?}");
    tokio::time::timeout(Duration::from_secs(5), reader.closed())
        .await
        .expect("a revoked user is cut on the other node");
}

async fn message(client: &Client) -> Value {
    client.expect("message").await.unwrap()[0]["message"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_works_on_sentinel() {
    chat_works_on(Topology::Sentinel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_works_on_a_cluster() {
    chat_works_on(Topology::Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_works_with_tls() {
    chat_works_on(Topology::Tls).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_works_on_valkey() {
    if std::env::var_os("TEST_VALKEY_SERVER").is_none() {
        println!("skipped: TEST_VALKEY_SERVER does not name a valkey-server; `make unit` installs one");
        return;
    }
    chat_works_on(Topology::Valkey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_works_over_a_socket_file() {
    let redis = TestRedis::start_as(Topology::Standalone).await;
    let address = format!("unix:{}", redis.socket_file().display());
    let world = World::on(redis, 1, &[("REDIS_URL", &address)]).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    send(&client, "room-0", "hello").await;
    assert_eq!(message(&client).await, "hello");
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_node_under_a_plain_address_is_refused_with_the_cure() {
    let redis = TestRedis::start_as(Topology::Cluster).await;
    let address = redis.settings()[0].1.replace("redis-cluster://", "redis://");
    let world = World::on(redis, 0, &[("REDIS_URL", &address)]).await;
    let node = Node::start(world.config()).await.unwrap();
    let error = within("the node gives up", node.ready()).await.unwrap_err().to_string();
    assert!(
        error.contains("REDIS_URL") && error.contains("redis-cluster://"),
        "{error}"
    );
}

/// Sends numbered messages until told to stop; those that were refused are sent again, under their `cid`.
struct Flow {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<(Vec<Value>, Trouble)>,
}

/// What a sender saw.
#[derive(Debug, Default)]
struct Trouble {
    refused: usize,
    slowest: Duration,
    /// From the first refusal to the next success.
    longest_gap: Duration,
}

impl Flow {
    fn start(client: Client, room: &'static str) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut acks, mut trouble, mut failing) = (Vec::new(), Trouble::default(), None::<Instant>);
            let mut number = 0;
            while !*stopped.borrow() {
                let payload = json!({"roomID": room, "message": format!("{number}"), "cid": format!("c{number}")});
                let started = Instant::now();
                let ack = client.emit_ack("message", &payload).await.unwrap()[0].clone();
                trouble.slowest = trouble.slowest.max(started.elapsed());
                if ack["ok"] == true {
                    if let Some(since) = failing.take() {
                        trouble.longest_gap = trouble.longest_gap.max(since.elapsed());
                    }
                    acks.push(ack);
                    number += 1;
                } else {
                    let code = ack["code"].as_str().unwrap();
                    assert!(["unavailable", "uncertain"].contains(&code), "{ack}");
                    trouble.refused += 1;
                    failing.get_or_insert(started);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (acks, trouble)
        });
        Self { stop, task }
    }

    async fn end(self) -> (Vec<Value>, Trouble) {
        self.stop.send_replace(true);
        self.task.await.unwrap()
    }
}

/// Reads messages up to the one with this text; their seq must rise by one within an epoch.
async fn read_without_holes(reader: &Client, last: &str) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let next = reader.expect("message").await.unwrap()[0].clone();
        if let Some(before) = messages.last()
            && before["epoch"] == next["epoch"]
        {
            assert_eq!(
                next["seq"].as_u64(),
                before["seq"].as_u64().map(|seq| seq + 1),
                "{before} {next}"
            );
        }
        let done = next["message"] == last;
        messages.push(next);
        if done {
            return messages;
        }
    }
}

/// Waits until a room's messages get through, and returns how long that took.
async fn back(client: &Client, room: &str) -> Duration {
    let since = Instant::now();
    until("messages are stored again", Duration::from_secs(15), || async {
        let payload = json!({"roomID": room, "message": "again?"});
        client.emit_ack("message", &payload).await.unwrap()[0]["ok"] == true
    })
    .await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinel_failover_is_survived_and_nothing_is_missed_after_it() {
    let redis = TestRedis::start_as(Topology::Sentinel).await;
    let mut world = World::on(redis, 2, &[]).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (near, _) = world.joined(0, 4, "room-0").await;
    let (far, _) = world.joined(1, 8, "room-0").await;
    let before = send(&writer, "room-0", "before").await;
    for reader in [&near, &far] {
        assert_eq!(message(reader).await, "before");
    }
    let primary = world.redis.primaries().await[0];
    let log = log_of(&world, "room-0").await;
    let replica = world.redis.replica_of(primary).await;
    until("the replica has it", Duration::from_secs(5), || async {
        world.redis.cli_of(replica, &["XLEN", &log]).await == ["1"]
    })
    .await;
    world.redis.kill_one(primary).await;

    let started = Instant::now();
    let payload = json!({"roomID": "room-0", "message": "lost"});
    let ack = writer.emit_ack("message", &payload).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(
        ["unavailable", "uncertain"].contains(&ack[0]["code"].as_str().unwrap()),
        "{ack:?}"
    );
    let took = back(&writer, "room-0").await;
    println!("messages are stored again {took:?} after the crash");
    assert!(took < Duration::from_secs(12), "{took:?}");

    // The new primary had all of it; its epoch says that a tail might have been lost.
    until("the other node takes handshakes", Duration::from_secs(10), || async {
        world.client(1, 16).connect().await.is_ok()
    })
    .await;
    let late = world.connect(1, 12).await;
    until("the other node serves as well", Duration::from_secs(10), || async {
        late.emit_ack("join", &json!({"roomID": "room-0"})).await.unwrap()[0]["ok"] == true
    })
    .await;
    let previous = late.expect("previousMessages").await.unwrap();
    assert_eq!(previous[0][0]["id"], before["id"], "{previous:?}");
    for n in 0..20 {
        let after = send(&writer, "room-0", &format!("after {n}")).await;
        assert_ne!(after["epoch"], before["epoch"]);
    }
    for reader in [&near, &far, &late] {
        let messages = read_without_holes(reader, "after 19").await;
        assert!(messages.len() >= 20, "{messages:?}");
    }
}

/// A room of `room-0` … `room-3` in another primary than `room-0`, with its number.
async fn room_elsewhere(world: &World) -> (usize, &'static str) {
    let home = world.redis.primary_of(&log_of(world, "room-0").await).await;
    for (number, room) in [(1, "room-1"), (2, "room-2"), (3, "room-3")] {
        if world.redis.primary_of(&log_of(world, room).await).await != home {
            return (number, room);
        }
    }
    panic!("all four rooms are in one primary");
}

/// The key of a room's log, which must have a message.
async fn log_of(world: &World, room: &str) -> String {
    let keys = world
        .redis
        .cli(&["--scan", "--pattern", &format!("rc:*:room:{room}:log")])
        .await;
    keys.first().unwrap_or_else(|| panic!("{room} has no log")).clone()
}

/// A cluster with a message in each room.
async fn cluster_world() -> World {
    let redis = TestRedis::start_as(Topology::Cluster).await;
    let world = World::on(redis, 2, &[]).await;
    for user in 0..4 {
        let room = format!("room-{user}");
        let (client, _) = world.joined(0, user, &room).await;
        send(&client, &room, "first").await;
        client.disconnect().await;
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn graceful_cluster_failover_leaves_no_hole() {
    let world = cluster_world().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    let home = world.redis.primary_of(&log_of(&world, "room-0").await).await;
    let replica = world.redis.replica_of(home).await;
    let flow = Flow::start(writer, "room-0");
    assert_eq!(message(&reader).await, "0");
    world.redis.cli_of(replica, &["CLUSTER", "FAILOVER"]).await;
    until("the replica is the primary", Duration::from_secs(10), || async {
        world.redis.primaries().await.contains(&replica)
    })
    .await;
    let (acks, trouble) = flow.end().await;
    println!("{trouble:?}");
    assert!(trouble.longest_gap < Duration::from_secs(3), "{trouble:?}");
    // Live delivery is back on the other node, and nothing is missing in between.
    let last = format!("{}", acks.len() - 1);
    let messages = read_without_holes(&reader, &last).await;
    assert_eq!(messages.len(), acks.len() - 1, "{messages:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_of_a_cluster_primary_holds_up_its_own_rooms_only() {
    let mut world = cluster_world().await;
    let (number, elsewhere) = room_elsewhere(&world).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    let (other, _) = world.joined(0, number, elsewhere).await;
    let (other_reader, _) = world.joined(1, number + 4, elsewhere).await;
    let home = world.redis.primary_of(&log_of(&world, "room-0").await).await;
    let flow = Flow::start(other, elsewhere);
    world.redis.kill_one(home).await;
    let took = back(&writer, "room-0").await;
    let (acks, trouble) = flow.end().await;
    println!("its own room: {took:?}; a room of another primary: {trouble:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    assert_eq!(trouble.refused, 0, "{trouble:?}");
    assert!(trouble.slowest < Duration::from_secs(1), "{trouble:?}");
    send(&writer, "room-0", "last").await;
    read_without_holes(&reader, "last").await;
    let last = format!("{}", acks.len() - 1);
    assert_eq!(read_without_holes(&other_reader, &last).await.len(), acks.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn room_whose_slot_moves_goes_on_without_a_hole() {
    let world = cluster_world().await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (reader, _) = world.joined(1, 4, "room-0").await;
    let log = log_of(&world, "room-0").await;
    let home = world.redis.primary_of(&log).await;
    let flow = Flow::start(writer, "room-0");
    assert_eq!(message(&reader).await, "0");
    let elsewhere = world.redis.primaries().await.into_iter().find(|index| *index != home);
    world.redis.move_slot_of(&log, elsewhere.unwrap()).await;
    let moved = Instant::now();
    until(
        "messages are stored at the new place",
        Duration::from_secs(10),
        || async {
            let newest = world.redis.cli_of(elsewhere.unwrap(), &["XLEN", &log]).await.concat();
            newest.parse::<u32>().is_ok_and(|events| events > 100)
        },
    )
    .await;
    let (acks, trouble) = flow.end().await;
    println!("{trouble:?}, {:?}", moved.elapsed());
    assert!(trouble.longest_gap < Duration::from_secs(2), "{trouble:?}");
    let last = format!("{}", acks.len() - 1);
    assert_eq!(read_without_holes(&reader, &last).await.len(), acks.len() - 1);
}
