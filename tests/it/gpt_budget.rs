//! What calls of the model cost: budgets of a day, the record of every call, and the prompts of rooms.

use std::collections::HashMap;
use std::time::Duration;

use roomcast::redis::{Budgets, Part, Redis};
use roomcast_load::client::Client;
use serde_json::json;

use crate::gpt::{ask, error, idle, member, reply, world};
use crate::support::{Switchable, World, join, until, within};

const DAY_MS: i64 = 24 * 3600 * 1000;

/// The recorded calls, oldest first.
async fn calls(world: &World) -> Vec<HashMap<String, String>> {
    let lines = world.redis.cli(&["XRANGE", "rc:{gpt}:usage", "-", "+"]).await;
    // A line for the entry's id, then one for each field and value.
    let fields = 2 * 10;
    lines
        .chunks(1 + fields)
        .map(|entry| {
            entry[1..]
                .chunks(2)
                .map(|pair| (pair[0].clone(), pair[1].clone()))
                .collect()
        })
        .collect()
}

/// The tokens that are counted for a user (`user:p0`) or a room.
async fn spent(world: &World, of: &str) -> u64 {
    let count = world.redis.cli(&["GET", &format!("rc:{{gpt}}:spent:{of}")]).await;
    count.first().map_or(0, |count| count.parse().unwrap_or(0))
}

