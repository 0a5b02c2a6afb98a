//! The listener for operators: liveness, readiness, metrics.

mod admin;
mod health;
mod watch;

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::telemetry::Metrics;

pub use admin::Admin;
pub use health::Health;
pub use watch::watch;

/// How long answers may still take once the listener stops: a scraper that hangs must not hold up the exit.
const STOP_GRACE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Ops {
    health: Health,
    metrics: Arc<Metrics>,
}

/// `/livez`, `/startupz`, `/readyz`, `/metrics`, and `/admin` where it is set up; everything else is not there.
pub fn router(health: Health, metrics: Arc<Metrics>, admin: Option<Admin>) -> Router {
    let admin = admin.map(Admin::router).unwrap_or_default();
    Router::new()
        .route("/livez", get(livez))
        .route("/startupz", get(startupz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Ops { health, metrics })
        .merge(admin)
}

/// Answers on `listener` until `shutdown` resolves, and a little longer for requests under way.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Arc<Metrics>,
    admin: Option<Admin>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, router(health, metrics, admin)).with_graceful_shutdown(async move {
        shutdown.await;
        // The receiver is gone only when this future is.
        let _ = stopping.send(());
    });
    let grace = async {
        // An error means that the server ended by itself, which the other branch reports.
        let _ = stopped.await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        result = server.into_future() => result,
        () = grace => Ok(()),
    }
}

async fn livez() -> Json<serde_json::Value> {
    Json(json!({"alive": true}))
}

/// Whether the start is over: until then nobody should judge whether the process lives.
async fn startupz(State(ops): State<Ops>) -> Response {
    let started = ops.health.is_started();
    let status = if started {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(json!({"started": started}))).into_response()
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let reasons = ops.health.reasons();
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    let warnings = ops.health.warnings();
    if !warnings.is_empty() {
        body["warnings"] = warnings.into();
    }
    (status, Json(body)).into_response()
}

async fn render_metrics(State(ops): State<Ops>) -> Response {
    let format = [(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    ops.health.show(&ops.metrics);
    (format, ops.metrics.render()).into_response()
}

async fn not_found() -> Response {
    let body = json!({"code": "not_found", "message": "no such page on this listener"});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn method_not_allowed() -> Response {
    let body = json!({"code": "bad_payload", "message": "this method is not answered here"});
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Served {
        url: String,
        stop: tokio::sync::oneshot::Sender<()>,
        server: tokio::task::JoinHandle<std::io::Result<()>>,
    }

    async fn start(health: &Health, metrics: &Arc<Metrics>) -> Served {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let server = serve(listener, health.clone(), metrics.clone(), None, async {
            let _ = stopped.await;
        });
        Served {
            url,
            stop,
            server: tokio::spawn(server),
        }
    }

    async fn fetch(url: &str) -> (u16, String) {
        let rest = url.strip_prefix("http://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer)
            .await
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn readiness_tells_why_not() {
        let health = Health::new(&["redis"]);
        let metrics = Arc::new(Metrics::new().unwrap());
        let served = start(&health, &metrics).await;
        let readyz = || async { fetch(&format!("{}/readyz", served.url)).await };
        assert_eq!(
            readyz().await,
            (
                503,
                r#"{"ready":false,"reasons":["redis: not checked yet"]}"#.to_owned()
            )
        );
        health.set("redis", Ok(()));
        assert_eq!(readyz().await, (200, r#"{"ready":true,"reasons":[]}"#.to_owned()));
        health.warn("api_service", Err("away"));
        let expected = r#"{"ready":true,"reasons":[],"warnings":["api_service: away"]}"#;
        assert_eq!(readyz().await, (200, expected.to_owned()));
        health.warn("api_service", Ok(()));
        health.set("bus", Err("no canary for 5 s"));
        health.set_draining();
        let expected = r#"{"ready":false,"reasons":["draining","bus: no canary for 5 s"]}"#;
        assert_eq!(readyz().await, (503, expected.to_owned()));
        assert_eq!(fetch(&format!("{}/livez", served.url)).await.0, 200);
        assert_eq!(fetch(&format!("{}/startupz", served.url)).await.0, 503);
        health.set_started();
        assert_eq!(fetch(&format!("{}/startupz", served.url)).await.0, 200);
    }

    #[tokio::test]
    async fn metrics_are_served_and_all_else_is_not_found() {
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.connections.set(3);
        let served = start(&Health::new(&[]), &metrics).await;
        let (status, body) = fetch(&format!("{}/metrics", served.url)).await;
        assert_eq!(status, 200);
        assert!(body.contains("roomcast_connections 3"), "{body}");
        for path in ["", "admin", "admin/revoke", "metrics/", "x?y"] {
            let (status, body) = fetch(&format!("{}/{path}", served.url)).await;
            assert_eq!(status, 404, "{path}");
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(&body).unwrap()["code"],
                "not_found"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_does_not_hold_up_the_stop() {
        let served = start(&Health::new(&[]), &Arc::new(Metrics::new().unwrap())).await;
        let host = served.url.strip_prefix("http://").unwrap();
        let mut hanging = tokio::net::TcpStream::connect(host).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut hanging, b"GET /livez HTTP/1.1\r\nho")
            .await
            .unwrap();
        served.stop.send(()).unwrap();
        let stopped = tokio::time::timeout(STOP_GRACE + Duration::from_secs(3), served.server).await;
        stopped.expect("it never stopped").unwrap().unwrap();
    }
}
