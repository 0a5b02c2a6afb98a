//! The demo with a collector: one setting, and what people do there is traced.

use std::process::Stdio;
use std::time::Duration;

use roomcast_load::client::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::collector::Collector;
use super::one;
use crate::support::{join, send, within};

/// How often other ports are tried where some are taken.
const ATTEMPTS: usize = 5;

/// A demo whose traces go to a collector, what it says, and the first of its ports.
async fn start(collector: &str) -> (Child, Lines<BufReader<ChildStdout>>, u16) {
    for _ in 0..ATTEMPTS {
        let base = 20_000 + rand::random::<u16>() % 10_000;
        let mut demo = Command::new(env!("CARGO_BIN_EXE_roomcast"))
            .args(["demo", "--port-base", &base.to_string()])
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        let mut told = false;
        while let Some(line) = within("the demo starts", lines.next_line()).await.unwrap() {
            told |= line == format!("Traces go to {collector}");
            if line.starts_with("Ctrl-C") {
                assert!(told, "it says where traces go");
                return (demo, lines, base);
            }
        }
    }
    panic!("the demo does not start");
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_with_a_collector_traces_a_question_to_its_answer() {
    let collector = Collector::over_http().await;
    let (mut demo, _said, base) = start(&collector.url).await;
    let login = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{}/login", base + 10))
        .json(&json!({"username": "user0"}));
    let login: Value = login.send().await.unwrap().json().await.unwrap();
    let asker = Client::builder(format!("http://127.0.0.1:{base}")).auth(json!({
        "accessToken": login["accessToken"],
        "refreshToken": login["refreshToken"],
        "userAgent": "Mozilla",
        "username": "user0",
    }));
    let asker = asker.timeout(Duration::from_secs(10)).connect().await.unwrap();
    join(&asker, "room-0").await;
    send(&asker, "room-0", "@gpt slow 1 ms, why?").await;
    let trace = collector.trace("all of it is there", |trace| {
        let has = |name| trace.iter().any(|span| span.name == name);
        has("message") && has("queue") && has("answer")
    });
    let trace = trace.await;
    assert!(one(&trace, "message").parent.is_empty());
    assert_eq!(one(&trace, "answer").parent, one(&trace, "queue").id);

    let pid = demo.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
    assert!(within("the demo ends", demo.wait()).await.unwrap().success());
}
