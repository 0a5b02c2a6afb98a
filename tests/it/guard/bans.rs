//! Bans: they climb, hold on every node, outlive a Redis that forgets them, and hit nobody for an outage.

use std::time::{Duration, Instant};

use roomcast::model::{Origin, Scope};
use roomcast::redis::{Redis, Term};
use roomcast_load::client::{Client, ConnectError};
use serde_json::json;

use super::{connect, from, ip, misbehave, refused_with, scope};
use crate::support::{Switchable, World, auth, standalone, until, within};

/// How soon a ban must hold everywhere.
const SOON: Duration = Duration::from_secs(2);

/// Waits until a node refuses handshakes because Redis is away, with a hint to come back.
async fn until_away(world: &World, node: usize) {
    until("the node has noticed", Duration::from_secs(5), || async {
        match from(world, node, 0, 99).connect().await {
            Err(ConnectError::Http { status, .. }) => status == 503,
            Err(ConnectError::Refused { message }) => message != "auth_unavailable",
            _ => false,
        }
    })
    .await;
}

/// An operator's way to Redis.
pub async fn operator(world: &World) -> Redis {
    let redis = Redis::start(&world.config()).unwrap();
    within("Redis is connected", redis.wait_connected()).await;
    redis
}

async fn ban(redis: &Redis, scope: &Scope, length: Duration) {
    let (ban, new) = redis
        .set_ban(scope, "test", "operator", Term::For(length))
        .await
        .unwrap();
    assert!(new && ban.origin == Origin::Admin);
    redis.announce_ban(&ban).await.unwrap();
}

