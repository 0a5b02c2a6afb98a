//! The service token, CORS, limits, bad configuration, and several servers side by side.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Database, Server, config};
use crate::backend::{Backend, BackendConfig, BackendError};

#[tokio::test]
async fn services_want_the_token_and_browsers_do_not() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.service_token = Some("s3rvice".to_owned());
    let server = Server::start(config).await;
    assert_eq!(server.get("/api/messages/get-messages/room-0").await.0, 200);
    let login = server.login("user1").await;
    let http = reqwest::Client::new();
    for path in [
        "/api/rooms/check-room",
        "/api/messages/save-messages",
        "/verify-access-token",
        "/refresh-token",
    ] {
        for token in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("s3rvice"),
            Some("Basic s3rvice"),
        ] {
            let mut request = http.post(format!("{}{path}", server.url)).json(&json!({}));
            if let Some(token) = token {
                request = request.header("authorization", token);
            }
            let response = request.send().await.unwrap();
            assert_eq!(
                response.status(),
                503,
                "{path} {token:?}: must look like an outage, not like a refused user"
            );
            assert_eq!(response.json::<Value>().await.unwrap()["error"], "service_token");
        }
    }
    let get = http
        .get(format!("{}/api/messages/get-message/room-0/a", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), 503);
    for (path, body) in [
        ("/login", json!({ "username": "user2" })),
        ("/logout", json!({ "refreshToken": login["refreshToken"] })),
    ] {
        assert_eq!(
            http.post(format!("{}{path}", server.url))
                .json(&body)
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    assert_eq!(
        http.get(format!("{}/healthz", server.url))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn only_login_and_logout_answer_other_origins() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.cors_origins = vec!["https://chat.example".to_owned()];
    let server = Server::start(config).await;
    let http = reqwest::Client::new();
    let preflight = async |path: &str, origin: &str| {
        let response = http
            .request(reqwest::Method::OPTIONS, format!("{}{path}", server.url))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
            .send()
            .await
            .unwrap();
        response
            .headers()
            .get("access-control-allow-origin")
            .map(|value| value.to_str().unwrap().to_owned())
    };
    for path in ["/login", "/logout"] {
        assert_eq!(
            preflight(path, "https://chat.example").await.as_deref(),
            Some("https://chat.example")
        );
        assert_eq!(preflight(path, "https://evil.example").await, None);
    }
    for path in ["/refresh-token", "/verify-access-token", "/api/rooms/check-room"] {
        assert_eq!(preflight(path, "https://chat.example").await, None);
    }
}

#[tokio::test]
async fn bad_bodies_and_paths_get_json_answers() {
    let (server, _database) = Server::seeded().await;
    for path in [
        "/login",
        "/api/rooms/check-room",
        "/api/messages/save-messages",
        "/api/messages/sync-rooms",
    ] {
        for body in ["", "{", "null", "[]", "\"x\"", "{}}", "{\"a\":1e999}"] {
            let (status, answer) = server.post_text(path, body).await;
            assert_eq!(
                (status, answer["error"].as_str()),
                (400, Some("bad_request")),
                "{path} {body}: {answer}"
            );
        }
        assert_eq!(server.post_text(path, vec![b'{', 0xff, b'}']).await.0, 400);
        let deep = format!("{{\"username\":{}", "[".repeat(100_000));
        assert_eq!(server.post_text(path, deep).await.0, 400);
        let limit = if path.ends_with("save-messages") { 8 } else { 1 };
        let (status, answer) = server.post_text(path, vec![b' '; limit * 1024 * 1024 + 1]).await;
        assert_eq!((status, answer["error"].as_str()), (413, Some("too_large")), "{path}");
    }
    let (status, answer) = server.get("/nowhere").await;
    assert_eq!((status, answer["error"].as_str()), (404, Some("not_found")));
    let (status, answer) = server.get("/login").await;
    assert_eq!((status, answer["error"].as_str()), (405, Some("method_not_allowed")));
}

#[tokio::test]
async fn slow_requests_end_with_a_timeout() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.request_timeout = std::time::Duration::from_millis(50);
    let server = Server::start(config).await;
    let mut stream = tokio::net::TcpStream::connect(server.url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = b"POST /login HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("timeout"),
        "{answer}"
    );
}

#[tokio::test]
async fn two_backends_in_one_process_share_nothing() {
    let ((one, _first), (two, _second)) = tokio::join!(Server::seeded(), Server::seeded());
    let login = one.login("Kim").await;
    let body = json!({ "platformid": "p-kim", "username": "Kim" });
    assert_eq!(one.post("/api/rooms/user-rooms", body.clone()).await.0, 200);
    assert_eq!(two.post("/api/rooms/user-rooms", body).await.0, 403);
    two.refused(
        "/refresh-token",
        json!({ "refreshToken": login["refreshToken"] }),
        401,
        "invalid_token",
    )
    .await;
    one.stop().await;
    assert_eq!(two.get("/healthz").await, (200, json!({ "status": "ok" })));
    two.stop().await;
}

#[tokio::test]
async fn a_bad_configuration_is_named() {
    let database = Database::new().await;
    let good = config(&database);
    for (config, setting) in [
        (
            BackendConfig {
                jwt_secret: String::new(),
                ..good.clone()
            },
            "jwt_secret",
        ),
        (
            BackendConfig {
                service_token: Some(" ".to_owned()),
                ..good.clone()
            },
            "service_token",
        ),
        (
            BackendConfig {
                cors_origins: vec!["a\nb".to_owned()],
                ..good.clone()
            },
            "cors_origins",
        ),
        (
            BackendConfig {
                database_url: "mysql://x".to_owned(),
                ..good.clone()
            },
            "database",
        ),
        (
            BackendConfig {
                seed_users: u32::MAX,
                ..good.clone()
            },
            "seed",
        ),
    ] {
        match Backend::open(config).await {
            Err(BackendError::Config { setting: named, .. }) => assert_eq!(named, setting),
            other => panic!("{setting}: {:?}", other.err()),
        }
    }
}

#[tokio::test]
async fn a_database_in_memory_works() {
    let database = Database::new().await;
    let server = Server::start(BackendConfig {
        database_url: "sqlite::memory:".to_owned(),
        ..config(&database)
    })
    .await;
    server.login("user1").await;
    assert_eq!(server.get("/healthz").await.0, 200);
    server.stop().await;
}

#[tokio::test]
async fn the_openapi_document_names_paths_that_exist() {
    let (server, _database) = Server::seeded().await;
    let (status, document) = server.get("/openapi.json").await;
    assert_eq!(status, 200);
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 14);
    for (path, methods) in paths {
        let url = path.replace("{roomId}", "room-0").replace("{id}", "unknown");
        let (status, answer) = match methods.as_object().unwrap().keys().next().map(String::as_str) {
            Some("get") => server.get(&url).await,
            _ => server.post(&url, json!({})).await,
        };
        let nowhere = status == 405 || answer["message"] == "path not found";
        assert!(!nowhere && (200..500).contains(&status), "{path}: {answer}");
    }
    for reference in document.to_string().split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
}
