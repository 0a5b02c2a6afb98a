//! The summary of what no longer fits into a prompt: the model has it, and nothing of it that was taken back.

use std::time::Duration;

use roomcast::model::RoomId;
use roomcast::redis::Keys;
use roomcast_load::client::Client;
use serde_json::json;

use super::{reply, world};
use crate::support::{World, send, until};

/// Some 600 tokens of prompt, of which a summary has at most 120: thirty of the messages below do not fit.
const SETTINGS: [(&str, &str); 3] = [
    ("GPT_CONTEXT_TOKENS", "600"),
    ("GPT_SUMMARY_TOKENS", "120"),
    ("GPT_SYSTEM_PROMPT", "Be brief."),
];

const ROOM: &str = "minutes";

/// The one member of a room of its own.
async fn member(world: &World) -> Client {
    let people = json!([{"platformid": "p0", "nickname": "user0"}]);
    let room = json!({"roomID": ROOM, "participants": people});
    world.services.post("/api/rooms/create-room", room).await;
    world.joined(0, 0, ROOM).await.0
}

/// The room's summary, where it has one.
async fn summary(world: &World) -> Option<String> {
    let key = Keys::new(128).gpt_summary(&RoomId::new(ROOM).unwrap());
    let lines = world.redis.cli(&["HGET", &key, "text"]).await;
    Some(lines.join("\n")).filter(|text| !text.is_empty())
}

async fn summarised(world: &World) -> String {
    until("the room has a summary", Duration::from_secs(10), || async {
        summary(world).await.is_some()
    })
    .await;
    summary(world).await.unwrap()
}

/// Asks, and returns what the model said.
async fn answer(client: &Client, question: &str) -> String {
    let ack = send(client, ROOM, &format!("@gpt {question}")).await;
    let id = format!("{}-r", ack["id"].as_str().unwrap());
    reply(client, &id).await["message"].as_str().unwrap().to_owned()
}

/// Says so much that the first of it does not fit; the ids of the messages.
async fn talk(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..40 {
        let text = format!("boat{number} left for the islands at the turn of the tide today");
        let ack = send(client, ROOM, &text).await;
        ids.push(ack["id"].as_str().unwrap().to_owned());
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_longer_fits_is_summarised_and_nothing_that_was_taken_back() {
    let (world, _model, _workers) = world(1, &SETTINGS).await;
    let client = member(&world).await;
    let ids = talk(&client).await;
    answer(&client, "anything").await;
    let first = summarised(&world).await;
    assert!(first.contains("boat0 ") && first.contains("boat1 "), "{first}");

    // The author takes one back that only the summary knows.
    let deletion = json!({"roomID": ROOM, "id": ids[0]});
    client.emit_ack("deleteMessage", &deletion).await.unwrap();
    assert_eq!(summary(&world).await, None);

    answer(&client, "anything else").await;
    let anew = summarised(&world).await;
    assert!(!anew.contains("boat0 ") && anew.contains("boat1 "), "{anew}");
    // What it is told now: the summary, then the messages that fit.
    let told = answer(&client, "prompt, what do you know").await;
    let (before, after) = told.split_once(')').unwrap();
    assert!(
        before.contains("(What was said before") && before.contains("boat1 "),
        "{told}"
    );
    assert!(after.contains("boat39 ") && !told.contains("boat0 "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn summary_costs_tokens_and_goes_with_its_room() {
    let (world, _model, _workers) = world(1, &SETTINGS).await;
    let client = member(&world).await;
    talk(&client).await;
    answer(&client, "anything").await;
    summarised(&world).await;
    let records = world.redis.cli(&["XRANGE", "rc:{gpt}:usage", "-", "+"]).await;
    let results: Vec<&String> = records
        .iter()
        .zip(&records[1..])
        .filter_map(|(name, value)| (name == "result").then_some(value))
        .collect();
    assert_eq!(results, ["ok", "summary"]);
    let leave = json!({"roomID": ROOM, "platformid": "p0", "username": "user0"});
    client.emit_ack("deleteroom", &leave).await.unwrap();
    until("the summary is gone", Duration::from_secs(10), || async {
        summary(&world).await.is_none()
    })
    .await;
}