async fn cut_soon(client: &Client, since: Instant) {
    let notice = client.expect_within("security:notice", SOON).await.unwrap();
    assert_eq!(notice[0]["code"], "banned", "an operator's words are for operators");
    assert!(notice[0]["blockedForMs"].as_u64().unwrap() > 0, "{notice:?}");
    within("the transport is closed", client.closed()).await;
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ban_of_any_scope_cuts_its_sockets_on_every_node_within_2_seconds() {
    let world = World::start(3).await;
    let redis = operator(&world).await;
    let hour = Duration::from_secs(3600);
    for (text, hit) in [("ip:127.0.2.1", 1), ("ip:127.0.2.16/28", 17), ("user:p8", 40)] {
        let scope: Scope = text.parse().unwrap();
        let user = if text.starts_with("user") { 8 } else { 0 };
        let mut there = Vec::new();
        for node in 0..3 {
            there.push(connect(&world, node, user, hit).await);
        }
        let bystander = connect(&world, 1, 4, 50).await;
        let since = Instant::now();
        ban(&redis, &scope, hour).await;
        for client in &there {
            cut_soon(client, since).await;
        }
        assert!(bystander.is_connected());
        for node in 0..3 {
            match from(&world, node, user, hit).connect().await {
                Err(ConnectError::Http { status: 403, .. }) => assert!(user == 0),
                Err(ConnectError::Refused { message }) => assert!(user == 8 && message == "you're banned"),
                other => panic!("{other:?}"),
            }
        }
        assert!(redis.clear_ban(&scope).await.unwrap());
        redis.announce_unban(&scope, "operator").await.unwrap();
        until("they may come back", SOON, || async {
            from(&world, 2, user, hit).connect().await.is_ok()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_climb_the_ladder_and_are_noted() {
    let world = World::with(1, &[("GUARD_BLOCK", "1s,2s,1h")]).await;
    let redis = operator(&world).await;
    for (level, seconds) in [(1, 1), (2, 2), (3, 3600), (3, 3600)] {
        misbehave(&world, 1).await;
        let ban = redis.ban(&scope(1)).await.unwrap().unwrap();
        assert_eq!(
            (ban.level, ban.reason.as_str(), ban.origin),
            (level, "missing_field", Origin::Auto)
        );
        assert_eq!(ban.until - ban.since, seconds * 1000);
        if seconds > 10 {
            redis.cli_end(&world, 1).await;
        }
        until("it is over", Duration::from_secs(5), || async {
            refused_with(&world, 0, 1).await.is_none()
        })
        .await;
    }
    until("all are noted", Duration::from_secs(5), || async {
        let audits = redis.audits(Some(&scope(1)), 100).await.unwrap();
        audits.iter().filter(|audit| audit.act == "ban").count() == 4
    })
    .await;
}

/// Ends a ban in its key and in the node's copy, and leaves its level.
trait EndBan {
    async fn cli_end(&self, world: &World, last: u8);
}

impl EndBan for Redis {
    async fn cli_end(&self, world: &World, last: u8) {
        let key = format!("rc:{{tokenRequests:{}}}:ban", ip(last));
        world.redis.cli(&["DEL", &key]).await;
        self.announce_unban(&scope(last), "test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_address_costs_no_call_of_redis_and_no_session() {
    let world = standalone(1, &[]).await;
    misbehave(&world, 1).await;
    // Scripts run for handshakes; nothing else in the node calls them while nobody is connected.
    let scripts = async || {
        let stats = world.redis.cli(&["INFO", "commandstats"]).await;
        let line = stats
            .iter()
            .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse::<u64>().unwrap())
    };
    let sessions = || world.metric(0, "roomcast_handshakes_total");
    let quiet = Duration::from_secs(2);
    let before = (scripts().await, sessions());
    tokio::time::sleep(quiet).await;
    let idle = scripts().await - before.0;
    let before = (scripts().await, sessions());
    let started = Instant::now();
    for _ in 0..200 {
        assert_eq!(refused_with(&world, 0, 1).await, Some(403));
    }
    assert!(started.elapsed() < 5 * quiet);
    let after = (scripts().await, sessions());
    assert!(
        after.0 - before.0 <= 5 * idle + 3,
        "{} scripts for 200 refusals",
        after.0 - before.0
    );
    assert_eq!(after.1, before.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn bans_outlive_a_redis_that_forgets_them() {
    let mut world = standalone(2, &[]).await;
    misbehave(&world, 1).await;
    until("both nodes know", SOON, || async {
        matches!(
            from(&world, 1, 0, 1).connect().await,
            Err(ConnectError::Http { status: 403, .. })
        )
    })
    .await;
    world.redis.kill().await;
    assert_eq!(
        refused_with(&world, 0, 1).await,
        Some(403),
        "known here, with Redis away"
    );
    until_away(&world, 1).await;
    world.redis.wipe_disk().await;
    world.redis.resume().await;
    let operator = operator(&world).await;
    until("the nodes have written it again", Duration::from_secs(20), || async {
        operator.ban(&scope(1)).await.is_ok_and(|ban| ban.is_some())
    })
    .await;
    // A node that starts only now learns of it too.
    world.add_node().await;
    for node in 0..3 {
        assert_eq!(refused_with(&world, node, 1).await, Some(403), "node {node}");
    }
    until("the others are let in", Duration::from_secs(10), || async {
        refused_with(&world, 1, 2).await.is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ban_set_while_redis_is_away_holds_at_once_here_and_everywhere_later() {
    let mut world = standalone(2, &[]).await;
    let (client, other) = (connect(&world, 0, 0, 1).await, connect(&world, 1, 0, 2).await);
    world.redis.kill().await;
    until_away(&world, 0).await;
    client.emit("syncRooms", &json!({"rooms": []})).unwrap();
    // It is costly, so without Redis it is not even looked at: nobody is banned for what cannot be counted.
    let error = client.expect("errorMessage").await.unwrap();
    assert_eq!(error[0]["code"], "unavailable");
    world.services.fail("/api/rooms/check-room", Switchable::Status(400));
    client
        .emit("loadMoreMessages_for_room", &json!({"roomId": "forged"}))
        .unwrap();
    client.expect("security:notice").await.unwrap();
    client.closed().await;
    world.services.heal();
    world.redis.resume().await;
    within("the other node hears of it", other.closed()).await;
    until("the user is banned there too", Duration::from_secs(20), || async {
        matches!(
            from(&world, 1, 0, 2).connect().await,
            Err(ConnectError::Refused { message }) if message == "you're banned"
        )
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_a_service_or_of_redis_bans_nobody() {
    let settings = [("UPSTREAM_TIMEOUT", "500ms"), ("GUARD_STRIKES", "1")];
    let mut world = standalone(2, &settings).await;
    let (client, _) = world.joined(0, 0, "room-0").await;
    let mut expired = auth(4);
    expired["accessToken"] = json!("expired");
    let abuse = async |world: &World| {
        for _ in 0..5 {
            let _refused = from(world, 0, 4, 1).auth(expired.clone()).connect().await;
            let _refused = from(world, 1, 8, 1).connect().await;
            for event in [
                "join",
                "loadMoreMessages_for_room",
                "syncRooms",
                "deleteroom",
                "refreshToken",
            ] {
                let payload = json!({"roomID": "room-0", "roomId": "room-0", "platformId": "p0", "rooms": [{"roomId": "room-1"}]});
                let _refused = client.emit(event, &payload);
            }
            let _lost = client.emit("message", &json!({"roomID": "room-0", "message": "x"}));
        }
    };
    for fault in [
        Switchable::Status(500),
        Switchable::Status(404),
        Switchable::Garbage,
        Switchable::Hang,
    ] {
        world.services.fail("/", fault);
        abuse(&world).await;
        world.services.heal();
    }
    world.redis.kill().await;
    abuse(&world).await;
    world.redis.resume().await;
    until("handshakes go on", Duration::from_secs(15), || async {
        from(&world, 0, 8, 1).connect().await.is_ok() && from(&world, 1, 4, 1).connect().await.is_ok()
    })
    .await;
    assert_eq!(world.redis.cli(&["ZCARD", "rc:bans"]).await, ["0"]);
    for node in 0..2 {
        assert_eq!(world.metric(node, "roomcast_blocks_total"), 0.0);
        assert_eq!(world.metric(node, "roomcast_guard_degraded"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_in_shadow_mode_are_counted_and_not_enforced() {
    let rules = "missing_field,token_requests,sockets_per_user,handshakes,events,strikes";
    let settings = [
        ("GUARD_SHADOW", rules),
        ("GUARD_TOKEN_REQUESTS", "1"),
        ("GUARD_SOCKETS_PER_USER", "1"),
        ("GUARD_HANDSHAKES_PER_ADDRESS", "1/h burst 1"),
        ("GUARD_EVENTS_PER_SOCKET", "1/h burst 1"),
        ("GUARD_STRIKES", "1"),
    ];
    let world = World::with(1, &settings).await;
    misbehave(&world, 1).await;
    let clients = [connect(&world, 0, 0, 1).await, connect(&world, 0, 0, 1).await];
    for client in &clients {
        for _ in 0..3 {
            client.emit("refreshToken", &json!(null)).unwrap();
            let foreign = json!({"roomID": "room-1"});
            assert_eq!(
                client.emit_ack("join", &foreign).await.unwrap()[0]["code"],
                "not_member"
            );
        }
    }
    for rule in rules.split(',') {
        let name = format!("roomcast_shadowed_total{{rule=\"{rule}\"}}");
        until(rule, Duration::from_secs(5), || async { world.metric(0, &name) > 0.0 }).await;
    }
    assert!(clients.iter().all(Client::is_connected));
    assert_eq!(world.metric(0, "roomcast_blocks_total"), 0.0);
}
