//! What workers are scaled by: the group's lag is the number of questions that a free worker could begin with, always.

use std::time::Duration;

use roomcast_load::client::Client;
use serde_json::json;

use super::crashes::Victim;
use super::{ask, error, group, idle, member, reply, world_on};
use crate::support::{TestRedis, Topology, World, join, send, until};

const SOON: Duration = Duration::from_secs(10);

/// Jobs by their state.
async fn jobs(world: &World, state: &str) -> usize {
    let mut count = 0;
    for job in world.redis.cli(&["ZRANGE", "rc:{gpt}:open", "0", "-1"]).await {
        let found = world
            .redis
            .cli(&["HGET", &format!("rc:{{gpt}}:job:{job}"), "state"])
            .await;
        count += usize::from(found == [state]);
    }
    count
}

/// Waits until so many are runnable and running, and holds the group's own figures against that.
async fn stands(world: &World, what: &str, runnable: usize, running: usize) {
    until(what, SOON, || async {
        jobs(world, "ready").await == runnable && jobs(world, "running").await == running
    })
    .await;
    let figures = (group(world, "lag").await, group(world, "pending").await);
    assert_eq!(
        figures,
        (runnable.to_string(), running.to_string()),
        "lag and pending: {what}"
    );
}

/// A member of room-1, room-2 or room-3.
async fn neighbour(world: &World, user: usize) -> (Client, String) {
    let mut auth = crate::support::auth(user);
    auth["proto"] = json!(2);
    let client = world.client(1, user).auth(auth).connect().await.unwrap();
    let room = format!("room-{}", user % 4);
    join(&client, &room).await;
    (client, room)
}

async fn ask_in(client: &Client, room: &str, text: &str) -> String {
    let ack = send(client, room, &format!("@gpt {text}")).await;
    format!("{}-r", ack["id"].as_str().unwrap())
}

async fn cancel(client: &Client, room: &str, id: &str) {
    let payload = json!({"roomID": room, "id": id});
    assert_eq!(client.emit_ack("gpt:cancel", &payload).await.unwrap()[0]["ok"], true);
}

async fn lag_is_right(redis: TestRedis) {
    let slow = "slow 200 ms, a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z";
    let (world, _model, mut workers) = world_on(redis, 1, &[("GPT_PARALLEL", "1")]).await;
    let (zero, four) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let ((one, room_1), (two, room_2)) = (neighbour(&world, 1).await, neighbour(&world, 2).await);
    // With a worker that has time.
    let id = ask(&zero, "hello").await;
    reply(&zero, &id).await;
    stands(&world, "a question is answered", 0, 0).await;
    let id = ask(&zero, "refused, hello").await;
    error(&zero, &id).await;
    stands(&world, "a question has failed", 0, 0).await;
    // With one that has none.
    let long = ask(&zero, slow).await;
    zero.expect("gpt:delta").await.unwrap();
    stands(&world, "it is busy", 0, 1).await;
    let waiting = ask(&four, "next").await;
    four.expect("gpt:queued").await.unwrap();
    stands(&world, "another one of the room waits", 0, 1).await;
    let ready = ask_in(&one, &room_1, "hello").await;
    stands(&world, "one of another room is ready", 1, 1).await;
    let behind = ask_in(&one, &room_1, "and again").await;
    stands(&world, "one behind it waits", 1, 1).await;
    let third = ask_in(&two, &room_2, "id late, hello").await;
    stands(&world, "a third room's is ready", 2, 1).await;
    cancel(&four, "room-0", &waiting).await;
    stands(&world, "the waiting one is cancelled", 2, 1).await;
    for n in 0..5 {
        ask(&zero, &format!("too many {n}")).await;
    }
    zero.expect_where("gpt:error", |args| args[0]["code"] == "room_busy")
        .await
        .unwrap();
    stands(&world, "too many are refused", 2, 1).await;
    // What it has goes back into the stream when it stops.
    workers.remove(0).stop().await;
    stands(&world, "no worker is left", 3, 0).await;
    let second = world.worker().await;
    for (client, id) in [(&one, &ready), (&one, &behind), (&two, &third)] {
        if id == &ready {
            // Nothing else runs until then, as there is one slot.
            cancel(&zero, "room-0", &long).await;
        }
        reply(client, id).await;
    }
    idle(&world).await;
    stands(&world, "all are answered", 0, 0).await;
    // What is tried again is none until its time has come.
    let id = ask(&zero, "id busy, once, wait 2000 ms, 429, hello").await;
    until("it is put off", SOON, || async { jobs(&world, "delayed").await == 1 }).await;
    stands(&world, "it waits for its second attempt", 0, 0).await;
    reply(&zero, &id).await;
    idle(&world).await;
    second.stop().await;
    // A worker that dies takes what it had with it, until its lease is over.
    let mut victim = Victim::start(&world, world.redis.port(), world.config().gpt_base_url[0].as_str());
    ask(&zero, slow).await;
    ask_in(&one, &room_1, slow).await;
    stands(&world, "a worker has both", 0, 2).await;
    victim.kill().await;
    stands(&world, "a worker has died", 0, 2).await;
    let id = ask_in(&two, &room_2, "hello").await;
    let third = world.worker().await;
    reply(&two, &id).await;
    stands(&world, "another one has time", 0, 2).await;
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_the_runnable_questions_after_everything_that_clients_do() {
    lag_is_right(TestRedis::start_as(Topology::Standalone).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_the_runnable_questions_on_valkey_too() {
    if std::env::var_os("TEST_VALKEY_SERVER").is_none() {
        println!("skipped: TEST_VALKEY_SERVER does not name a valkey-server; `make unit` installs one");
        return;
    }
    lag_is_right(TestRedis::start_as(Topology::Valkey).await).await;
}
