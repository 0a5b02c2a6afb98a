//! What scraping and tracing cost: CPU of a node per delivery, with and without, in alternating runs.

use std::time::Duration;

use futures::StreamExt as _;
use serde_json::json;

use super::Process;
use super::collector::Collector;
use crate::support::{World, join, until};

/// Sockets of each of the ten users of room-0.
const SOCKETS: usize = 10;
/// Messages of each of them.
const MESSAGES: usize = 400;
/// Pairs of runs; the order within a pair alternates.
const PAIRS: usize = 5;

/// CPU seconds of a process so far.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = [11, 12]
        .map(|field: usize| fields[field].parse::<f64>().unwrap())
        .iter()
        .sum();
    ticks / 100.0
}

/// CPU of a node per delivery, µs.
async fn run(watched: bool) -> f64 {
    let world = World::start(0).await;
    let collector = Collector::over_http().await;
    let mut settings = vec![
        ("ROOMCAST_LOG", "info"),
        ("GUARD_MESSAGES_PER_USER", "1000/s burst 5000"),
    ];
    if watched {
        settings.push(("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url));
        settings.push(("OTEL_TRACES_SAMPLER", "traceidratio"));
        settings.push(("OTEL_TRACES_SAMPLER_ARG", "0.01"));
    }
    let node = Process::start(&world, "node", &settings).await;
    let mut clients = Vec::new();
    for socket in 0..SOCKETS * 10 {
        let client = world.client_at(&node.address, socket % 10 * 4).connect().await.unwrap();
        join(&client, "room-0").await;
        clients.push(client);
    }
    let delivered = node.metric("roomcast_deliveries_total").await;
    let page = format!("{}/metrics", node.ops);
    let scraper = watched.then(|| {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _page = reqwest::get(&page).await.unwrap().bytes().await;
            }
        })
    });
    let pid = node.child.id().unwrap();
    let before = cpu_seconds(pid);
    futures::stream::iter(&clients[..10])
        .for_each_concurrent(None, |client| async move {
            for n in 0..MESSAGES {
                let message = json!({"roomID": "room-0", "message": format!("message number {n}")});
                let ack = client.emit_ack("message", &message).await.unwrap();
                assert_eq!(ack[0]["ok"], true, "{ack:?}");
            }
        })
        .await;
    let expected = (MESSAGES * 10 * clients.len()) as f64;
    until("all is delivered", Duration::from_secs(60), || async {
        node.metric("roomcast_deliveries_total").await - delivered >= expected
    })
    .await;
    let used = cpu_seconds(pid) - before;
    if let Some(scraper) = scraper {
        scraper.abort();
    }
    used / expected * 1e6
}

/// Run with the optimised program: `make telemetry-cost`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes minutes and a quiet machine"]
async fn scraping_and_one_percent_of_traces_cost_little() {
    let (mut ratios, mut sums) = (Vec::new(), (0.0, 0.0));
    for pair in 0..PAIRS {
        let (without, with) = if pair % 2 == 0 {
            let without = run(false).await;
            (without, run(true).await)
        } else {
            let with = run(true).await;
            (run(false).await, with)
        };
        println!(
            "without {without:.2} µs, with {with:.2} µs a delivery: {:.3}",
            with / without
        );
        ratios.push(with / without);
        sums = (sums.0 + without, sums.1 + with);
    }
    ratios.sort_by(f64::total_cmp);
    let median = ratios[PAIRS / 2];
    println!("median {median:.3}, of the sums {:.3}", sums.1 / sums.0);
    assert!(median <= 1.03, "{ratios:?}");
}
