//! Workers that die or stand still at each step, Redis that restarts, a model that hangs: every question has one end.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::join_all;
use roomcast_load::client::Client;
use serde_json::json;
use tokio::process::{Child, Command};

use super::gate::{Gate, Stop};
use super::{ask, error, idle, model, model_of, pieces, reply};
use crate::support::{SECRET, TestRedis, Topology, World, join, until, within};

/// A lease, what may pass until somebody looks, and the reply itself.
const TAKE_OVER_MAX: Duration = Duration::from_secs(40);

/// Every place between two steps of a worker.
const STEPS: [Stop; 7] = [
    Stop::Before("gpt_enqueue"),
    Stop::After("gpt_enqueue"),
    Stop::Before("gpt_take"),
    // The question is its own, and it does not know.
    Stop::After("gpt_take"),
    // The room has seen the beginning.
    Stop::After("gpt_part"),
    Stop::Before("post"),
    Stop::After("post"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kill,
    /// SIGSTOP, and SIGCONT once another one has ended the question.
    StandStill,
}

/// A worker of its own process.
pub struct Victim(Child);

impl Victim {
    pub fn start(world: &World, redis: u16, model: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .arg("worker")
            .env_clear()
            .envs([
                ("JWT_SECRET", SECRET),
                ("AUTH_URL", &world.services.url()),
                ("API_URL", &world.services.url()),
                ("VISION_APP_INFO", "VisionApp"),
                ("ROOMCAST_OPS_LISTEN", "127.0.0.1:0"),
                ("REDIS_URL", &format!("redis://127.0.0.1:{redis}")),
                ("GPT_BASE_URL", model),
            ])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Self(child.unwrap())
    }

    pub async fn kill(&mut self) {
        self.0.kill().await.unwrap();
    }

    pub async fn signal(&self, name: &str) {
        let pid = self.0.id().unwrap().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().await;
        assert!(status.unwrap().success());
    }
}

/// A client that waits for as long as a question may take.
pub async fn patient(world: &World, node: usize, user: usize) -> Client {
    let mut auth = crate::support::auth(user);
    auth["proto"] = json!(2);
    let builder = world.client(node, user).auth(auth).timeout(TAKE_OVER_MAX);
    let client = builder.connect().await.unwrap();
    join(&client, "room-0").await;
    client
}

/// What a new member sees of a reply in the log, and what `watcher` was told of errors.
async fn ends(world: &World, watcher: &Client, id: &str) -> usize {
    let client = world.connect(0, 20).await;
    let previous = join(&client, "room-0").await;
    let stored = previous.iter().filter(|message| message["id"] == id).count();
    let errors = watcher.take("gpt:error");
    stored + errors.iter().filter(|args| args[0]["id"] == id).count()
}

/// How long after its worker's fate a question had its end.
async fn survives(stop: Stop, fate: Fate) -> Duration {
    let (_model, url) = model().await;
    let redis = TestRedis::start_as(Topology::Standalone).await;
    let world = World::on(redis, 2, &[("GPT_BASE_URL", url.as_str())]).await;
    let gate = Gate::start(&world, stop).await;
    let mut victim = Victim::start(&world, gate.port, &url);
    let (asker, reader) = (patient(&world, 0, 0).await, patient(&world, 1, 4).await);
    let id = ask(&asker, "slow 20 ms, what became of whoever was asked first").await;
    gate.reached().await;
    let since = Instant::now();
    match fate {
        Fate::Kill => victim.kill().await,
        Fate::StandStill => victim.signal("STOP").await,
    }
    let second = world.worker().await;
    let message = reply(&reader, &id).await;
    let took = since.elapsed();
    if !matches!(stop, Stop::After("post")) {
        assert_eq!(pieces(&reader, &id), message["message"].as_str().unwrap(), "{stop:?}");
    }
    // The room goes on, whatever step was the last.
    let next = ask(&asker, "who is next").await;
    reply(&reader, &next).await;
    let went_on = since.elapsed();
    if fate == Fate::StandStill {
        second.stop().await;
        gate.open();
        victim.signal("CONT").await;
        // It has woken up when it answers.
        let last = ask(&asker, "slow 20 ms, are you there again").await;
        reply(&reader, &last).await;
    }
    idle(&world).await;
    assert_eq!(ends(&world, &reader, &id).await, 1, "{stop:?}, {fate:?}");
    println!("{stop:?}, {fate:?}: the end after {took:?}, the room goes on after {went_on:?}");
    went_on
}

async fn survives_everywhere(fate: Fate) {
    for took in join_all(STEPS.map(|stop| survives(stop, fate))).await {
        assert!(took < TAKE_OVER_MAX, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn question_whose_worker_is_killed_at_any_step_has_one_end() {
    survives_everywhere(Fate::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn question_whose_worker_stands_still_at_any_step_has_one_end() {
    survives_everywhere(Fate::StandStill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_wakes_up_cannot_end_what_another_one_is_writing() {
    let (_model, url) = model_of(Duration::from_millis(150)).await;
    let redis = TestRedis::start_as(Topology::Standalone).await;
    let world = World::on(redis, 2, &[("GPT_BASE_URL", url.as_str())]).await;
    let gate = Gate::start(&world, Stop::Before("post")).await;
    let victim = Victim::start(&world, gate.port, &url);
    let (asker, reader) = (patient(&world, 0, 0).await, patient(&world, 1, 4).await);
    // The first call is answered with markup, all others with these words.
    let text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen";
    let id = ask(&asker, &format!("id q, once, html, {text}")).await;
    gate.reached().await;
    victim.signal("STOP").await;
    let _second = world.worker().await;
    reader.expect("gpt:reset").await.unwrap();
    reader
        .expect_where("gpt:delta", |args| args[0]["gen"] == 2)
        .await
        .unwrap();
    gate.open();
    victim.signal("CONT").await;
    let message = reply(&reader, &id).await["message"].as_str().unwrap().to_owned();
    assert!(message.contains(text), "{message}");
    assert!(message.ends_with(&pieces_after_first(&reader, &id)), "{message}");
    idle(&world).await;
    assert_eq!(ends(&world, &reader, &id).await, 1);
}

/// What came of the last generation; its first piece was taken before.
fn pieces_after_first(client: &Client, id: &str) -> String {
    let deltas = client.take("gpt:delta").into_iter().map(|args| args[0].clone());
    let of_last = deltas.filter(|delta| delta["id"] == id && delta["gen"] == 2);
    of_last
        .map(|delta| delta["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn question_survives_a_restart_of_redis() {
    let (_model, url) = model().await;
    let mut world = World::with(2, &[("GPT_BASE_URL", url.as_str())]).await;
    let _workers = [world.worker().await, world.worker().await];
    let (asker, reader) = (patient(&world, 0, 0).await, patient(&world, 1, 4).await);
    let id = ask(
        &asker,
        "slow 100 ms, a b c d e f g h i j k l m n o p q r s t u v w x y z",
    )
    .await;
    reader.expect("gpt:delta").await.unwrap();
    let since = Instant::now();
    world.redis.kill().await;
    world.redis.resume().await;
    let message = reply(&reader, &id).await;
    println!("the reply is there {:?} after Redis died", since.elapsed());
    // What was told while the connection was away is in the message all the same.
    assert!(message["message"].as_str().unwrap().ends_with("x y z"), "{message}");
    until("messages are stored again", Duration::from_secs(15), || async {
        let payload = json!({"roomID": "room-0", "message": "again?"});
        asker.emit_ack("message", &payload).await.unwrap()[0]["ok"] == true
    })
    .await;
    let next = ask(&asker, "and now").await;
    reply(&reader, &next).await;
    idle(&world).await;
    until("handshakes are taken again", Duration::from_secs(15), || async {
        world.client(0, 20).connect().await.is_ok()
    })
    .await;
    assert_eq!(ends(&world, &reader, &id).await, 1);
}

/// Asks a model that fails each time in the same way.
async fn fails(script: &str, code: &str) {
    let (model, url) = model().await;
    let settings = [
        ("GPT_BASE_URL", url.as_str()),
        ("GPT_FIRST_TOKEN_TIMEOUT", "500ms"),
        ("GPT_IDLE_TIMEOUT", "500ms"),
    ];
    let world = World::with(2, &settings).await;
    let _worker = world.worker().await;
    let (asker, reader) = (patient(&world, 0, 0).await, patient(&world, 1, 4).await);
    let id = ask(&asker, &format!("id q, {script}, hello")).await;
    let failure = error(&reader, &id).await;
    let told = (&failure["code"], &failure["retryable"]);
    assert_eq!(told, (&json!(code), &json!(true)), "{script}");
    assert!(model.calls("q") <= 4, "{script}: {}", model.calls("q"));
    let next = ask(&asker, "all is well").await;
    reply(&reader, &next).await;
    idle(&world).await;
    assert_eq!(ends(&world, &reader, &id).await, 0, "{script}: a second end");
}

#[tokio::test(flavor = "multi_thread")]
async fn model_that_hangs_or_talks_nonsense_is_told_as_an_error_after_four_attempts() {
    tokio::join!(
        fails("stall", "timeout"),
        fails("stall after 2", "timeout"),
        fails("malformed after 2", "bad_stream"),
        fails("cut after 1", "bad_stream"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_lost_questions_than_slots_are_all_answered() {
    let (_model, url) = model().await;
    let redis = TestRedis::start_as(Topology::Standalone).await;
    let settings = [("GPT_BASE_URL", url.as_str()), ("GPT_PARALLEL", "1")];
    let world = World::on(redis, 1, &settings).await;
    let mut victim = Victim::start(&world, world.redis.port(), &url);
    let mut asked = Vec::new();
    for user in 0..4 {
        let mut auth = crate::support::auth(user);
        auth["proto"] = json!(2);
        let builder = world.client(0, user).auth(auth).timeout(Duration::from_secs(80));
        let (client, room) = (builder.connect().await.unwrap(), format!("room-{user}"));
        join(&client, &room).await;
        // One after the other they take longer than a lease.
        let text = format!("@gpt once, id lost{user}, stall after 2, {}", "word ".repeat(20));
        let ack = crate::support::send(&client, &room, &format!("{text}, slow")).await;
        within("it is being answered", client.expect("gpt:delta"))
            .await
            .unwrap();
        asked.push((client, format!("{}-r", ack["id"].as_str().unwrap())));
    }
    victim.kill().await;
    let _second = world.worker().await;
    for (client, id) in &asked {
        reply(client, id).await;
        assert_eq!(client.take("gpt:error"), Vec::<Vec<serde_json::Value>>::new());
    }
    idle(&world).await;
}
