//! What operators read: a message counted at every step, the queue as it stands, and a page that promtool has nothing
//! against.

use std::process::Stdio;
use std::time::Duration;

use roomcast::gpt::scripted::ScriptedModel;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::support::{World, join, send, until};

/// A value of a page of metrics, by its name and labels as they stand there.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page
        .lines()
        .find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn message_is_counted_at_every_step_of_its_way() {
    let world = World::start(2).await;
    let (writer, _) = world.joined(0, 0, "room-0").await;
    let (near, _) = world.joined(0, 4, "room-0").await;
    let (far, _) = world.joined(1, 8, "room-0").await;
    for n in 0..5 {
        send(&writer, "room-0", &format!("m{n}")).await;
    }
    for client in [&near, &far] {
        client
            .expect_where("message", |args| args[0]["message"] == "m4")
            .await
            .unwrap();
    }
    let page = |node: usize| world.nodes[node].metrics.render();
    until("all is delivered", Duration::from_secs(5), || async {
        value(&page(0), "roomcast_deliveries_total") == Some(10.0)
    })
    .await;
    let (one, other) = (page(0), page(1));
    for (page, series, expected) in [
        (&one, "roomcast_events_accepted_total", 5.0),
        (&one, "roomcast_events_published_total", 10.0),
        (&one, "roomcast_bus_messages_received_total", 5.0),
        (&other, "roomcast_bus_messages_received_total", 5.0),
        (&other, "roomcast_events_accepted_total", 0.0),
        (&other, "roomcast_deliveries_total", 5.0),
        (&other, "roomcast_deliveries_repaired_total", 0.0),
        (&one, "roomcast_posts_total{result=\"ok\"}", 5.0),
        (&one, "roomcast_events_total{event=\"message\",result=\"ok\"}", 5.0),
        (&one, "roomcast_event_duration_seconds_count{event=\"message\"}", 5.0),
        (&one, "roomcast_redis_call_duration_seconds_count{call=\"post\"}", 5.0),
        (&one, "roomcast_handshake_duration_seconds_count", 2.0),
        (&one, "roomcast_connections", 2.0),
    ] {
        assert_eq!(value(page, series), Some(expected), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_shows_how_the_queue_stands_and_a_node_does_not() {
    let model = ScriptedModel::new(Duration::from_millis(5));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, model.router()).await });
    let world = World::with(1, &[("GPT_BASE_URL", &url), ("GPT_PARALLEL", "1")]).await;
    let worker = world.worker().await;
    let mut clients = Vec::new();
    for (user, room) in [(0, "room-0"), (1, "room-1"), (2, "room-2")] {
        let (client, _) = world.joined(0, user, room).await;
        send(
            &client,
            room,
            "@gpt slow 300 ms, one two three four five six seven eight nine ten",
        )
        .await;
        clients.push(client);
    }
    // One of a room waits behind its room's first.
    send(&clients[0], "room-0", "@gpt next").await;
    let state = |state: &str| {
        value(
            &worker.metrics.render(),
            &format!("roomcast_gpt_jobs{{state=\"{state}\"}}"),
        )
    };
    until("the queue's figures are right", Duration::from_secs(15), || async {
        [state("running"), state("ready"), state("waiting"), state("delayed")]
            == [Some(1.0), Some(2.0), Some(1.0), Some(0.0)]
    })
    .await;
    let page = worker.metrics.render();
    assert!(value(&page, "roomcast_gpt_oldest_wait_seconds").unwrap() > 0.0);
    assert_eq!(value(&page, "roomcast_gpt_answering"), Some(1.0));
    assert_eq!(value(&page, "roomcast_gpt_slots"), Some(1.0));
    assert!(!world.nodes[0].metrics.render().contains("roomcast_gpt_jobs"));
    until("the first token is measured", Duration::from_secs(10), || async {
        value(&worker.metrics.render(), "roomcast_gpt_first_token_seconds_count") >= Some(1.0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_against_the_page() {
    let world = World::start(1).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    send(&client, "room-0", "hello").await;
    let worker = world.worker().await;
    until("the worker shows its figures", Duration::from_secs(10), || async {
        let page = worker.metrics.render();
        page.contains("roomcast_gpt_jobs{") && page.contains("roomcast_archive_lag_seconds")
    })
    .await;
    let (_, of_worker) = get(worker.ops_address, "/metrics").await;
    let (_, of_node) = get(world.nodes[0].ops_address, "/metrics").await;
    assert_eq!(value(&of_node, "roomcast_ready"), Some(1.0));
    for page in [of_worker, of_node] {
        let mut promtool = tokio::process::Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool: `.ci/packages` installs it");
        promtool.stdin.take().unwrap().write_all(page.as_bytes()).await.unwrap();
        let done = promtool.wait_with_output().await.unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && said.is_empty(), "{said}");
        assert!(page.len() < 200_000, "{} bytes on every scrape", page.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_tell_a_start_a_service_that_is_away_and_what_it_means() {
    let world = World::start(1).await;
    let address = world.nodes[0].ops_address;
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(
        get(address, "/startupz").await,
        (200, json!({"started": true}).to_string())
    );
    world.services.fail("/api", crate::support::Switchable::Status(503));
    let client = world.connect(0, 0).await;
    for _ in 0..4 {
        let _refused = client.emit_ack("join", &json!({"roomID": "room-0"})).await;
    }
    until("the service is said to be away", Duration::from_secs(20), || async {
        let (status, body) = get(address, "/readyz").await;
        // The chat goes on without it, and every node is in the same place.
        status == 200 && body.contains("\"warnings\":[\"api_service: ")
    })
    .await;
    world.services.heal();
    let _joined = join(&client, "room-0").await;
    until("it is there again", Duration::from_secs(20), || async {
        !get(address, "/readyz").await.1.contains("warnings")
    })
    .await;
}
