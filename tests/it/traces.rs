//! Traces: one of a message over two nodes, one of a reply over node and worker, and what a collector that is away costs.

mod collector;
mod cost;
mod demo;

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use roomcast::gpt::scripted::ScriptedModel;
use roomcast_load::client::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use self::collector::{Collector, Seen};
use crate::support::{SECRET, World, join, send, until, within};

/// What must be in no trace and no log line.
const TEXT: &str = "only for the members of this room";

/// A role in a process of its own, as it is in production: each has its own traces.
struct Process {
    child: Child,
    address: String,
    ops: String,
    lines: Arc<Mutex<Vec<Value>>>,
}

impl Process {
    async fn start(world: &World, role: &str, settings: &[(&'static str, &str)]) -> Self {
        // Another build of the program, for measurements.
        let program = std::env::var("ROOMCAST_BINARY");
        let mut child = Command::new(program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_roomcast")))
            .arg(role)
            .env_clear()
            .envs([
                ("JWT_SECRET", SECRET),
                ("VISION_APP_INFO", "VisionApp"),
                ("ROOMCAST_LISTEN", "127.0.0.1:0"),
                ("ROOMCAST_OPS_LISTEN", "127.0.0.1:0"),
                ("ROOMCAST_DRAIN_SPREAD", "0s"),
                ("ROOMCAST_LOG", "debug"),
                ("ROOMCAST_LOG_FORMAT", "json"),
            ])
            .envs([("AUTH_URL", world.services.url()), ("API_URL", world.services.url())])
            .envs(world.redis.settings())
            .envs(settings.iter().copied())
            .current_dir(std::env::temp_dir())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, (told, listens)) = (lines.clone(), tokio::sync::oneshot::channel());
        tokio::spawn(async move {
            let mut told = Some(told);
            while let Ok(Some(line)) = reader.next_line().await {
                let Ok(line) = serde_json::from_str::<Value>(&line) else {
                    continue;
                };
                if line["ops_address"].is_string()
                    && let Some(told) = told.take()
                {
                    let _gone = told.send(line.clone());
                }
                sink.lock().unwrap().push(line);
            }
        });
        let listens = within("the process listens", listens).await.unwrap();
        let address = |name: &str| listens[name].as_str().unwrap_or_default().to_owned();
        let process = Self {
            child,
            address: format!("http://{}", address("address")),
            ops: format!("http://{}", address("ops_address")),
            lines,
        };
        until("the process is ready", Duration::from_secs(20), || async {
            let answer = reqwest::get(format!("{}/readyz", process.ops)).await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
        process
    }

    async fn member(&self, world: &World, user: usize) -> Client {
        let mut auth = crate::support::auth(user);
        auth["proto"] = json!(2);
        let client = world.client_at(&self.address, user).auth(auth).connect().await.unwrap();
        join(&client, "room-0").await;
        client
    }

    async fn metric(&self, series: &str) -> f64 {
        let page = reqwest::get(format!("{}/metrics", self.ops))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let line = page
            .lines()
            .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap()
    }

    /// Stops it as an orchestrator does, and waits for its end.
    async fn stop(mut self) -> Vec<Value> {
        let pid = self.child.id().unwrap().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
        let status = within("the process ends", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
        self.lines.lock().unwrap().clone()
    }
}

/// Nothing of what people say or prove themselves with is in what operators see.
fn assert_discreet(what: &str) {
    let token = crate::support::token(0, Duration::from_secs(3600));
    for secret in [TEXT, SECRET, token.split('.').next().unwrap()] {
        assert!(!what.contains(secret), "`{secret}` is in {what}");
    }
}

/// The one span of this name in the trace.
fn one<'a>(trace: &'a [Seen], name: &str) -> &'a Seen {
    let mut found = trace.iter().filter(|span| span.name == name);
    let span = found.next().unwrap_or_else(|| panic!("no `{name}` in {trace:#?}"));
    assert!(found.next().is_none(), "two of `{name}` in {trace:#?}");
    span
}

#[tokio::test(flavor = "multi_thread")]
async fn message_is_one_trace_over_two_nodes() {
    let collector = Collector::over_http().await;
    let world = World::start(0).await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
    let near = Process::start(&world, "node", &settings).await;
    let far = Process::start(&world, "node", &settings).await;
    let (writer, reader) = (near.member(&world, 0).await, far.member(&world, 4).await);
    let ack = send(&writer, "room-0", TEXT).await;
    let got = reader.expect("message").await.unwrap();
    let refused = writer.emit_ack("join", &json!({"roomID": "room-1"})).await.unwrap();
    assert_eq!(refused[0]["code"], "not_member");

    let id = ack["id"].as_str().unwrap();
    let trace = collector.trace("all of it is there", |trace| {
        let post = trace
            .iter()
            .any(|span| span.name == "post" && span.has("roomcast.message", id));
        post && trace.iter().filter(|span| span.name == "emit").count() == 2
    });
    let trace = trace.await;
    let (root, post) = (one(&trace, "message"), one(&trace, "post"));
    assert!(root.parent.is_empty() && root.has("roomcast.result", "ok"), "{root:#?}");
    assert!(
        !got[0].to_string().contains(&root.trace),
        "the context is not for clients: {got:?}"
    );
    assert_eq!(post.parent, root.id);
    assert_eq!(post.instance, root.instance);
    let deliveries: Vec<&Seen> = trace.iter().filter(|span| span.name == "deliver").collect();
    assert_eq!(deliveries.len(), 2);
    for delivery in &deliveries {
        assert_eq!(delivery.parent, post.id);
        let emit = trace
            .iter()
            .find(|span| span.name == "emit" && span.parent == delivery.id)
            .unwrap();
        assert_eq!(emit.instance, delivery.instance);
        assert!(emit.has("roomcast.sockets", "1"), "{emit:#?}");
    }
    assert_ne!(deliveries[0].instance, deliveries[1].instance, "one on each node");
    assert!(deliveries.iter().any(|delivery| delivery.instance == post.instance));

    // A log line of a traced event names the trace.
    let refusal = collector.trace("the refused join", |trace| {
        trace
            .iter()
            .any(|span| span.name == "join" && span.has("roomcast.result", "not_member"))
    });
    let refusal = refusal.await[0].trace.clone();
    assert_discreet(&format!("{:?}", collector.all()));
    let lines = near.stop().await;
    let named = |line: &Value| line["message"] == "event refused" && line["span"]["trace_id"] == refusal.as_str();
    assert!(lines.iter().any(named), "{refusal}: {lines:#?}");
    assert_discreet(&Value::Array(lines).to_string());
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_is_one_trace_over_node_and_worker_to_its_last_piece() {
    let collector = Collector::over_grpc().await;
    let model = ScriptedModel::new(Duration::from_millis(5));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, model.router()).await });
    let world = World::start(0).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=chat%20room"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("GPT_BASE_URL", &url),
    ];
    let node = Process::start(&world, "node", &settings).await;
    let worker = Process::start(&world, "worker", &settings).await;
    let asker = node.member(&world, 0).await;
    let ack = send(&asker, "room-0", &format!("@gpt slow 40 ms, {TEXT}")).await;
    let id = format!("{}-r", ack["id"].as_str().unwrap());
    let reply = id.clone();
    let reply = asker.expect_where("message", move |args| args[0]["id"] == reply.as_str());
    reply.await.unwrap();
    // What has not been sent yet is sent at the stop.
    let lines = worker.stop().await;
    node.stop().await;

