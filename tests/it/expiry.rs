//! The end of a login: its token ends, the auth service ends it, or it is revoked.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use roomcast::auth::issue_token;
use roomcast::model::{Identity, UserId, unix_ms};
use roomcast_load::client::{Client, ConnectError, Transport};
use serde_json::{Value, json};

use crate::support::{SECRET, Switchable, USER_AGENT, World, auth, join, send, token, until};

/// What is promised for every cut.
const CUT_WITHIN: Duration = Duration::from_secs(2);

fn with(access: &str, refresh: &str, user: usize) -> Value {
    let mut auth = auth(user);
    auth["accessToken"] = json!(access);
    auth["refreshToken"] = json!(refresh);
    auth
}

/// The code of the notice after which the connection was closed.
async fn cut(client: &Client) -> String {
    let notice = client.expect("security:notice").await.unwrap();
    client.closed().await;
    notice[0]["code"].as_str().unwrap().to_owned()
}

/// Waits until the clock shows the time.
async fn until_unix(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms.saturating_sub(unix_ms()))).await;
}

async fn revoke(world: &World, login: &Value) {
    let response = reqwest::Client::new()
        .post(format!("http://{}/admin/revoke", world.nodes[0].ops_address))
        .bearer_auth("admin")
        .json(login)
        .send()
        .await
        .unwrap();
    assert!(response.status().is_success(), "{response:?}");
}

fn claims(access: &str) -> Value {
    let claims = URL_SAFE_NO_PAD.decode(access.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&claims).unwrap()
}

