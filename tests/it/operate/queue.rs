//! The queue of questions to the model: seen, stopped for a while, and what it gave up tried again.

use std::time::Duration;

use roomcast::gpt::scripted::ScriptedModel;
use roomcast::worker::Worker;
use roomcast_load::client::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{SOON, get, request, roomcast, run};
use crate::support::{TestRedis, Topology, World, join, send, until};

/// Long enough for whatever a busy machine does to a reply.
const REPLY: Duration = Duration::from_secs(20);

/// A node and a scripted model, on a Redis of this form.
async fn asking(topology: Topology, settings: &[(&'static str, &str)]) -> (World, ScriptedModel) {
    let model = ScriptedModel::new(Duration::from_millis(5));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let router = model.clone().router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut all = vec![("GPT_BASE_URL", url.as_str())];
    all.extend_from_slice(settings);
    (World::on(TestRedis::start_as(topology).await, 1, &all).await, model)
}

/// A protocol-2 client of a user in its room.
async fn member(world: &World, user: usize) -> Client {
    let mut auth = crate::support::auth(user);
    auth["proto"] = json!(2);
    let client = world.client(0, user).auth(auth).connect().await.unwrap();
    join(&client, &format!("room-{}", user % 4)).await;
    client
}

/// Asks in a room, and returns the question's id.
async fn ask(client: &Client, room: &str, text: &str) -> String {
    let ack = send(client, room, &format!("@gpt {text}")).await;
    ack["id"].as_str().unwrap().to_owned()
}

async fn about(client: &Client, event: &str, question: &str) -> Value {
    let id = format!("{question}-r");
    let found = client.expect_where(event, move |args| args[0]["id"] == id.as_str());
    tokio::time::timeout(REPLY, found).await.expect(event).unwrap()[0].clone()
}

async fn stats(world: &World) -> Value {
    run(world, &["queue", "stats", "--json"]).await.json()
}

/// Waits until the statistics are as they should be.
async fn stood(world: &World, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    let last = std::sync::Mutex::new(Value::Null);
    until(what, REPLY, || async {
        let stats = stats(world).await;
        let fits = is(&stats);
        *last.lock().unwrap() = stats;
        fits
    })
    .await;
    last.into_inner().unwrap()
}

async fn acts(world: &World, limit: usize) -> Value {
    let (_, audit) = get(world, &format!("audit?limit={limit}")).await;
    let acts = audit["audit"].as_array().unwrap().iter();
    let acts: Vec<_> = acts.map(|act| [act["act"].clone(), act["actor"].clone()]).collect();
    json!(acts)
}

/// A worker's own view of the pause, as its metrics page shows it.
async fn tells_pause(worker: &Worker, paused: i64) {
    until("the worker has heard of it", SOON, || async {
        worker.metrics.gpt_paused.get() == paused
    })
    .await;
}

async fn is_ready(worker: &Worker) -> bool {
    let ready = reqwest::get(format!("http://{}/readyz", worker.ops_address)).await;
    ready.is_ok_and(|answer| answer.status().is_success())
}

async fn pausing(topology: Topology) {
    let (world, model) = asking(topology, &[("GPT_DEADLINE", "3s")]).await;
    let workers = [world.worker().await, world.worker().await];
    let (first, second) = (member(&world, 0).await, member(&world, 1).await);
    let held = ask(&first, "room-0", "slow 150 ms, one two three four five").await;
    about(&first, "gpt:delta", &held).await;

    let paused = run(&world, &["queue", "pause", "--reason", "the model moves"]).await;
    assert!(paused.out.contains("is paused"), "{} {}", paused.out, paused.err);
    for worker in &workers {
        tells_pause(worker, 1).await;
    }
    let again = run(&world, &["queue", "pause", "--by", "lee", "--json"]).await.json();
    assert_eq!(again, json!({"paused": true, "was": true}));
    let waits = ask(&second, "room-1", "id waits, hello").await;
    about(&second, "gpt:queued", &waits).await;
    // What a worker has is finished.
    about(&first, "message", &held).await;
    // A worker that starts in the middle takes nothing, and the questions outlive their deadline.
    let late = world.worker().await;
    tells_pause(&late, 1).await;
    let stats = stood(&world, "the question has waited for longer than it may live", |stats| {
        stats["oldest_wait_ms"].as_u64().is_some_and(|waited| waited > 4_000)
    })
    .await;
    assert_eq!(
        (&stats["runnable"], &stats["running"], &stats["dead"], &stats["asked"]),
        (&json!(1), &json!(0), &json!(0), &json!(0)),
        "{stats}"
    );
    assert_eq!(
        (&stats["paused"]["by"], &stats["paused"]["reason"]),
        (&json!("kim"), &json!("the model moves"))
    );
    // What workers are scaled by is on the queue's clock, which stands still.
    let page = workers[0].metrics.render();
    assert!(page.contains("roomcast_gpt_jobs{state=\"ready\"} 1\n"), "{page}");
    assert!(page.contains("roomcast_gpt_oldest_wait_seconds 0\n"), "{page}");
    assert_eq!(model.calls("waits"), 0);
    for worker in workers.iter().chain([&late]) {
        assert!(is_ready(worker).await, "a pause is no failure");
    }
    let table = run(&world, &["queue", "stats"]).await;
    assert!(table.out.starts_with("The queue is paused since "), "{}", table.out);
    assert!(table.out.contains(" by kim: the model moves."), "{}", table.out);

    let resumed = run(&world, &["queue", "resume"]).await;
    assert!(
        resumed.out.starts_with("Workers take questions again, after "),
        "{}",
        resumed.err
    );
    about(&second, "message", &waits).await;
    for worker in workers.iter().chain([&late]) {
        tells_pause(worker, 0).await;
    }
    let twice = run(&world, &["queue", "resume"]).await;
    assert_eq!(
        (twice.code, twice.err.trim()),
        (1, "roomcast: the queue was not paused")
    );
    assert_eq!(acts(&world, 2).await, json!([["resume", "kim"], ["pause", "kim"]]));
    for worker in workers.into_iter().chain([late]) {
        worker.stop().await;
    }
    let stats = self::stats(&world).await;
    assert_eq!(stats["workers"], json!([]), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_queue_takes_no_question_on_any_worker_and_loses_none() {
    pausing(Topology::chosen()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queue_of_a_cluster_is_paused_like_any_other() {
    pausing(Topology::Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_outlives_a_restart_of_redis_and_of_the_workers() {
    let (mut world, model) = asking(Topology::Standalone, &[]).await;
    let worker = world.worker().await;
    stood(&world, "the worker is seen", |stats| stats["workers"][0]["slots"] == 32).await;
    run(&world, &["queue", "pause"]).await;
    tells_pause(&worker, 1).await;
    world.redis.cli(&["SAVE"]).await;
    world.redis.kill().await;
    world.redis.resume().await;
    until("the node serves again", REPLY, || async {
        world.client(0, 0).connect().await.is_ok()
    })
    .await;
    worker.stop().await;
    let worker = world.worker().await;
    tells_pause(&worker, 1).await;
    let client = member(&world, 0).await;
    let question = ask(&client, "room-0", "id after, hello").await;
    about(&client, "gpt:queued", &question).await;
    stood(&world, "the question is runnable", |stats| stats["runnable"] == 1).await;
    assert_eq!(model.calls("after"), 0);
    run(&world, &["queue", "resume"]).await;
    about(&client, "message", &question).await;
    worker.stop().await;
}

/// All ends of a question that a client has had and not looked at.
fn ends(client: &Client, question: &str) -> Vec<&'static str> {
    let id = format!("{question}-r");
    let of = |event: &str| {
        let told = client.take(event).into_iter();
        told.filter(|args| args[0]["id"] == id.as_str()).count()
    };
    let replies = std::iter::repeat_n("message", of("message"));
    replies
        .chain(std::iter::repeat_n("gpt:error", of("gpt:error")))
        .collect()
}

async fn second_chances(topology: Topology) {
    let (world, model) = asking(topology, &[]).await;
    let worker = world.worker().await;
    let (first, second) = (member(&world, 0).await, member(&world, 1).await);
    let once = ask(&first, "room-0", "id once, once, refused, all is well").await;
    assert_eq!(about(&first, "gpt:error", &once).await["code"], "refused");
    let never = ask(&second, "room-1", "id never, context too long, hello").await;
    about(&second, "gpt:error", &never).await;
    stood(&world, "both are dead", |stats| stats["dead"] == 2).await;

    let dead = run(&world, &["queue", "dead", "--json"]).await.json();
    assert_eq!(dead["total"], 2);
    let letter = &dead["letters"][1];
    for (field, value) in [
        ("room", json!("room-0")),
        ("user", json!("p0")),
        ("question", json!(once)),
        ("reason", json!("refused")),
        ("attempts", json!(1)),
    ] {
        assert_eq!(letter[field], value, "{letter}");
    }
    assert!(
        letter["at"].as_u64() <= dead["now"].as_u64() && letter.get("generation").is_none(),
        "{dead}"
    );
    let table = run(&world, &["queue", "dead"]).await;
    let rows = table.rows(&["ID", "WHEN", "REASON", "ATTEMPTS", "ROOM", "USER", "QUESTION"]);
    assert_eq!(rows[1][2..], ["refused", "1", "room-0", "p0", &once]);
    let few = run(&world, &["queue", "dead", "--limit", "1"]).await;
    assert!(
        few.out.ends_with("The newest 1 of 2; --limit shows more.\n"),
        "{}",
        few.out
    );

    let id = letter["id"].as_str().unwrap();
    let mut elsewhere = world.redis.settings();
    elsewhere.push(("ROOMCAST_PARTITIONS", "7".to_owned()));
    let refused = roomcast(elsewhere, &["queue", "retry", id]).await;
    assert!(
        refused.code == 64 && refused.err.contains("ROOMCAST_PARTITIONS"),
        "{}",
        refused.err
    );

    // Two operators at once, and a third who comes late.
    let retry = || async { run(&world, &["queue", "retry", id, "--json"]).await };
    let (one, other) = tokio::join!(retry(), retry());
    assert!(
        one.code.min(other.code) == 0 && one.code.max(other.code) <= 1,
        "{} {}",
        one.err,
        other.err
    );
    let reset = about(&first, "gpt:reset", &once).await;
    assert_eq!(reset["gen"], 2, "above what was told before");
    let reply = about(&first, "message", &once).await;
    assert!(reply["message"].as_str().unwrap().contains("all is well"), "{reply}");
    let late = retry().await;
    assert_eq!(
        (late.code, late.err.trim()),
        (1, format!("roomcast: there is no dead letter {id}").as_str())
    );
    stood(&world, "nothing is open", |stats| {
        stats["running"] == 0 && stats["runnable"] == 0
    })
    .await;
    assert_eq!(model.calls("once"), 2);
    assert_eq!(
        ends(&first, &once),
        Vec::<&str>::new(),
        "it ended once more, and that was read"
    );

    // One that fails again has one more end, and one more letter.
    let node = world.nodes[0].ops_address;
    let (status, all) = request(node, "POST", "queue/retry", "admin", json!({"all": true, "by": "lee"})).await;
    assert_eq!((status, all), (200, json!({"retried": 1, "answered": 0})));
    assert_eq!(about(&second, "gpt:error", &never).await["code"], "context_too_long");
    stood(&world, "it is dead again", |stats| stats["dead"] == 1).await;
    assert_eq!(ends(&second, &never), Vec::<&str>::new());
    let (_, dead) = get(&world, "queue/dead").await;
    assert_eq!(dead["letters"][0]["attempts"], 1, "of its second life");
    let dropped = run(
        &world,
        &["queue", "drop", dead["letters"][0]["id"].as_str().unwrap(), "--json"],
    )
    .await;
    assert_eq!(dropped.json(), json!({"dropped": 1}));
    assert_eq!(
        run(&world, &["queue", "drop", "--all"]).await.out,
        "0 questions forgotten.\n"
    );
    assert!(
        run(&world, &["queue", "dead"])
            .await
            .out
            .starts_with("No question was given up.")
    );
    assert_eq!(acts(&world, 2).await, json!([["drop", "kim"], ["retry", "lee"]]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_question_that_is_retried_gets_exactly_one_further_end() {
    second_chances(Topology::chosen()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_question_of_a_cluster_is_retried_though_its_room_is_elsewhere() {
    second_chances(Topology::Cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_and_peek_show_who_waits_and_never_what_is_asked() {
    let (world, _model) = asking(Topology::chosen(), &[("GPT_PARALLEL", "1")]).await;
    let worker = world.worker().await;
    let (first, second, third) = (
        member(&world, 0).await,
        member(&world, 1).await,
        member(&world, 2).await,
    );
    let held = ask(
        &first,
        "room-0",
        "slow 1500 ms, a secret of many words that takes a while to repeat",
    )
    .await;
    about(&first, "gpt:delta", &held).await;
    for _ in 0..2 {
        ask(&first, "room-0", "another secret").await;
    }
    let next = ask(&second, "room-1", "a secret too").await;
    about(&second, "gpt:queued", &next).await;
    let after = ask(&third, "room-2", "the last secret").await;
    let stats = stood(&world, "all are queued", |stats| {
        stats["runnable"] == 2 && stats["waiting"] == 2 && stats["running"] == 1
    })
    .await;
    assert_eq!(
        stats["rooms"][0],
        json!({"room": "room-0", "waiting": 2, "running": 1}),
        "{stats}"
    );
    assert_eq!(stats["users"][0], json!({"user": "p0", "waiting": 2, "running": 1}));
    assert_eq!((&stats["rooms_total"], &stats["users_total"]), (&json!(3), &json!(3)));
    let running = &stats["workers"][0]["running"][0];
    assert_eq!(
        (&running["question"], &running["attempt"]),
        (&json!(held), &json!(1)),
        "{stats}"
    );
    assert_eq!(
        (&stats["workers"][0]["slots"], &stats["workers"][0]["silent"]),
        (&json!(1), &json!(false))
    );
    let table = run(&world, &["queue", "stats", "--limit", "1"]).await;
    for line in [
        "The queue runs.",
        "  Runnable  2",
        "  Waiting   2 ",
        "1 of 3; --limit shows more.",
    ] {
        assert!(table.out.contains(line), "{}", table.out);
    }
    let peek = run(&world, &["queue", "peek", "--json"]).await.json();
    let (_, same) = get(&world, "queue/next").await;
    for peek in [&peek, &same] {
        let questions = peek["questions"].as_array().unwrap();
        let ids: Vec<&Value> = questions.iter().map(|open| &open["question"]).collect();
        assert_eq!(json!(ids), json!([next, after]));
        assert_eq!(
            (&questions[0]["user"], &questions[0]["attempt"]),
            (&json!("p1"), &json!(1))
        );
        assert!(questions[0]["age_ms"].is_u64());
    }
    let rows = run(&world, &["queue", "peek", "--limit", "1"]).await;
    let rows = rows.rows(&["ROOM", "USER", "QUESTION", "AGE", "ATTEMPT"]);
    assert_eq!(
        (rows.len(), &rows[0][..3]),
        (1, &["room-1".to_owned(), "p1".to_owned(), next][..])
    );
    for text in [stats.to_string(), table.out, peek.to_string()] {
        assert!(!text.contains("secret"), "{text}");
    }
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_worker_says_little_to_redis() {
    let (world, _model) = asking(Topology::Standalone, &[]).await;
    let worker = world.worker().await;
    stood(&world, "the worker is seen", |stats| stats["workers"][0].is_object()).await;
    let reads = async || {
        let info = world.redis.cli(&["INFO", "commandstats"]).await;
        let calls = |name: &str| -> u64 {
            let line = info
                .iter()
                .find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        calls("xreadgroup")
    };
    let before = reads().await;
    // There is nothing to wait for: that little happens within some time is the point.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let told = reads().await - before;
    assert!((3..=8).contains(&told), "{told} reads in 4 s");
    // And it need not look often: it is told.
    let client = member(&world, 0).await;
    let question = ask(&client, "room-0", "hello").await;
    let begun = about(&client, "gpt:delta", &question);
    tokio::time::timeout(SOON, begun)
        .await
        .expect("the worker was not told");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn order_for_the_queue_that_makes_no_sense_says_why() {
    let (world, _model) = asking(Topology::chosen(), &[]).await;
    let long = "x".repeat(201);
    for (args, words) in [
        (&["queue", "retry"][..], "--all"),
        (&["queue", "retry", "1-0", "--all"], "--all"),
        (&["queue", "retry", "first"], "id `first` is no name of a dead letter"),
        (&["queue", "drop", "1"], "as `queue dead` lists it"),
        (&["queue", "peek", "--limit", "0"], "--limit"),
        (
            &["queue", "pause", "--reason", &long],
            "reason must be at most 200 bytes",
        ),
        (&["queue", "pause", "--by", "a{b}"], "by "),
    ] {
        let ended = run(&world, args).await;
        assert!(ended.code == 64 && ended.err.contains(words), "{args:?}: {}", ended.err);
    }
    let empty = stats(&world).await;
    assert_eq!(
        (&empty["runnable"], &empty["paused"]),
        (&json!(0), &Value::Null),
        "{empty}"
    );
    assert!(
        run(&world, &["queue", "stats"])
            .await
            .out
            .contains("No worker was seen")
    );
    assert_eq!(
        run(&world, &["queue", "peek"]).await.out,
        "No question could be taken now.\n"
    );
    let node = world.nodes[0].ops_address;
    for (method, path, body, status) in [
        ("POST", "queue/retry", json!({}), 400),
        ("POST", "queue/retry", json!({"id": "x"}), 400),
        ("POST", "queue/retry", json!({"id": "1-0"}), 404),
        ("POST", "queue/drop", json!({"id": "1-0", "all": true}), 400),
        ("POST", "queue/drop", json!({"all": true}), 200),
        ("POST", "queue/pause", json!({"reason": "a\nb"}), 400),
        ("POST", "queue/resume", json!({"why": 1}), 400),
        ("POST", "queue/resume", json!({}), 200),
        ("GET", "queue/dead?limit=0", Value::Null, 400),
        ("GET", "queue?limit=5", Value::Null, 200),
        ("DELETE", "queue", Value::Null, 405),
    ] {
        let (answered, said) = request(node, method, path, "admin", body).await;
        assert_eq!(answered, status, "{method} {path}: {said}");
        let (answered, _) = request(node, method, path, "", Value::Null).await;
        assert_eq!(answered, 401, "{method} {path}");
    }
    let help = run(&world, &["queue", "--help"]).await;
    for word in ["stats", "peek", "dead", "retry", "drop", "pause", "resume", "Examples:"] {
        assert!(help.out.contains(word), "{}", help.out);
    }
}