    let trace = collector.trace("all of it is there", |trace| {
        trace.iter().filter(|span| span.name == "emit").count() == 2
    });
    let trace = trace.await;
    let (root, queue, answer) = (one(&trace, "message"), one(&trace, "queue"), one(&trace, "answer"));
    let posts: Vec<&Seen> = trace.iter().filter(|span| span.name == "post").collect();
    let question = posts.iter().find(|post| post.parent == root.id).unwrap();
    let stored = posts.iter().find(|post| post.parent == answer.id).unwrap();
    assert_eq!((&queue.parent, &answer.parent), (&question.id, &queue.id));
    assert!(stored.has("roomcast.message", &id), "{stored:#?}");
    let model = one(&trace, "model");
    assert_eq!(model.parent, answer.id);
    assert!(model.events.contains(&"first token".to_owned()), "{model:#?}");
    let deltas: Vec<&Seen> = trace.iter().filter(|span| span.name == "delta").collect();
    assert!(
        deltas.len() > 1 && deltas.iter().all(|delta| delta.parent == answer.id),
        "{trace:#?}"
    );
    assert!(
        trace
            .iter()
            .any(|span| span.name == "deliver" && span.parent == stored.id)
    );
    assert_ne!(answer.instance, root.instance, "the worker's own");
    assert!(
        root.resource.contains("deployment.environment.name=test"),
        "{}",
        root.resource
    );
    assert_eq!(collector.tenant().as_deref(), Some("chat room"));
    assert_discreet(&format!("{:?}", collector.all()));
    assert_discreet(&Value::Array(lines).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn collector_that_does_not_answer_costs_spans_and_no_time() {
    // Takes connections and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let world = World::start(0).await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s"),
        ("ROOMCAST_LOG", "info"),
        ("GUARD_EVENTS_PER_SOCKET", "10000/s burst 10000"),
        ("GUARD_MESSAGES_PER_USER", "10000/s burst 10000"),
    ];
    let node = Process::start(&world, "node", &settings).await;
    let client = node.member(&world, 0).await;
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    // More spans than may wait: four of a message.
    for batch in 0..30 {
        let sent = Instant::now();
        for n in 0..99 {
            client
                .emit(
                    "message",
                    &json!({"roomID": "room-0", "message": format!("{batch} {n}")}),
                )
                .unwrap();
        }
        send(&client, "room-0", TEXT).await;
        slowest = slowest.max(sent.elapsed());
    }
    assert!(slowest < Duration::from_secs(3), "{slowest:?}, {:?}", started.elapsed());
    until("lost spans are counted", Duration::from_secs(20), || async {
        node.metric("roomcast_trace_spans_total{result=\"failed\"}").await > 0.0
            && node.metric("roomcast_trace_spans_total{result=\"dropped\"}").await > 0.0
    })
    .await;
    assert_eq!(
        node.metric("roomcast_trace_spans_total{result=\"exported\"}").await,
        0.0
    );
    let stopping = Instant::now();
    let lines = node.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(15), "{:?}", stopping.elapsed());
    let told = |line: &&Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("takes no traces"))
    };
    assert_eq!(lines.iter().filter(told).count(), 1, "said once: {lines:#?}");
}
