//! Every row of the contract's handshake table.

use std::time::Duration;

use roomcast_load::client::{Client, ConnectError, Transport};
use serde_json::{Value, json};

use crate::support::{Switchable, USER_AGENT, World, auth, token, until};

async fn refused(world: &World, address: &str, auth: Value) -> String {
    match connect(world, address, auth).await {
        Err(ConnectError::Refused { message }) => message,
        other => panic!("{other:?}"),
    }
}

async fn connect(world: &World, address: &str, auth: Value) -> Result<Client, ConnectError> {
    world
        .client(0, 0)
        .auth(auth)
        .local_address(address.parse().unwrap())
        .connect()
        .await
}

/// Whether the address is blocked: the next handshake is refused before the upgrade.
async fn is_blocked(world: &World, address: &str) -> bool {
    match connect(world, address, auth(0)).await {
        Ok(_) => false,
        Err(ConnectError::Http {
            status: 403,
            body,
            headers,
        }) => {
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["code"], "blocked");
            // A node knows the server's clock as well as half a trip to it lets it.
            assert!(body["retryAfterMs"].as_u64().unwrap() <= 61_000, "{body}");
            assert!(headers.iter().any(|(name, _)| name == "retry-after"), "{headers:?}");
            true
        }
        Err(other) => panic!("{other:?}"),
    }
}