/// When a token ends, Unix ms.
fn end_of(access: &str) -> u64 {
    claims(access)["exp"].as_u64().unwrap() * 1000
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_is_cut_when_its_token_ends_and_comes_back_with_its_refresh_token() {
    let world = World::with(2, &[("JWT_LEEWAY", "0s")]).await;
    let (_, refresh) = world.services.login(0).await;
    let (writer, _) = world.joined(1, 4, "room-0").await;
    for transport in [Transport::Websocket, Transport::Polling] {
        let access = token(0, Duration::from_secs(2));
        let auth = with(&access, &refresh, 0);
        let connect = async || {
            let client = world.client(0, 0).auth(auth.clone()).transport(transport);
            client.connect().await.unwrap()
        };
        let client = connect().await;
        join(&client, "room-0").await;
        let seen = send(&writer, "room-0", "seen").await;
        client.expect("message").await.unwrap();

        assert_eq!(cut(&client).await, "auth_expired", "{transport:?}");
        let late = unix_ms().checked_sub(end_of(&access)).map(Duration::from_millis);
        assert!(late.is_some_and(|late| late < CUT_WITHIN), "{transport:?}: {late:?}");

        send(&writer, "room-0", "missed").await;
        let client = connect().await;
        client.expect("token:refresh").await.unwrap();
        let payload = json!({"roomID": "room-0", "lastmessage": seen["ts"]});
        assert_eq!(client.emit_ack("join", &payload).await.unwrap()[0]["ok"], true);
        let missed = client.expect("previousMessages").await.unwrap();
        assert_eq!(missed[0][0]["message"], "missed", "{missed:?}");
        client.kill();
    }
    assert!(writer.is_connected(), "others go on");
    let page = world.nodes[0].metrics.render();
    assert!(
        page.contains("roomcast_cuts_total{reason=\"auth_expired\"} 2"),
        "{page}"
    );
    assert_eq!(world.metric(0, "roomcast_blocks_total"), 0.0);
    assert_eq!(world.redis.cli(&["KEYS", "rc:*strikes*"]).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn socket_that_renews_its_token_in_time_lives_on() {
    let world = World::with(1, &[("JWT_LEEWAY", "0s")]).await;
    let mut ends = 0;
    let mut clients = Vec::new();
    for user in [0, 4, 8] {
        let (_, refresh) = world.services.login(user).await;
        let access = token(user, Duration::from_secs(3));
        ends = end_of(&access);
        let client = world.client(0, user).auth(with(&access, &refresh, user));
        clients.push(client.connect().await.unwrap());
    }
    let [asks, joins, sleeps] = &clients[..] else {
        unreachable!()
    };
    asks.emit_ack("refreshToken", &json!(null)).await.unwrap();
    asks.expect("token:refresh").await.unwrap();
    // Joins again and again: one of them comes as the token ends, and renews it in silence.
    let mut renewed = Vec::new();
    while renewed.is_empty() {
        assert!(unix_ms() < ends + 2000, "no join has renewed the token");
        join(joins, "room-0").await;
        renewed = joins.take("token:refresh");
    }
    assert!(unix_ms() + 500 >= ends, "renewed before there was a need");
    assert_eq!(cut(sleeps).await, "auth_expired");
    until_unix(ends + 2000).await;
    for client in [asks, joins] {
        join(client, "room-0").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_without_an_end_is_verified_again_and_an_outage_ends_no_socket() {
    let settings = [
        ("AUTH_MODE", "http"),
        ("AUTH_VERIFY_EVERY", "1s"),
        ("UPSTREAM_TIMEOUT", "300ms"),
    ];
    let world = World::with(1, &settings).await;
    let verify = "/verify-access-token";
    world.services.fail(verify, Switchable::Without("exp"));
    let (access, refresh) = world.services.login(0).await;
    let (ended, ended_refresh) = world.services.login(4).await;
    let (stays, renews) = (&ended_refresh, &refresh);
    let client = world
        .client(0, 0)
        .auth(with(&access, renews, 0))
        .connect()
        .await
        .unwrap();
    let loser = world.client(0, 4).auth(with(&ended, stays, 4)).connect().await.unwrap();

    let asked = |result: &str| {
        let name = format!("roomcast_upstream_requests_total{{call=\"verify_token\",result=\"{result}\"}} ");
        let page = world.nodes[0].metrics.render();
        let count = page.lines().find_map(|line| line.strip_prefix(&name)).unwrap();
        count.parse::<u64>().unwrap()
    };
    for (fault, result) in [
        (Switchable::Without("exp"), "ok"),
        (Switchable::Status(503), "unavailable"),
        (Switchable::Garbage, "unavailable"),
        (Switchable::Hang, "unavailable"),
    ] {
        world.services.fail(verify, fault);
        let before = asked(result);
        until(
            "both tokens are verified again, twice",
            Duration::from_secs(15),
            || async { asked(result) >= before + 4 },
        )
        .await;
        assert!(client.is_connected() && loser.is_connected(), "{fault:?}");
    }

    // Refused, while the refresh token still works: renewed in silence, and verified with what came back.
    world.services.fail(verify, Switchable::Without("exp"));
    world.services.post("/logout", json!({"accessToken": ended})).await;
    assert_eq!(cut(&loser).await, "auth_expired");
    assert!(client.is_connected() && client.take("token:refresh").is_empty());
    assert_eq!(world.metric(0, "roomcast_blocks_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_the_auth_service_refuses_is_exchanged_before_the_socket_ends() {
    let settings = [("AUTH_MODE", "http"), ("AUTH_VERIFY_EVERY", "1s")];
    let world = World::with(1, &settings).await;
    world.services.fail("/verify-access-token", Switchable::Without("exp"));
    let (_, refresh) = world.services.login(0).await;
    // It ends at the service, which does not tell the node when.
    let access = token(0, Duration::from_secs(2));
    let client = world
        .client(0, 0)
        .auth(with(&access, &refresh, 0))
        .connect()
        .await
        .unwrap();
    world.services.fail("/refresh-token", Switchable::Status(503));
    let failed = || {
        world.metric(
            0,
            "roomcast_upstream_requests_total{call=\"refresh_token\",result=\"unavailable\"}",
        )
    };
    until("the exchange fails", Duration::from_secs(10), || async {
        failed() >= 1.0
    })
    .await;
    assert!(client.is_connected(), "an outage ends no socket");
    world.services.heal();
    world.services.fail("/verify-access-token", Switchable::Without("exp"));
    let renewed = client.expect("token:refresh").await.unwrap();
    assert_ne!(renewed[0]["accessToken"], json!(access));
    join(&client, "room-0").await;
    assert_eq!(world.metric(0, "roomcast_cuts_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_login_is_gone_from_every_node_within_two_seconds() {
    let world = World::start(2).await;
    let (access, refresh) = world.services.login(0).await;
    let (other_access, other_refresh) = world.services.login(0).await;
    let auth = with(&access, &refresh, 0);
    let mut ended = Vec::new();
    for node in [0, 1] {
        ended.push(world.client(node, 0).auth(auth.clone()).connect().await.unwrap());
    }
    let other_auth = with(&other_access, &other_refresh, 0);
    let other = world.client(1, 0).auth(other_auth).connect().await.unwrap();

    // As an auth service does it: first no new tokens, then the sockets.
    let started = Instant::now();
    let logout = world.services.post("/logout", json!({"refreshToken": refresh})).await;
    assert_eq!(logout["ended"], true);
    revoke(&world, &json!({"sid": claims(&access)["sid"]})).await;
    for client in &ended {
        assert_eq!(cut(client).await, "revoked");
    }
    assert!(started.elapsed() < CUT_WITHIN, "{:?}", started.elapsed());

    for node in [0, 1] {
        match world.client(node, 0).auth(auth.clone()).connect().await {
            Err(ConnectError::Refused { message }) => assert_eq!(message, "you're banned"),
            other => panic!("{other:?}"),
        }
    }
    join(&other, "room-0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_user_logs_in_again_with_a_newer_token_and_an_older_one_never_holds() {
    let world = World::start(2).await;
    let (old, refresh) = world.services.login(0).await;
    let old_socket = world
        .client(1, 0)
        .auth(with(&old, &refresh, 0))
        .connect()
        .await
        .unwrap();
    revoke(&world, &json!({"platformid": "p0"})).await;
    assert_eq!(cut(&old_socket).await, "revoked");
    let revoked_at: u64 = world.redis.cli(&["GET", "rc:revoked:user:p0"]).await[0]
        .parse()
        .unwrap();
    assert!(unix_ms().abs_diff(revoked_at) < 10_000, "{revoked_at}");

    // Tokens tell the second they were issued in: one of the second of the revocation counts as older.
    until_unix((revoked_at / 1000 + 1) * 1000).await;
    let (access, refresh) = world.services.login(0).await;
    let again = world
        .client(1, 0)
        .auth(with(&access, &refresh, 0))
        .connect()
        .await
        .unwrap();
    join(&again, "room-0").await;
    let refused = world.client(0, 0).auth(with(&old, "none", 0)).connect().await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    join(&again, "room-0").await;

    // Marks of before they had a time count for every token.
    world.redis.cli(&["SET", "rc:revoked:user:p0", "1", "EX", "60"]).await;
    let ack = again.emit_ack("join", &json!({"roomID": "room-0"})).await.unwrap();
    assert_eq!(ack[0]["code"], "auth_expired", "{ack:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_that_was_ended_stays_so_whenever_its_token_was_issued() {
    let world = World::start(1).await;
    revoke(&world, &json!({"sid": "s-1"})).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let identity = Identity {
        user: UserId::new("p0").unwrap(),
        username: "user0".to_owned(),
        session: Some("s-1".to_owned()),
        issued_at: None,
        expires_at: None,
    };
    let newer = issue_token(SECRET, &identity, Duration::from_secs(60)).unwrap();
    let auth = json!({"accessToken": newer, "refreshToken": "none", "userAgent": USER_AGENT, "username": "user0"});
    let refused = world.client(0, 0).auth(auth).connect().await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })), "{refused:?}");
    world.connect(0, 0).await;
}
