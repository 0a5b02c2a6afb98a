//! The calls against a real HTTP service, in order and out of order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::testing::{Scripted, config, serve};
use super::*;
use crate::model::{Identity, RoomId, UserId};

fn upstream(url: &str) -> Upstream {
    let pairs = [
        ("AUTH_URL", url),
        ("API_URL", url),
        ("UPSTREAM_TOKEN", "service-token"),
        ("UPSTREAM_TIMEOUT", "500ms"),
    ];
    Upstream::new(&config(&pairs)).unwrap()
}

fn room(id: &str) -> RoomId {
    RoomId::new(id).unwrap()
}

fn anna() -> Identity {
    Identity {
        user: UserId::new("p1").unwrap(),
        username: "Anna".to_owned(),
        session: None,
        issued_at: None,
        expires_at: None,
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> (u16, &'static str) {
    match result {
        Err(UpstreamError::Refused { status, reason }) => (status, reason),
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn unavailable<T: std::fmt::Debug>(result: Result<T, UpstreamError>) -> String {
    match result {
        Err(error @ UpstreamError::Unavailable(_)) => {
            assert!(error.retryable() && error.code() == "unavailable");
            error.to_string()
        }
        other => panic!("not unavailable: {other:?}"),
    }
}

#[tokio::test]
async fn a_valid_token_names_its_user() {
    let service = Scripted::start(
        200,
        json!({"valid": true, "user": {"platformid": 17, "username": "Anna", "role": "x"}, "exp": 1_900_000_000}),
    )
    .await;
    let user = upstream(&service.url).verify_access_token("tok").await.unwrap();
    assert_eq!((user.user.as_str(), user.username.as_str()), ("17", "Anna"));
    assert_eq!((user.session, user.expires_at), (None, Some(1_900_000_000_000)));
    let asked = service.last();
    assert_eq!(asked.line, "POST /verify-access-token");
    assert_eq!(asked.body, r#"{"token":"tok"}"#);
    assert_eq!(asked.bearer.as_deref(), Some("Bearer service-token"));
}

#[tokio::test]
async fn tokens_that_are_not_valid_are_refused_and_all_else_is_an_outage() {
    let service = Scripted::start(401, "{}").await;
    let upstream = upstream(&service.url);
    assert_eq!(refused(upstream.verify_access_token("t").await), (401, "expired"));
    for status in [400, 403] {
        service.answer(status, "no json at all");
        assert_eq!(refused(upstream.verify_access_token("t").await), (status, "invalid"));
    }
    service.answer(200, json!({"valid": false}));
    assert_eq!(refused(upstream.verify_access_token("t").await), (200, "invalid"));
    for (status, body) in [
        (200, json!({"valid": true})),
        (
            200,
            json!({"valid": "yes", "user": {"platformid": "p", "username": "u"}}),
        ),
        (
            200,
            json!({"valid": true, "user": {"platformid": "p{1}", "username": "u"}}),
        ),
        (200, json!({"valid": true, "user": {"platformid": "p", "username": ""}})),
        (200, json!({"user": {"platformid": "p", "username": "u"}})),
        (200, json!([])),
        (404, json!({})),
        (429, json!({})),
        (302, json!({"valid": false})),
        (500, json!({"valid": false})),
        (503, json!({})),
    ] {
        service.answer(status, &body);
        let error = unavailable(upstream.verify_access_token("t").await);
        assert!(error.contains("verify_token"), "{error}");
    }
    assert!(
        service
            .asked()
            .iter()
            .all(|asked| asked.line.starts_with("POST /verify")),
        "a redirect was followed"
    );
}

#[tokio::test]
async fn a_refresh_token_is_rotated_only_when_asked() {
    let service = Scripted::start(
        200,
        json!({"accessToken": "new", "user": {"platformid": "p1", "username": "Anna"}, "refreshToken": "next"}),
    )
    .await;
    let upstream = upstream(&service.url);
    let pair = upstream.refresh_token("old", false).await.unwrap();
    assert_eq!(service.last().body, r#"{"refreshToken":"old"}"#);
    assert_eq!(
        (pair.access_token.as_str(), pair.refresh_token.as_deref()),
        ("new", Some("next"))
    );
    assert!(!format!("{pair:?}").contains("ne"), "{pair:?}");
    upstream.refresh_token("old", true).await.unwrap();
    assert_eq!(service.last().body, r#"{"refreshToken":"old","rotate":true}"#);

    for status in [400, 401, 403] {
        service.answer(status, "");
        assert_eq!(refused(upstream.refresh_token("old", false).await), (status, "refused"));
    }
    service.answer(
        200,
        json!({"accessToken": "", "user": {"platformid": "p1", "username": "Anna"}}),
    );
    unavailable(upstream.refresh_token("old", false).await);
    service.answer(404, "");
    unavailable(upstream.refresh_token("old", false).await);
}

#[tokio::test]
async fn a_room_check_carries_created_at_as_it_came() {
    let service = Scripted::start(
        200,
        json!({"exist": true, "participants": [{"nickname": "Anna", "platformid": "p1"}], "owner": 9}),
    )
    .await;
    let upstream = upstream(&service.url);
    let created_at = RawValue::from_string("1.50".to_owned()).unwrap();
    let info = upstream.check_room(&room("r/1"), Some(&created_at)).await.unwrap();
    assert!(info.includes(&anna()));
    assert_eq!(info.owner.as_deref(), Some("9"));
    assert_eq!(service.last().body, r#"{"roomID":"r/1","createdAt":1.50}"#);
    assert_eq!(service.last().line, "POST /api/rooms/check-room");

    service.answer(200, json!({"exist": false}));
    assert!(!upstream.check_room(&room("r"), None).await.unwrap().includes(&anna()));
    assert_eq!(service.last().body, r#"{"roomID":"r"}"#);
    service.answer(200, json!({"exist": true}));
    unavailable(upstream.check_room(&room("r"), None).await);
    service.answer(400, "");
    assert_eq!(refused(upstream.check_room(&room("r"), None).await), (400, "forged"));
    for status in [401, 403, 404, 500] {
        service.answer(status, "");
        unavailable(upstream.check_room(&room("r"), None).await);
    }
}

#[tokio::test]
async fn a_rooms_prompt_is_a_text_or_none() {
    let service = Scripted::start(
        200,
        json!({"exist": true, "participants": [], "gptPrompt": "In verse."}),
    )
    .await;
    let upstream = upstream(&service.url);
    assert_eq!(
        upstream.room_prompt(&room("r")).await.unwrap().as_deref(),
        Some("In verse.")
    );
    assert_eq!(service.last().line, "POST /api/rooms/check-room");
    assert_eq!(service.last().body, r#"{"roomID":"r"}"#);
    for answer in [
        json!({"exist": true, "participants": []}),
        json!({"exist": true, "gptPrompt": null}),
        json!({"exist": true, "gptPrompt": {"text": "In verse."}}),
        json!({"exist": false, "gptPrompt": "In verse."}),
    ] {
        service.answer(200, &answer);
        assert_eq!(upstream.room_prompt(&room("r")).await.unwrap(), None, "{answer}");
    }
}

#[tokio::test]
async fn room_lists_leave_out_what_cannot_be_a_room() {
    let service = Scripted::start(200, json!({"rooms": ["a", "b{c}", 7, ""]})).await;
    let upstream = upstream(&service.url);
    assert_eq!(upstream.user_rooms(&anna()).await.unwrap(), [room("a"), room("7")]);
    assert_eq!(service.last().body, r#"{"platformid":"p1","username":"Anna"}"#);
    service.answer(403, "");
    assert_eq!(refused(upstream.user_rooms(&anna()).await), (403, "refused"));
    service.answer(401, "");
    unavailable(upstream.user_rooms(&anna()).await);

    service.answer(200, json!({"deleted": true}));
    assert!(upstream.delete_room(&room("a"), &anna()).await.unwrap());
    assert_eq!(
        service.last().body,
        r#"{"roomID":"a","platformid":"p1","username":"Anna"}"#
    );
    assert_eq!(service.last().line, "POST /api/rooms/delete-room");
}

#[tokio::test]
async fn pages_of_messages_keep_their_json() {
    let service = Scripted::start(200, r#"[{"id":"5-1","n":1.10},{"id":"6-2"}]"#).await;
    let upstream = upstream(&service.url);
    let page = upstream.messages(&room("r/1"), &MessageQuery::default()).await.unwrap();
    assert_eq!(page[0].get(), r#"{"id":"5-1","n":1.10}"#);
    assert_eq!(service.last().line, "GET /api/messages/get-messages/r%2F1");
    let query = MessageQuery {
        timestamp: Some(5),
        oldmessage: Some("a&b=c"),
        newer: true,
        limit: Some(50),
    };
    upstream.messages(&room("r"), &query).await.unwrap();
    assert_eq!(
        service.last().line,
        "GET /api/messages/get-messages/r?timestamp=5&oldmessage=a%26b%3Dc&type=new&limit=50"
    );
    let asked = service.asked().len();
    assert_eq!(refused(upstream.messages(&room(".."), &query).await).0, 400);
    assert!(upstream.message(&room("r"), "..").await.unwrap().is_none());
    assert_eq!(service.asked().len(), asked, "an id led to another call");

    service.answer(200, r#"["text"]"#);
    unavailable(upstream.messages(&room("r"), &query).await);
    service.answer(404, "");
    unavailable(upstream.messages(&room("r"), &query).await);
    assert!(upstream.message(&room("r"), "5-1").await.unwrap().is_none());
    assert_eq!(service.last().line, "GET /api/messages/get-message/r/5-1");
    service.answer(200, r#"{"id":"5-1"}"#);
    assert_eq!(
        upstream.message(&room("r"), "5-1").await.unwrap().unwrap().get(),
        r#"{"id":"5-1"}"#
    );
}

#[tokio::test]
async fn a_sync_gives_only_rooms_that_were_asked_for_and_saving_counts() {
    let service = Scripted::start(
        200,
        json!([{"roomId": "a", "messages": [{"id": "1"}]}, {"roomId": "secret", "messages": []}]),
    )
    .await;
    let upstream = upstream(&service.url);
    let synced = upstream
        .sync_rooms("Anna", &[(room("a"), Some(3)), (room("b"), None)])
        .await
        .unwrap();
    assert_eq!(synced.len(), 1);
    assert_eq!((synced[0].0.as_str(), synced[0].1[0].get()), ("a", r#"{"id":"1"}"#));
    assert_eq!(
        service.last().body,
        r#"{"username":"Anna","rooms":[{"roomId":"a","timestamp":3},{"roomId":"b"}]}"#
    );

    service.answer(200, json!({"saved": 2}));
    let event = RawValue::from_string(r#"{"id":"1","n":1.0}"#.to_owned()).unwrap();
    assert_eq!(upstream.save_messages(&[&event, &event]).await.unwrap(), 2);
    assert_eq!(
        service.last().body,
        r#"{"events":[{"id":"1","n":1.0},{"id":"1","n":1.0}]}"#
    );
    service.answer(413, "");
    assert_eq!(refused(upstream.save_messages(&[&event]).await).0, 413);
}

#[tokio::test]
async fn the_key_set_is_fetched_without_the_bearer_token() {
    let service = Scripted::start(200, r#"{"keys":[]}"#).await;
    let upstream = upstream(&service.url);
    assert_eq!(
        upstream.jwks(&format!("{}/keys", service.url)).await.unwrap(),
        r#"{"keys":[]}"#
    );
    assert_eq!(service.last().bearer, None);
}

#[tokio::test]
async fn a_slow_service_is_an_outage_after_the_timeout() {
    let router = axum::Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
    let upstream = upstream(&serve(router).await);
    let start = Instant::now();
    let error = unavailable(upstream.verify_access_token("secret-token").await);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(error.contains("timed out"), "{error}");
}

/// Answers every connection with `bytes`, then closes it, or keeps it open without another byte.
async fn raw_service(bytes: &'static [u8], close: bool) -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(bytes).await;
                if !close {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn cut_garbled_and_huge_answers_are_outages() {
    let cut: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"valid\":";
    for (bytes, close, problem) in [
        (cut, true, "broke"),
        (cut, false, "timed out"),
        (b"".as_slice(), true, ""),
        (b"SSH-2.0-x\r\n".as_slice(), true, "broke"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsecret{{{".as_slice(),
            true,
            "line 1",
        ),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n".as_slice(),
            false,
            "too large",
        ),
    ] {
        let error = unavailable(
            upstream(&raw_service(bytes, close).await)
                .verify_access_token("t")
                .await,
        );
        assert!(error.contains(problem) && !error.contains("secret"), "{error}");
    }
    // Without a length, the bytes are counted as they come.
    let router = axum::Router::new().fallback(|| async {
        let chunk = bytes::Bytes::from(vec![b' '; 1 << 20]);
        let chunks = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        axum::body::Body::from_stream(chunks)
    });
    let pairs = [("AUTH_URL", &*serve(router).await), ("UPSTREAM_TIMEOUT", "20s")];
    let error = unavailable(Upstream::new(&config(&pairs)).unwrap().verify_access_token("t").await);
    assert!(error.contains("too large"), "{error}");
}

#[tokio::test]
async fn health_and_metrics_remember_how_calls_went() {
    let service = Scripted::start(500, "").await;
    let metrics = Arc::new(Metrics::new().unwrap());
    let upstream = upstream(&service.url).with_metrics(metrics.clone());
    let declared =
        crate::telemetry::metrics::all().find(|declared| declared.name == "roomcast_upstream_requests_total");
    assert_eq!(
        (declared.unwrap().labels[0].1)(),
        super::Call::ALL.map(super::Call::as_str)
    );
    assert_eq!(upstream.health(Service::Auth).last_success, None);
    for _ in 0..2 {
        unavailable(upstream.verify_access_token("t").await);
    }
    assert_eq!(upstream.health(Service::Auth).consecutive_failures, 2);
    assert_eq!(upstream.health(Service::Api).consecutive_failures, 0);
    service.answer(401, "");
    refused(upstream.verify_access_token("t").await);
    let health = upstream.health(Service::Auth);
    assert_eq!(health.consecutive_failures, 0);
    assert!(health.last_success.is_some());
    assert_eq!(metrics.upstream_requests_total.get(["verify_token", "unavailable"]), 2);
    assert_eq!(metrics.upstream_requests_total.get(["verify_token", "refused"]), 1);
    assert!(
        metrics
            .render()
            .contains(r#"roomcast_upstream_requests_total{call="jwks",result="ok"} 0"#)
    );
}

#[tokio::test]
async fn nobody_listening_is_an_outage_without_addresses_in_its_text() {
    let error = unavailable(
        upstream(testing::NOWHERE)
            .messages(&room("private"), &MessageQuery::default())
            .await,
    );
    assert_eq!(error, "unavailable: messages: connection refused");
}
