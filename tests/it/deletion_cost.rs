//! A node tells Kubernetes how many sockets would go with its pod.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{World, until};

type Seen = Arc<Mutex<Vec<(String, String, String, Value)>>>;

/// What an API server would be asked for: method, path, authorization and content type, body.
async fn api_server(status: StatusCode) -> (String, Seen) {
    async fn note(State((seen, status)): State<(Seen, StatusCode)>, request: Request) -> StatusCode {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 65_536).await.unwrap();
        let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
        let asked = format!("{} {}", parts.method, parts.uri.path());
        seen.lock().unwrap().push((
            asked,
            header("authorization"),
            header("content-type"),
            serde_json::from_slice(&body).unwrap(),
        ));
        status
    }
    let seen = Seen::default();
    let router = Router::new().fallback(note).with_state((seen.clone(), status));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, seen)
}

/// A world whose node is the pod `chat/node-1`, with 15 sockets.
async fn world(url: &str, account: &tempfile::TempDir) -> (World, Vec<roomcast_load::client::Client>) {
    std::fs::write(account.path().join("token"), "first\n").unwrap();
    let settings = [
        ("ROOMCAST_POD", "chat/node-1"),
        ("ROOMCAST_KUBERNETES_URL", url),
        ("ROOMCAST_SERVICE_ACCOUNT", account.path().to_str().unwrap()),
    ];
    let world = World::with(1, &settings).await;
    let clients = join_all((0..15).map(|user| world.connect(0, user))).await;
    (world, clients)
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_cost_of_the_pod_is_its_number_of_sockets() {
    let (account, (url, seen)) = (tempfile::tempdir().unwrap(), api_server(StatusCode::OK).await);
    let (_world, _clients) = world(&url, &account).await;
    until("it is written", Duration::from_secs(25), || async {
        !seen.lock().unwrap().is_empty()
    })
    .await;
    let seen = seen.lock().unwrap();
    let patch = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "15"}}});
    let expected = (
        "PATCH /api/v1/namespaces/chat/pods/node-1".to_owned(),
        "Bearer first".to_owned(),
        "application/merge-patch+json".to_owned(),
        patch,
    );
    assert_eq!(*seen, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn node_that_may_not_write_its_cost_serves_all_the_same() {
    let (account, (url, seen)) = (tempfile::tempdir().unwrap(), api_server(StatusCode::FORBIDDEN).await);
    let (world, _clients) = world(&url, &account).await;
    until("it was refused", Duration::from_secs(25), || async {
        !seen.lock().unwrap().is_empty()
    })
    .await;
    world.joined(0, 20, "room-0").await;
    assert!(world.nodes[0].health.is_ready());
    assert_eq!(seen.lock().unwrap().len(), 1, "and does not insist");
}