fn with(mut auth: Value, field: &str, value: Value) -> Value {
    auth[field] = value;
    auth
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_field_or_foreign_application_blocks_the_address() {
    let world = World::start(1).await;
    for (n, field) in ["accessToken", "refreshToken", "userAgent", "username"]
        .into_iter()
        .enumerate()
    {
        let address = format!("127.0.1.{}", n + 1);
        let mut auth = auth(0);
        auth.as_object_mut().unwrap().remove(field);
        assert_eq!(refused(&world, &address, auth).await, "you're banned", "{field}");
        assert!(is_blocked(&world, &address).await, "{field}");
    }
    assert_eq!(
        refused(&world, "127.0.1.9", with(auth(0), "userAgent", json!("curl/8"))).await,
        "you're banned"
    );
    assert!(is_blocked(&world, "127.0.1.9").await);
    assert!(
        !is_blocked(&world, "127.0.1.10").await,
        "other addresses are not touched"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_token_connects_its_user_in_any_case_of_the_name_and_nobody_else() {
    let world = World::start(1).await;
    connect(&world, "127.0.1.1", with(auth(0), "username", json!("USER0")))
        .await
        .unwrap();
    assert_eq!(
        refused(&world, "127.0.1.1", with(auth(0), "username", json!("user1"))).await,
        "you're banned"
    );
    // The token was verified, so the block acts on its session (here: its user), not on the address.
    assert_eq!(refused(&world, "127.0.1.2", auth(0)).await, "you're banned");
    world
        .client(0, 1)
        .local_address("127.0.1.1".parse().unwrap())
        .connect()
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_does_not_hold_is_exchanged_in_silence() {
    let world = World::with(1, &[("JWT_LEEWAY", "0s")]).await;
    let (_, refresh) = world.services.login(0).await;
    let expired = token(0, Duration::ZERO);
    // `exp` has a resolution of a second and counts as over when that second is.
    tokio::time::sleep(Duration::from_millis(2000)).await;
    let forged = {
        let good = token(0, Duration::from_secs(60));
        let (head, tail) = good.split_at(good.len() - 5);
        format!("{head}{}{}", if tail.starts_with('x') { 'y' } else { 'x' }, &tail[1..])
    };
    for access in [expired.as_str(), &forged, "garbage"] {
        let auth = with(
            with(auth(0), "accessToken", json!(access)),
            "refreshToken",
            json!(refresh),
        );
        let client = connect(&world, "127.0.1.1", auth).await.unwrap();
        let refreshed = client.expect("token:refresh").await.unwrap();
        assert!(refreshed[0]["accessToken"].is_string());
        assert!(
            refreshed[0].get("refreshToken").is_none(),
            "a legacy client keeps its refresh token"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_token_of_another_or_refused_blocks() {
    let world = World::start(1).await;
    let (_, others) = world.services.login(1).await;
    let auth = |refresh: &str| {
        with(
            with(auth(0), "accessToken", json!("bad")),
            "refreshToken",
            json!(refresh),
        )
    };
    assert_eq!(
        refused(&world, "127.0.1.1", auth(&others)).await,
        "Invalid refresh token"
    );
    assert!(is_blocked(&world, "127.0.1.1").await);
    assert_eq!(
        refused(&world, "127.0.1.2", auth("nobody knows this")).await,
        "Token refresh failed"
    );
    assert!(is_blocked(&world, "127.0.1.2").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_the_auth_service_never_blocks() {
    let world = World::with(1, &[("UPSTREAM_TIMEOUT", "500ms")]).await;
    let bad = with(auth(0), "accessToken", json!("bad"));
    let faults = [
        Switchable::Status(500),
        Switchable::Status(404),
        Switchable::Status(302),
        Switchable::Garbage,
        Switchable::Hang,
    ];
    for fault in faults {
        world.services.fail("/refresh-token", fault);
        assert_eq!(
            refused(&world, "127.0.1.1", bad.clone()).await,
            "auth_unavailable",
            "{fault:?}"
        );
        let message = refused(&world, "127.0.1.1", with(bad.clone(), "proto", json!(2))).await;
        let message: Value = serde_json::from_str(&message).unwrap();
        assert_eq!(message["code"], "auth_unavailable");
        assert!(message["retryAfterMs"].as_u64().unwrap() > 0);
        world.services.heal();
        assert!(!is_blocked(&world, "127.0.1.1").await, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_mode_verifies_at_the_auth_service() {
    let world = World::with(1, &[("AUTH_MODE", "http")]).await;
    let (access, refresh) = world.services.login(0).await;
    let good = with(
        with(auth(0), "accessToken", json!(access)),
        "refreshToken",
        json!(refresh),
    );
    connect(&world, "127.0.1.1", good.clone()).await.unwrap();
    world.services.fail("/verify-access-token", Switchable::Status(503));
    assert_eq!(refused(&world, "127.0.1.1", good.clone()).await, "auth_unavailable");
    world.services.heal();
    let client = connect(&world, "127.0.1.1", with(good, "accessToken", json!("bad")))
        .await
        .unwrap();
    client.expect("token:refresh").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_during_a_block_neither_prolong_nor_raise_it() {
    let world = World::with(1, &[("GUARD_BLOCK", "3s")]).await;
    refused(&world, "127.0.1.1", json!({})).await;
    let blocked_at = tokio::time::Instant::now();
    while is_blocked(&world, "127.0.1.1").await {
        assert!(blocked_at.elapsed() < Duration::from_secs(4), "the block was prolonged");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(blocked_at.elapsed() > Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_origin_is_refused_without_a_strike() {
    let world = World::with(1, &[("CORS_ORIGINS", "https://chat.example")]).await;
    for transport in [Transport::Websocket, Transport::Polling] {
        let from = |origin: &str| {
            world
                .client(0, 0)
                .transport(transport)
                .header("origin", origin)
                .connect()
        };
        match from("https://evil.example").await {
            Err(ConnectError::Http { status: 403, body, .. }) => assert!(body.contains("origin"), "{body}"),
            other => panic!("{other:?}"),
        }
        from("https://chat.example").await.unwrap();
        from(&world.url(0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undeclared_proxy_is_never_blocked_and_a_declared_one_is_believed() {
    let world = World::start(1).await;
    let behind = |world: &World, auth: Value| {
        world
            .client(0, 0)
            .auth(auth)
            .header("x-forwarded-for", "203.0.113.5")
            .connect()
    };
    behind(&world, json!({})).await.unwrap_err();
    behind(&world, auth(0)).await.unwrap();

    let world = World::with(1, &[("TRUSTED_PROXIES", "127.0.0.0/8")]).await;
    behind(&world, json!({})).await.unwrap_err();
    assert!(matches!(
        behind(&world, auth(0)).await,
        Err(ConnectError::Http { status: 403, .. })
    ));
    world.connect(0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_user_is_cut_and_an_unreachable_room_service_is_not_held_against_anybody() {
    let world = World::start(1).await;
    world.services.fail("/api/rooms/user-rooms", Switchable::Status(503));
    world.services.fail("/api/rooms/check-room", Switchable::Status(503));
    let client = world.connect(0, 0).await;
    let ack = client.emit_ack("join", &json!({"roomID": "room-0"})).await.unwrap();
    assert_eq!(ack[0]["code"], "unavailable", "{ack:?}");
    assert!(ack[0]["retryAfterMs"].as_u64().unwrap() > 0);
    world.services.heal();
    until("the list is fetched", Duration::from_secs(15), || async {
        world.redis.members("roomUsers:room-0").await.len() == 1
    })
    .await;
    world.services.fail("/api/rooms/user-rooms", Switchable::Status(403));
    let refused = world.connect(0, 4).await;
    refused.expect("security:notice").await.unwrap();
    refused.closed().await;
    world.services.heal();
    assert!(client.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_token_event_is_limited_by_address_on_every_node() {
    let world = World::with(2, &[("GUARD_TOKEN_REQUESTS", "5")]).await;
    let (access, refresh) = world.services.login(0).await;
    let auth = json!({"accessToken": access, "refreshToken": refresh, "userAgent": USER_AGENT, "username": "user0"});
    let from = |node: usize| {
        world
            .client(node, 0)
            .auth(auth.clone())
            .local_address("127.0.1.1".parse().unwrap())
    };
    let (near, far) = (from(0).connect().await.unwrap(), from(1).connect().await.unwrap());
    let other = world.connect(1, 1).await;
    for _ in 0..5 {
        let ack = near.emit_ack("refreshToken", &json!(null)).await.unwrap();
        assert_eq!(ack[0]["ok"], true, "{ack:?}");
        near.expect("token:refresh").await.unwrap();
    }
    near.emit("refreshToken", &json!(null)).unwrap();
    for client in [&near, &far] {
        client.expect("security:notice").await.unwrap();
        client.closed().await;
    }
    assert!(matches!(
        from(1).connect().await,
        Err(ConnectError::Http { status: 403, .. })
    ));
    assert!(other.is_connected());
    assert_eq!(world.redis.cli(&["GET", "tokenRequests:127.0.1.1"]).await, ["6"]);
    let ttl: i64 = world.redis.cli(&["TTL", "tokenRequests:127.0.1.1"]).await[0]
        .parse()
        .unwrap();
    assert!((1..=60).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_client_of_protocol_2_is_told_how_long_the_block_still_lasts() {
    let world = World::with(1, &[("GUARD_BLOCK", "30s")]).await;
    let mut proto2 = auth(0);
    proto2["proto"] = json!(2);
    // The login is used under another name: its user is blocked, not the address.
    refused(&world, "127.0.1.1", with(auth(0), "username", json!("somebody"))).await;
    let retry_after = async || {
        let message: Value = serde_json::from_str(&refused(&world, "127.0.1.1", proto2.clone()).await).unwrap();
        assert_eq!(message["code"], "blocked");
        message["retryAfterMs"].as_u64().unwrap()
    };
    assert!(retry_after().await <= 30_000);
    until("the block runs down", Duration::from_secs(5), || async {
        retry_after().await <= 28_000
    })
    .await;
}