fn tokens(call: &HashMap<String, String>) -> u64 {
    call["prompt"].parse::<u64>().unwrap() + call["completion"].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn user_over_budget_waits_for_midnight_while_others_are_answered() {
    let (world, _model, _workers) = world(1, &[("GPT_USER_DAILY_TOKENS", "20")]).await;
    let (spender, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let first = ask(&spender, "the first question").await;
    reply(&spender, &first).await;
    let second = ask(&spender, "the second question").await;
    let refusal = error(&other, &second).await;
    assert_eq!(
        (&refusal["code"], &refusal["retryable"]),
        (&json!("budget"), &json!(false))
    );
    let message = refusal["message"].as_str().unwrap();
    assert!(
        message.starts_with("Your tokens") && message.contains("00:00 UTC"),
        "{message}"
    );
    let third = ask(&other, "somebody else's question").await;
    reply(&other, &third).await;
    idle(&world).await;

    let key = "rc:{gpt}:spent:user:p0";
    let ends: i64 = world.redis.cli(&["PEXPIRETIME", key]).await[0].parse().unwrap();
    assert_eq!(ends % DAY_MS, 0, "the count ends at midnight UTC");
    let left = ends - i64::try_from(roomcast::model::unix_ms()).unwrap();
    assert!((0..=DAY_MS).contains(&left), "{left}");
    // Midnight.
    world.redis.cli(&["DEL", key]).await;
    let fourth = ask(&spender, "the first question of a new day").await;
    reply(&spender, &fourth).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_over_budget_is_silent_for_everybody_and_other_rooms_go_on() {
    let (world, _model, _workers) = world(1, &[("GPT_ROOM_DAILY_TOKENS", "20")]).await;
    let (asker, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let first = ask(&asker, "the first question").await;
    reply(&asker, &first).await;
    let second = ask(&other, "a question of somebody else").await;
    let refusal = error(&asker, &second).await;
    assert_eq!(refusal["code"], "budget");
    assert!(
        refusal["message"].as_str().unwrap().starts_with("This room's"),
        "{refusal}"
    );
    let elsewhere = world.connect(0, 1).await;
    join(&elsewhere, "room-1").await;
    let ack = crate::support::send(&elsewhere, "room-1", "@gpt and here").await;
    reply(&elsewhere, &format!("{}-r", ack["id"].as_str().unwrap())).await;
    idle(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_recorded_and_counted_once_with_what_it_took() {
    let (world, _model, _workers) = world(1, &[]).await;
    let asker = member(&world, 0, 0).await;
    // Told by the endpoint.
    let first = ask(&asker, "one two three").await;
    reply(&asker, &first).await;
    // An endpoint that counts nothing.
    let second = ask(&asker, "no usage, hello world").await;
    reply(&asker, &second).await;
    // A failure in the middle costs what was written; one before the first token costs nothing.
    let third = ask(&asker, "id a, once, cut after 2, four five six").await;
    reply(&asker, &third).await;
    let fourth = ask(&asker, "refused, please").await;
    error(&asker, &fourth).await;
    idle(&world).await;

    let calls = calls(&world).await;
    let seen: Vec<[&str; 4]> = calls
        .iter()
        .map(|call| [&*call["result"], &*call["counted"], &*call["gen"], &*call["completion"]])
        .collect();
    // The scripted model counts words; here it is tokens: `You asked: hello world` and `You asked: `.
    assert_eq!(
        seen,
        [
            ["ok", "endpoint", "1", "5"],
            ["ok", "here", "1", "5"],
            ["bad_stream", "here", "1", "4"],
            ["ok", "endpoint", "2", "5"],
        ]
    );
    for call in &calls {
        assert_eq!((&*call["user"], &*call["room"]), ("p0", "room-0"));
        assert_eq!(call["model"], "gpt-4o-mini");
        assert!(call["prompt"].parse::<u64>().unwrap() > 10, "{call:?}");
        assert!(call["ms"].parse::<u64>().unwrap() < 20_000, "{call:?}");
    }
    assert_eq!(calls[2]["question"], calls[3]["question"]);
    let total: u64 = calls.iter().map(tokens).sum();
    assert_eq!(spent(&world, "user:p0").await, total);
    assert_eq!(spent(&world, "room:room-0").await, total);
}

#[tokio::test(flavor = "multi_thread")]
async fn handed_over_and_cancelled_replies_cost_what_was_written() {
    let (world, _model, mut workers) = world(1, &[]).await;
    let asker = member(&world, 0, 0).await;
    let id = ask(&asker, "slow 100 ms, one two three four five six seven eight nine ten").await;
    asker.expect("gpt:delta").await.unwrap();
    let second = world.worker().await;
    workers.remove(0).stop().await;
    asker.expect("gpt:reset").await.unwrap();
    asker
        .expect_where("gpt:delta", |args| args[0]["gen"] == 2)
        .await
        .unwrap();
    let cancel = json!({"roomID": "room-0", "id": id});
    assert_eq!(asker.emit_ack("gpt:cancel", &cancel).await.unwrap()[0]["ok"], true);
    reply(&asker, &id).await;
    idle(&world).await;
    let calls = calls(&world).await;
    let results: Vec<&str> = calls.iter().map(|call| &*call["result"]).collect();
    assert_eq!(results, ["handed_over", "cancelled"]);
    assert!(calls.iter().all(|call| call["completion"] != "0"), "{calls:?}");
    assert_eq!(spent(&world, "user:p0").await, calls.iter().map(tokens).sum::<u64>());
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_worker_told_is_counted_by_its_successor() {
    let (world, _model, _workers) = world(0, &[]).await;
    let redis = Redis::start(&world.config()).unwrap();
    within("Redis is connected", redis.wait_connected()).await;
    redis.prepare_questions().await.unwrap();
    let asker = member(&world, 0, 0).await;
    let id = ask(&asker, "what would it have said").await;

    // A worker that comes as far as its first words.
    let partition = redis.asked_partitions().await.unwrap()[0];
    let (entry, question) = redis.asked(partition, 1).await.unwrap().remove(0);
    let asked = question.unwrap();
    redis.enqueue_question(&asked, Duration::from_secs(60)).await.unwrap();
    redis.forget_asked(partition, vec![entry]).await.unwrap();
    let taken = redis.take_questions("ghost", 1, Budgets::default()).await.unwrap();
    let (entry, spent) = (&taken.claims[0].entry, taken.claims[0].spent);
    assert_eq!(spent, None);
    let part = Part {
        generation: 1,
        index: Some(0),
        text: "hello world",
        event: ("gpt:delta", "{}"),
    };
    assert!(redis.write_part(&asked.question, part).await.unwrap());
    // It has been silent for longer than its lease.
    let silent = [
        "XCLAIM",
        "rc:{gpt}:ready",
        "workers",
        "ghost",
        "0",
        entry,
        "IDLE",
        "60000",
    ];
    world.redis.cli(&silent).await;

    let worker = world.worker().await;
    reply(&asker, &id).await;
    idle(&world).await;
    let calls = calls(&world).await;
    let seen: Vec<[&str; 3]> = calls
        .iter()
        .map(|call| [&*call["result"], &*call["gen"], &*call["model"]])
        .collect();
    assert_eq!(seen, [["lost", "1", "-"], ["ok", "2", "gpt-4o-mini"]]);
    assert_eq!(calls[0]["completion"], "2");
    assert_ne!(calls[0]["prompt"], "0");
    worker.stop().await;
    redis.close().await;
}

/// Asks the model what it was told first.
async fn told(client: &Client, room: &str) -> String {
    let ack = crate::support::send(client, room, "@gpt system").await;
    let id = format!("{}-r", ack["id"].as_str().unwrap());
    reply(client, &id).await["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_own_prompt_follows_that_of_the_deployment_and_is_bounded() {
    let settings = [("GPT_SYSTEM_PROMPT", "Be kind."), ("GPT_ROOM_PROMPT_BYTES", "18")];
    let (world, _model, _workers) = world(1, &settings).await;
    let room = json!({
        "roomID": "poets", "gptPrompt": "Answer in verse, é and at length.",
        "participants": [{"platformid": "p0", "nickname": "user0"}],
    });
    world.services.post("/api/rooms/create-room", room).await;
    let asker = world.connect(0, 0).await;
    join(&asker, "poets").await;
    assert_eq!(
        told(&asker, "poets").await,
        "Be kind.\n\nAnswer in verse, ",
        "no half of a letter"
    );
    join(&asker, "room-0").await;
    assert_eq!(told(&asker, "room-0").await, "Be kind.");
}

#[tokio::test(flavor = "multi_thread")]
async fn room_service_that_is_away_costs_no_reply() {
    let (world, _model, _workers) = world(1, &[("GPT_SYSTEM_PROMPT", "Be kind.")]).await;
    let asker = member(&world, 0, 0).await;
    world.services.fail("/api/rooms/check-room", Switchable::Status(503));
    assert_eq!(told(&asker, "room-0").await, "Be kind.");
    until("the reply is the only one", Duration::from_secs(5), || async {
        calls(&world).await.len() == 1
    })
    .await;
}
