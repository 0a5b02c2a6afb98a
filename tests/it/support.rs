//! What every test stands on: its own Redis, the reference services and some nodes.

pub mod proxies;
mod redis;
mod services;

use std::time::Duration;

use roomcast::auth::issue_token;
use roomcast::config::{Config, Source};
use roomcast::model::{Identity, UserId};
use roomcast::node::Node;
use roomcast::worker::Worker;
use roomcast_load::client::{Builder, Client};
use serde_json::{Value, json};

pub use redis::{TestRedis, Topology};
pub use services::{Services, Switchable};

/// Signs the tokens of every test.
pub const SECRET: &str = "integration-test-secret-of-32-bytes!";
/// What clients must call themselves.
pub const USER_AGENT: &str = "Mozilla/5.0 VisionApp/1.0";

/// A little deployment; everything ends with it.
pub struct World {
    pub redis: TestRedis,
    pub services: Services,
    pub nodes: Vec<Node>,
    settings: Vec<(&'static str, String)>,
}

impl World {
    /// Starts `nodes` nodes with users user0..user39 in room-0..room-3 (user i in room-(i mod 4)).
    pub async fn start(nodes: usize) -> Self {
        Self::with(nodes, &[]).await
    }

    /// As [`Self::start`], with settings over the defaults.
    pub async fn with(nodes: usize, settings: &[(&'static str, &str)]) -> Self {
        Self::on(TestRedis::start().await, nodes, settings).await
    }

    /// As [`Self::with`], on a Redis that is there.
    pub async fn on(redis: TestRedis, nodes: usize, settings: &[(&'static str, &str)]) -> Self {
        if let Ok(filter) = std::env::var("TEST_LOG") {
            let _second = roomcast::telemetry::logging::init_with(&filter, roomcast::config::LogFormat::Text);
        }
        let services = Services::start().await;
        let mut world = Self {
            redis,
            services,
            nodes: Vec::new(),
            settings: settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        };
        for _ in 0..nodes {
            world.add_node().await;
        }
        world
    }

    /// The settings of a node or worker of this world.
    pub fn config(&self) -> Config {
        let source = Source::from_pairs([
            ("JWT_SECRET", SECRET.to_owned()),
            ("AUTH_URL", self.services.url()),
            ("API_URL", self.services.url()),
            ("VISION_APP_INFO", "VisionApp".to_owned()),
            ("ROOMCAST_LISTEN", "127.0.0.1:0".to_owned()),
            ("ROOMCAST_OPS_LISTEN", "127.0.0.1:0".to_owned()),
            ("ROOMCAST_DRAIN_SPREAD", "0s".to_owned()),
            ("ROOMCAST_ADMIN_TOKEN", "admin".to_owned()),
        ]);
        let source = source.with(self.redis.settings());
        Config::read(&source.with(self.settings.clone())).unwrap()
    }

    /// Adds a node and waits until it serves.
    pub async fn add_node(&mut self) -> usize {
        let node = Node::start(self.config()).await.unwrap();
        within("the node is ready", async { node.ready().await.unwrap() }).await;
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Starts a worker.
    pub async fn worker(&self) -> Worker {
        Worker::start(self.config()).await.unwrap()
    }

    /// The address of a node, for clients.
    pub fn url(&self, node: usize) -> String {
        format!("http://{}", self.nodes[node].address)
    }

    /// A client of a user, not yet connected.
    pub fn client(&self, node: usize, user: usize) -> Builder {
        self.client_at(&self.url(node), user)
    }

    /// As [`Self::client`], by way of a proxy.
    pub fn client_at(&self, url: &str, user: usize) -> Builder {
        Client::builder(url).auth(auth(user)).timeout(Duration::from_secs(10))
    }

    /// A connected client of a user.
    pub async fn connect(&self, node: usize, user: usize) -> Client {
        self.client(node, user).connect().await.unwrap()
    }

    /// A connected client that has joined its room, with what it got.
    pub async fn joined(&self, node: usize, user: usize, room: &str) -> (Client, Vec<Value>) {
        let client = self.connect(node, user).await;
        let previous = join(&client, room).await;
        (client, previous)
    }

    /// A counter of a node, from its metrics page.
    pub fn metric(&self, node: usize, name: &str) -> f64 {
        let page = self.nodes[node].metrics.render();
        page.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// A world on one server, whatever `TEST_REDIS` says: for tests that are about this server.
pub async fn standalone(nodes: usize, settings: &[(&'static str, &str)]) -> World {
    World::on(TestRedis::start_as(Topology::Standalone).await, nodes, settings).await
}

/// A token of a user.
pub fn token(user: usize, ttl: Duration) -> String {
    let identity = Identity {
        user: UserId::new(&format!("p{user}")).unwrap(),
        username: format!("user{user}"),
        session: None,
        issued_at: None,
        expires_at: None,
    };
    issue_token(SECRET, &identity, ttl).unwrap()
}

/// A complete handshake of a user.
pub fn auth(user: usize) -> Value {
    json!({
        "accessToken": token(user, Duration::from_secs(3600)),
        "refreshToken": "none",
        "userAgent": USER_AGENT,
        "username": format!("user{user}"),
    })
}

/// Joins a room and returns the previous messages.
pub async fn join(client: &Client, room: &str) -> Vec<Value> {
    let ack = client.emit_ack("join", &json!({"roomID": room})).await.unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    let previous = client.expect("previousMessages").await.unwrap();
    previous[0].as_array().unwrap().clone()
}

/// Sends a message and returns its ack, which must be good.
pub async fn send(client: &Client, room: &str, text: &str) -> Value {
    let ack = client
        .emit_ack("message", &json!({"roomID": room, "message": text}))
        .await
        .unwrap();
    assert_eq!(ack[0]["ok"], true, "{ack:?}");
    ack[0].clone()
}

/// Awaits something that must happen soon.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("not within 20 s: {what}"),
    }
}

/// Waits until a condition holds.
pub async fn until<F: Future<Output = bool>>(what: &str, limit: Duration, mut condition: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + limit;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
