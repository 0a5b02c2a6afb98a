//! `/admin`: the same operations over HTTP, for whoever has the token.

use std::time::Duration;

use roomcast::node::Node;
use serde_json::{Value, json};

use super::{SOON, cut_soon, get, listed, request};
use crate::support::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn admin_api_bans_shows_and_unbans() {
    let world = World::start(2).await;
    let worker = world.worker().await;
    // It answers before it has reached Redis.
    until("the worker is ready", Duration::from_secs(10), || async {
        let ready = reqwest::get(format!("http://{}/readyz", worker.ops_address)).await;
        ready.is_ok_and(|answer| answer.status().is_success())
    })
    .await;
    let (near, far) = (world.nodes[0].ops_address, world.nodes[1].ops_address);
    let client = world.connect(0, 4).await;
    let order = json!({"scope": "user:p4", "for": "forever", "reason": "spam", "by": "moderation"});
    let (status, set) = request(worker.ops_address, "POST", "bans", "admin", order).await;
    assert_eq!((status, &set["ban"]["actor"]), (201, &json!("moderation")), "{set}");
    cut_soon(&[client]).await;
    let network = json!({"scope": "192.0.2.0/24"});
    request(near, "POST", "bans", "admin", network).await;

    let (_, list) = get(&world, "bans").await;
    assert_eq!(
        (&list["total"], &list["bans"][0]["scope"]),
        (&json!(2), &json!("ip:192.0.2.0/24"))
    );
    assert_eq!(get(&world, "bans?kind=user").await.1["bans"][0]["reason"], "spam");
    assert_eq!(get(&world, "bans?ip=192.0.2.77").await.1["total"], 1);
    let (_, report) = get(&world, "bans/192.0.2.0%2F24").await;
    assert_eq!(report["ban"]["actor"], "admin");
    assert_eq!(
        get(&world, "bans/ip%3A192.0.2.9").await.1["networks"][0]["scope"],
        "ip:192.0.2.0/24"
    );
    let (status, removed) = request(far, "DELETE", "bans/user%3Ap4?by=moderation", "admin", Value::Null).await;
    assert_eq!((status, removed), (200, json!({"removed": "user:p4"})));
    let (status, missing) = request(far, "DELETE", "bans/user%3Ap4", "admin", Value::Null).await;
    assert_eq!((status, &missing["code"]), (404, &json!("not_found")));
    until("the user comes in again", SOON, || async {
        world.client(0, 4).connect().await.is_ok()
    })
    .await;

    let client = world.connect(1, 1).await;
    listed(&world, client.sid()).await;
    assert_eq!(
        get(&world, "sessions?user=p1").await.1["sessions"][0]["socket"],
        client.sid()
    );
    let (_, kicked) = request(near, "POST", "sessions/kick", "admin", json!({"platformid": "p1"})).await;
    assert_eq!((&kicked["target"], &kicked["sockets"]), (&json!("user:p1"), &json!(1)));
    cut_soon(&[client]).await;
    let client = world.connect(1, 1).await;
    request(
        near,
        "POST",
        "revoke",
        "admin",
        json!({"platformid": "p1", "by": "lee"}),
    )
    .await;
    cut_soon(&[client]).await;
    let (_, audit) = get(&world, "audit?limit=2").await;
    let acts: Vec<_> = audit["audit"]
        .as_array()
        .unwrap()
        .iter()
        .map(|act| [&act["act"], &act["actor"]])
        .collect();
    assert_eq!(json!(acts), json!([["revoke", "lee"], ["kick", "admin"]]));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admin_api_is_closed_without_the_token_and_names_mistakes() {
    let world = World::start(1).await;
    let node = world.nodes[0].ops_address;
    let routes = [
        ("GET", "bans"),
        ("POST", "bans"),
        ("GET", "bans/user%3Ap1"),
        ("DELETE", "bans/user%3Ap1"),
        ("GET", "sessions"),
        ("POST", "sessions/kick"),
        ("POST", "revoke"),
        ("GET", "audit"),
        ("GET", "nowhere"),
    ];
    for (method, path) in routes {
        for token in ["", "admin2", "Admin"] {
            let (status, body) = request(node, method, path, token, json!({})).await;
            assert_eq!(
                (status, &body["code"]),
                (401, &json!("unauthorized")),
                "{method} {path}"
            );
        }
    }
    for (method, path, body, status) in [
        ("GET", "bans?kind=room", Value::Null, 400),
        ("GET", "bans?ip=x", Value::Null, 400),
        ("GET", "bans/p1", Value::Null, 400),
        ("GET", "sessions?limit=0", Value::Null, 400),
        ("GET", "sessions?limit=10001", Value::Null, 400),
        ("POST", "bans", json!({"scope": "user:p1", "for": "60"}), 400),
        ("POST", "bans", json!({"scope": "user:p1", "until": 1}), 400),
        (
            "POST",
            "bans",
            json!({"scope": "user:p1", "reason": "x".repeat(20_000)}),
            413,
        ),
        ("POST", "revoke", json!({"sid": "s", "platformid": "p"}), 400),
        ("POST", "sessions/kick", json!({}), 400),
        ("PUT", "bans", json!({}), 405),
        ("GET", "nowhere", Value::Null, 404),
    ] {
        let (answered, error) = request(node, method, path, "admin", body).await;
        assert_eq!(answered, status, "{method} {path}: {error}");
        assert!(error["code"].is_string() && error["message"].is_string(), "{error}");
    }
    assert_eq!(get(&world, "bans").await.1["total"], 0);

    let mut config = world.config();
    config.admin_token = None;
    let closed = Node::start(config).await.unwrap();
    closed.ready().await.unwrap();
    for (method, path) in routes {
        let (status, _) = request(closed.ops_address, method, path, "admin", json!({})).await;
        assert_eq!(status, 404, "{method} {path}");
    }
    closed.stop().await;
}
