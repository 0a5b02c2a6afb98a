//! Replies of a model: asked in a room, written before everybody's eyes, ended exactly once, whichever worker dies.

mod cancel;
mod crashes;
mod gate;
mod lag;
mod limits;
mod summary;

use std::time::Duration;

use roomcast::gpt::scripted::ScriptedModel;
use roomcast::worker::Worker;
use roomcast_load::client::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{TestRedis, World, join, send, until};

/// A scripted model on a port of its own, and its address.
async fn model() -> (ScriptedModel, String) {
    model_of(Duration::from_millis(5)).await
}

/// The same at another pace.
async fn model_of(pace: Duration) -> (ScriptedModel, String) {
    let model = ScriptedModel::new(pace);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = model.clone().router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (model, url)
}

/// Two nodes and some workers that know the model.
pub async fn world(workers: usize, settings: &[(&'static str, &str)]) -> (World, ScriptedModel, Vec<Worker>) {
    world_on(TestRedis::start().await, workers, settings).await
}

/// The same on a Redis that is there.
async fn world_on(
    redis: TestRedis,
    workers: usize,
    settings: &[(&'static str, &str)],
) -> (World, ScriptedModel, Vec<Worker>) {
    let (model, url) = model().await;
    let mut all = vec![("GPT_BASE_URL", url.as_str())];
    all.extend_from_slice(settings);
    let world = World::on(redis, 2, &all).await;
    let mut started = Vec::new();
    for _ in 0..workers {
        started.push(world.worker().await);
    }
    (world, model, started)
}

/// A protocol-2 client of a user in room-0.
pub async fn member(world: &World, node: usize, user: usize) -> Client {
    let mut auth = crate::support::auth(user);
    auth["proto"] = json!(2);
    let client = world.client(node, user).auth(auth).connect().await.unwrap();
    join(&client, "room-0").await;
    client
}

/// Asks, and returns the reply's id.
pub async fn ask(client: &Client, text: &str) -> String {
    let ack = send(client, "room-0", &format!("@gpt {text}")).await;
    format!("{}-r", ack["id"].as_str().unwrap())
}

/// The final message of a reply.
pub async fn reply(client: &Client, id: &str) -> Value {
    let id = id.to_owned();
    let reply = client.expect_where("message", move |args| args[0]["id"] == id.as_str());
    reply.await.unwrap()[0].clone()
}

/// The error that ends a reply.
pub async fn error(client: &Client, id: &str) -> Value {
    let id = id.to_owned();
    let error = client.expect_where("gpt:error", move |args| args[0]["id"] == id.as_str());
    error.await.unwrap()[0].clone()
}

/// The text of the last generation, as its pieces came.
fn pieces(client: &Client, id: &str) -> String {
    let deltas: Vec<Value> = client
        .take("gpt:delta")
        .into_iter()
        .map(|args| args[0].clone())
        .filter(|delta| delta["id"] == id)
        .collect();
    let newest = deltas.iter().map(|delta| delta["gen"].as_u64().unwrap()).max().unwrap();
    let last: Vec<&Value> = deltas.iter().filter(|delta| delta["gen"] == newest).collect();
    for (index, delta) in last.iter().enumerate() {
        assert_eq!(delta["idx"], index, "{last:?}");
    }
    last.iter().map(|delta| delta["text"].as_str().unwrap()).collect()
}

/// Waits until nothing is open: what is left in Redis is what autoscaling reads.
pub async fn idle(world: &World) {
    until("the queue is empty", Duration::from_secs(20), || async {
        world.redis.cli(&["ZCARD", "rc:{gpt}:open"]).await == ["0"]
    })
    .await;
    until(
        "the workers have passed over what had ended",
        Duration::from_secs(5),
        || async { (group(world, "pending").await, group(world, "lag").await) == ("0".to_owned(), "0".to_owned()) },
    )
    .await;
    for pattern in ["rc:{gpt}:room:*", "rc:{gpt}:user:*", "rc:{gpt}:job:*"] {
        let left = world.redis.cli(&["--scan", "--pattern", pattern]).await;
        assert_eq!(left, Vec::<String>::new());
    }
}

/// What Redis says of the workers' group.
async fn group(world: &World, field: &str) -> String {
    let groups = world.redis.cli(&["XINFO", "GROUPS", "rc:{gpt}:ready"]).await;
    let at = groups.iter().position(|line| line == field).unwrap();
    groups[at + 1].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_is_written_before_everybodys_eyes_and_ends_as_a_message() {
    let (world, _model, _workers) = world(2, &[]).await;
    let (asker, reader) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let id = ask(&asker, "slow 20 ms, tell me what you know about the sea and the sky").await;
    reader.expect("gpt:delta").await.unwrap();
    // Who comes in the middle gets the text so far, and what follows.
    let mut auth = crate::support::auth(8);
    auth["proto"] = json!(2);
    let late = world.client(0, 8).auth(auth).connect().await.unwrap();
    late.emit("join", &json!({"roomID": "room-0"})).unwrap();
    let previous = late.expect("previousMessages").await.unwrap();
    let part = previous[1]["gpt"][0].clone();
    assert_eq!(part["id"], id.as_str(), "{previous:?}");

    let message = reply(&asker, &id).await;
    assert_eq!(message["kind"], "gpt");
    assert_eq!(message["platformid"], "gpt");
    let text = message["message"].as_str().unwrap();
    assert!(text.contains("the sea and the sky"), "{text}");
    assert_eq!(pieces(&asker, &id), text);
    reply(&reader, &id).await;
    reply(&late, &id).await;
    let seen = part["text"].as_str().unwrap().to_owned();
    let index = part["idx"].as_i64().unwrap();
    let rest: String = late
        .take("gpt:delta")
        .into_iter()
        .filter(|args| args[0]["idx"].as_i64().unwrap() > index)
        .map(|args| args[0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(seen + &rest, text);
    idle(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_a_room_are_answered_in_order_and_too_many_are_refused() {
    let (world, _model, _workers) = world(2, &[]).await;
    let (asker, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(
            ask(
                if n % 2 == 0 { &asker } else { &other },
                &format!("slow 30 ms, question number {n}"),
            )
            .await,
        );
    }
    let refused = ask(&asker, "one too many").await;
    let refusal = error(&other, &refused).await;
    assert_eq!(
        (&refusal["code"], &refusal["retryable"]),
        (&json!("room_busy"), &json!(true))
    );
    let mut order = Vec::new();
    for id in &ids {
        order.push(reply(&asker, id).await["seq"].as_u64().unwrap());
    }
    assert!(order.is_sorted(), "{order:?}");
    idle(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_can_be_cancelled_by_who_asked_and_keeps_what_was_written() {
    let (world, _model, _workers) = world(1, &[]).await;
    let (asker, other) = (member(&world, 0, 0).await, member(&world, 1, 4).await);
    let id = ask(&asker, "slow 200 ms, a long story about everything that ever was").await;
    other.expect("gpt:delta").await.unwrap();
    let cancel = json!({"roomID": "room-0", "id": id});
    assert_eq!(
        other.emit_ack("gpt:cancel", &cancel).await.unwrap()[0]["code"],
        "not_author"
    );
    let waiting = ask(&asker, "next").await;
    other
        .expect_where("gpt:queued", |args| args[0]["position"] == 1)
        .await
        .unwrap();
    let of_waiting = json!({"roomID": "room-0", "id": waiting});
    assert_eq!(asker.emit_ack("gpt:cancel", &of_waiting).await.unwrap()[0]["ok"], true);
    assert_eq!(error(&other, &waiting).await["code"], "cancelled");
    assert_eq!(asker.emit_ack("gpt:cancel", &cancel).await.unwrap()[0]["ok"], true);
    let message = reply(&other, &id).await;
    assert_eq!(message["cancelled"], true);
    assert_eq!(pieces(&asker, &id), message["message"].as_str().unwrap());
    idle(&world).await;
    assert_eq!(
        asker.emit_ack("gpt:cancel", &cancel).await.unwrap()[0]["code"],
        "not_found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_model_are_told_and_the_queue_goes_on() {
    let (world, _model, _workers) = world(1, &[("GPT_FIRST_TOKEN_TIMEOUT", "1s"), ("GPT_IDLE_TIMEOUT", "1s")]).await;
    let asker = member(&world, 0, 0).await;
    for (script, code) in [
        ("context too long", "context_too_long"),
        ("huge", "too_large"),
        ("refused", "refused"),
    ] {
        let id = ask(&asker, &format!("{script}, hello")).await;
        let error = error(&asker, &id).await;
        assert_eq!(error["code"], code, "{error:?}");
        assert!(error["message"].as_str().unwrap().ends_with('.'), "{error:?}");
    }
    for script in [
        "id a, once, malformed after 2",
        "id b, once, cut after 2",
        "id c, once, stall after 1",
        "id d, once, 429",
    ] {
        let id = ask(&asker, &format!("{script}, all is well")).await;
        let message = reply(&asker, &id).await;
        assert!(
            message["message"].as_str().unwrap().contains("all is well"),
            "{message:?}"
        );
    }
    let id = ask(&asker, "control, hello").await;
    let text = reply(&asker, &id).await["message"].as_str().unwrap().to_owned();
    assert!(
        !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'),
        "{text:?}"
    );
    let id = ask(&asker, "html, hello").await;
    assert!(
        reply(&asker, &id).await["message"].as_str().unwrap().contains('<'),
        "text, whatever it looks like"
    );
    // The key is the endpoint's, so it is not asked again at once: this comes last.
    let id = ask(&asker, "wrong key, hello").await;
    assert_eq!(error(&asker, &id).await["code"], "unauthorized");
    idle(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_stops_hands_its_answers_over() {
    let (world, _model, mut workers) = world(1, &[]).await;
    let asker = member(&world, 0, 0).await;
    let id = ask(&asker, "slow 100 ms, one two three four five six seven eight nine ten").await;
    asker.expect("gpt:delta").await.unwrap();
    let second = world.worker().await;
    workers.remove(0).stop().await;
    let reset = asker.expect("gpt:reset").await.unwrap();
    assert_eq!((&reset[0]["id"], &reset[0]["gen"]), (&json!(id), &json!(2)));
    let message = reply(&asker, &id).await;
    assert_eq!(pieces(&asker, &id), message["message"].as_str().unwrap());
    idle(&world).await;
    second.stop().await;
}
