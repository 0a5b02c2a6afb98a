//! Starts a server for a test and speaks JSON to it.

use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::backend::{Backend, BackendConfig};

/// Set to the URL of a PostgreSQL server (with the right to create databases) to run these tests on it.
const POSTGRES: &str = "ROOMCAST_TEST_POSTGRES";

/// A database that goes away with the test.
pub struct Database {
    pub url: String,
    _folder: tempfile::TempDir,
}

impl Database {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match std::env::var(POSTGRES) {
            Ok(server) => {
                let name = format!("test_{:032x}", rand::random::<u128>());
                let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
                admin
                    .execute(AssertSqlSafe(format!("CREATE DATABASE {name}")))
                    .await
                    .unwrap();
                format!("{server}/{name}")
            }
            Err(_) => format!("sqlite://{}/test.db", folder.path().display()),
        };
        Self { url, _folder: folder }
    }
}

/// A running server; stopped when dropped, in order with [`Server::stop`].
pub struct Server {
    pub url: String,
    pub backend: Backend,
    token: Option<String>,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

pub fn config(database: &Database) -> BackendConfig {
    BackendConfig {
        database_url: database.url.clone(),
        jwt_secret: "a secret for tests, 32 bytes long".to_owned(),
        open_login: true,
        seed_users: 10,
        seed_rooms: 3,
        ..BackendConfig::default()
    }
}

impl Server {
    pub async fn start(config: BackendConfig) -> Self {
        let token = config.service_token.clone();
        let backend = Backend::open(config).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = backend.clone().serve(listener, async move {
            let _dropped = stopped.await;
        });
        let task = tokio::spawn(async move { serving.await.unwrap() });
        Self {
            url,
            backend,
            token,
            http: reqwest::Client::new(),
            stop,
            task,
        }
    }

    /// With ten users in three rooms and open login.
    pub async fn seeded() -> (Self, Database) {
        let database = Database::new().await;
        (Self::start(config(&database)).await, database)
    }

    pub async fn stop(self) {
        drop(self.http);
        self.stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .unwrap()
            .unwrap();
    }

    pub async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let request = match &self.token {
            Some(token) => request.header(AUTHORIZATION, format!("Bearer {token}")),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(self.http.post(format!("{}{path}", self.url)).json(&body))
            .await
    }

    pub async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        self.send(self.http.post(format!("{}{path}", self.url)).body(body))
            .await
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// Posts and expects 200.
    pub async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Posts and expects a refusal with this status and code; the field it names.
    pub async fn refused(&self, path: &str, body: Value, status: u16, code: &str) -> Option<String> {
        let (got, answer) = self.post(path, body).await;
        assert_eq!(
            (got, answer["error"].as_str()),
            (status, Some(code)),
            "{path}: {answer}"
        );
        assert!(
            answer["message"].as_str().is_some_and(|message| !message.is_empty()),
            "{answer}"
        );
        answer["field"].as_str().map(str::to_owned)
    }

    pub async fn login(&self, username: &str) -> Value {
        self.ok("/login", json!({ "username": username })).await
    }

    pub async fn save(&self, events: &[Value]) -> Value {
        self.ok("/api/messages/save-messages", json!({ "events": events }))
            .await
    }

    /// Reads a page and expects 200.
    pub async fn page(&self, room: &str, query: &str) -> Vec<Value> {
        let (status, page) = self.get(&format!("/api/messages/get-messages/{room}?{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        page.as_array().unwrap().clone()
    }

    /// The ids of a page.
    pub async fn ids(&self, room: &str, query: &str) -> Vec<String> {
        ids(&self.page(room, query).await)
    }
}

pub fn ids(messages: &[Value]) -> Vec<String> {
    messages
        .iter()
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect()
}

/// An event of epoch `e1` in `room-0`.
pub fn event(kind: &str, id: &str, ts: i64, seq: i64, text: &str) -> Value {
    json!({
        "id": id, "roomID": "room-0", "platformid": "p0", "username": "user0", "message": text,
        "timestamp": ts, "ts": ts, "seq": seq, "epoch": "e1", "kind": kind, "color": "blue",
    })
}
