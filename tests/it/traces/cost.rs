//! What scraping and tracing cost: CPU per delivery of two nodes, one watched and one not, that take turns under the same load.
//!
//! Turns are short and alternate, so what else happens on the machine hits both alike; processes differ by some percent by
//! where their memory lies, so several pairs are started.

use std::time::Duration;

use futures::StreamExt as _;
use roomcast_load::client::Client;
use serde_json::json;

use super::Process;
use super::collector::Collector;
use crate::support::{World, join, until};

/// Sockets of each of the ten users of a room.
const SOCKETS: usize = 10;
/// Messages of each of them in a turn: a turn takes a few hundred milliseconds.
const MESSAGES: usize = 40;
/// Turns of each node of a pair, and as many before that are not counted.
const TURNS: usize = 30;
const WARM_UP: usize = 5;
/// Pairs of processes.
const PAIRS: usize = 3;
/// How often the watched node is scraped; the chart does it every 15 s.
const SCRAPE: Duration = Duration::from_secs(1);
/// How long a turn's deliveries may take.
const TURN_MAX: Duration = Duration::from_secs(60);

/// A node with a room full of sockets.
struct Side {
    node: Process,
    room: String,
    clients: Vec<Client>,
}

impl Side {
    async fn start(world: &World, room: usize, settings: &[(&'static str, &str)]) -> Self {
        let node = Process::start(world, "node", settings).await;
        let name = format!("room-{room}");
        let mut clients = Vec::new();
        for socket in 0..SOCKETS * 10 {
            let user = socket % 10 * 4 + room;
            let client = world.client_at(&node.address, user).connect().await.unwrap();
            join(&client, &name).await;
            clients.push(client);
        }
        Self {
            node,
            room: name,
            clients,
        }
    }

    /// CPU of the node so far, ns: exact, where that of `stat` is in ticks.
    fn cpu(&self) -> u64 {
        let pid = self.node.child.id().unwrap();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        // One that has just ended has no file any more.
        let spent = threads.filter_map(|thread| {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        spent.sum()
    }

    /// CPU of the node for one turn, ns a delivery.
    async fn turn(&self) -> f64 {
        let delivered = || self.node.metric("roomcast_deliveries_total");
        let expected = (MESSAGES * 10 * self.clients.len()) as f64;
        let (before, spent) = (delivered().await, self.cpu());
        futures::stream::iter(&self.clients[..10])
            .for_each_concurrent(None, |client| async move {
                for n in 0..MESSAGES {
                    let message = json!({"roomID": self.room, "message": format!("message number {n}")});
                    let ack = client.emit_ack("message", &message).await.unwrap();
                    assert_eq!(ack[0]["ok"], true, "{ack:?}");
                }
            })
            .await;
        let spent_now = self.cpu();
        // Asking for it is no part of the turn.
        until("all is delivered", TURN_MAX, || async {
            delivered().await - before >= expected
        })
        .await;
        (spent_now - spent) as f64 / expected
    }
}

/// CPU of a node without and with both, ns a delivery.
async fn pair(swapped: bool) -> (f64, f64) {
    let world = World::start(0).await;
    let collector = Collector::over_http().await;
    let plain = [
        ("ROOMCAST_LOG", "info"),
        ("GUARD_MESSAGES_PER_USER", "1000/s burst 5000"),
    ];
    let traced = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
    ];
    let watched = [plain.as_slice(), traced.as_slice()].concat();
    let (without, with) = if swapped {
        let with = Side::start(&world, 0, &watched).await;
        (Side::start(&world, 1, &plain).await, with)
    } else {
        let without = Side::start(&world, 0, &plain).await;
        (without, Side::start(&world, 1, &watched).await)
    };
    let page = format!("{}/metrics", with.node.ops);
    let scraper = tokio::spawn(async move {
        let mut scrapes = tokio::time::interval(SCRAPE);
        loop {
            scrapes.tick().await;
            let _page = reqwest::get(&page).await.unwrap().bytes().await;
        }
    });
    let mut sums = (0.0, 0.0);
    for turn in 0..WARM_UP + TURNS {
        let (one, other) = if turn % 2 == 0 {
            let one = without.turn().await;
            (one, with.turn().await)
        } else {
            let other = with.turn().await;
            (without.turn().await, other)
        };
        if turn >= WARM_UP {
            sums = (sums.0 + one, sums.1 + other);
        }
    }
    scraper.abort();
    (sums.0 / TURNS as f64, sums.1 / TURNS as f64)
}

/// Run with the optimised program: `make telemetry-cost`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures; takes minutes"]
async fn scraping_and_one_percent_of_traces_cost_little() {
    let (mut ratios, mut sums) = (Vec::new(), (0.0, 0.0));
    for number in 0..PAIRS {
        let (without, with) = pair(number % 2 == 1).await;
        println!(
            "without {without:.0} ns, with {with:.0} ns a delivery: {:.3}",
            with / without
        );
        ratios.push(with / without);
        sums = (sums.0 + without, sums.1 + with);
    }
    let ratio = sums.1 / sums.0;
    println!("all together {ratio:.3}");
    assert!(ratio <= 1.03, "{ratios:?}");
}
