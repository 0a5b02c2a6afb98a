//! What one may ask of the queue: nothing is dropped where it is full, and nobody's questions hold up another's.

use std::time::Duration;

use futures::future::join_all;
use roomcast::redis::Redis;
use roomcast_load::client::Client;
use serde_json::{Value, json};

use super::{ask, error, idle, member, reply, world};
use crate::support::{World, join, until, within};

/// Questions of an outbox.
const OUTBOX_MAX: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
async fn question_that_finds_the_outbox_full_is_refused_and_none_is_dropped() {
    let (world, _model, _none) = world(0, &[]).await;
    let (asker, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let redis = Redis::start(&world.config()).unwrap();
    within("Redis is connected", redis.wait_connected()).await;
    let outbox = redis.keys.gpt_outbox(redis.keys.partition("room-0"));
    let kept = ask(&asker, "were you the first").await;
    let fill = format!("for _ = 2, {OUTBOX_MAX} do redis.call('XADD', KEYS[1], '*', 'r', 'nobody') end");
    world.redis.cli(&["EVAL", &fill, "1", &outbox]).await;

    let refused = ask(&asker, "is there room for me").await;
    let refusal = error(&other, &refused).await;
    assert_eq!(
        (&refusal["code"], &refusal["retryable"], &refusal["roomID"]),
        (&json!("queue_full"), &json!(true), &json!("room-0"))
    );
    assert!(refusal["message"].as_str().unwrap().ends_with('.'), "{refusal}");
    // The message itself is one like any other.
    let question = refused.strip_suffix("-r").unwrap().to_owned();
    let message = other.expect_where("message", move |args| args[0]["id"] == question.as_str());
    assert_eq!(message.await.unwrap()[0]["message"], "@gpt is there room for me");
    assert_eq!(world.redis.cli(&["XLEN", &outbox]).await, [OUTBOX_MAX.to_string()]);
    let told = world.nodes[0].metrics.gpt_replies_total.get(["queue_full"]);
    assert_eq!(told, 1);

    let oldest = world.redis.cli(&["XRANGE", &outbox, "-", "+", "COUNT", "1"]).await;
    assert!(oldest.iter().any(|line| kept.starts_with(line.as_str())), "{oldest:?}");
    // Those behind it were made up.
    world.redis.cli(&["DEL", &outbox]).await;
    let _worker = world.worker().await;
    let again = ask(&asker, "is there room for me now").await;
    reply(&other, &again).await;
    idle(&world).await;
    redis.close().await;
}

/// Who asked each settled call, in the order in which they ended.
async fn ended(world: &World) -> Vec<String> {
    let lines = world.redis.cli(&["XRANGE", "rc:{gpt}:usage", "-", "+"]).await;
    let users = lines.windows(2).filter(|pair| pair[0] == "user");
    users.map(|pair| pair[1].clone()).collect()
}

/// Asks four times in each of the rooms; how many were refused.
async fn flood(client: &Client, rooms: &[String]) -> usize {
    for room in rooms {
        join(client, room).await;
    }
    let asked = (0..4).flat_map(|n| rooms.iter().map(move |room| (n, room)));
    let asked = asked.map(|(n, room)| {
        let text = format!("@gpt slow 60 ms, loud question number {n}");
        async move {
            let payload = json!({"roomID": room, "message": text});
            client.emit_ack("message", &payload).await.unwrap()[0]["ok"] == true
        }
    });
    let stored = join_all(asked).await;
    assert!(stored.iter().all(|stored| *stored));
    stored.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousand_questions_of_one_user_delay_another_by_one_job_at_most() {
    const ROOMS: usize = 250;
    let settings = [("GPT_PARALLEL", "1"), ("GUARD_ALLOW", "127.0.0.0/8")];
    let (world, _model, _workers) = world(1, &settings).await;
    let rooms: Vec<String> = (0..ROOMS).map(|n| format!("loud-{n}")).collect();
    let made = rooms.iter().map(|room| {
        let participants = json!([{"platformid": "p0", "nickname": "user0"}]);
        let room = json!({"roomID": room, "participants": participants});
        world.services.post("/api/rooms/create-room", room)
    });
    join_all(made).await;
    let quiet = [
        member(&world, 1, 4).await,
        member(&world, 0, 8).await,
        member(&world, 1, 12).await,
    ];
    let loud = world.client(0, 0).auth(loud_auth()).timeout(Duration::from_secs(60));
    let loud = loud.connect().await.unwrap();
    assert_eq!(flood(&loud, &rooms).await, 1000);
    // What the rooms and the user may have waiting, and the rest refused: from now on there is no end of loud jobs.
    let taken_in = Duration::from_secs(60);
    let refusals = std::cell::Cell::new(0);
    until("all of them are taken in", taken_in, || async {
        refusals.set(refusals.get() + loud.take("gpt:error").len());
        let counts = world.redis.cli(&["ZCARD", "rc:{gpt}:open"]).await;
        let (open, over): (usize, usize) = (counts[0].parse().unwrap(), ended(&world).await.len());
        open + over + refusals.get() == 1000
    })
    .await;
    for (n, client) in quiet.iter().enumerate() {
        let id = ask(client, "a short question").await;
        let queued = id.clone();
        let queued = client.expect_where("gpt:queued", move |args| args[0]["id"] == queued.as_str());
        queued.await.unwrap();
        let before = ended(&world).await.len();
        reply(client, &id).await;
        let order = ended(&world).await;
        let own = order.iter().rposition(|user| user != "p0").unwrap();
        let delayed_by = own - before;
        println!("question {n}: {delayed_by} jobs of the loud user ended before it");
        assert!(delayed_by <= 1, "{order:?}");
        assert!(order.len() < 84, "the loud user is out of questions");
    }
}

fn loud_auth() -> Value {
    let mut auth = crate::support::auth(0);
    auth["proto"] = json!(2);
    auth
}
