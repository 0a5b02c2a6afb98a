//! Logging in and out, verifying and refreshing.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::support::{Database, Server, config};

async fn refresh(server: &Server, token: &Value, rotate: bool) -> (u16, Value) {
    server
        .post("/refresh-token", json!({ "refreshToken": token, "rotate": rotate }))
        .await
}

async fn refresh_refused(server: &Server, token: &Value, rotate: bool, code: &str) {
    server
        .refused(
            "/refresh-token",
            json!({ "refreshToken": token, "rotate": rotate }),
            401,
            code,
        )
        .await;
}

fn signed(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn open_login_knows_seeded_users_and_creates_others() {
    let (server, _database) = Server::seeded().await;
    let seeded = server.login("USER3").await;
    assert_eq!(seeded["user"], json!({ "platformid": "p3", "username": "user3" }));
    let created = server.login("Kim").await;
    assert_eq!(created["user"], json!({ "platformid": "p-kim", "username": "Kim" }));
    assert_eq!(server.login("kim").await["user"], created["user"]);
    let verified = server
        .ok("/verify-access-token", json!({ "token": created["accessToken"] }))
        .await;
    assert_eq!(verified["valid"], true);
    assert_eq!(verified["user"]["platformid"], "p-kim");
    assert_eq!(verified["user"]["username"], "Kim");
    assert!(verified["exp"].as_u64().is_some());
}

#[tokio::test]
async fn login_names_the_users_rooms_and_open_login_welcomes_into_some() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.welcome_rooms = vec!["lounge".to_owned()];
    let server = Server::start(config.clone()).await;
    for _again in 0..2 {
        assert_eq!(server.login("Kim").await["rooms"], json!(["lounge"]));
        assert_eq!(server.login("user4").await["rooms"], json!(["lounge", "room-1"]));
    }
    let room = server.ok("/api/rooms/check-room", json!({ "roomID": "lounge" })).await;
    assert_eq!(room["participants"].as_array().map(Vec::len), Some(2));

    config.open_login = false;
    let closed = Server::start(config).await;
    closed.backend.add_user("Ada", "correct horse").await.unwrap();
    let login = closed
        .ok("/login", json!({ "username": "ada", "password": "correct horse" }))
        .await;
    assert_eq!(login["rooms"], json!([]));
}

#[tokio::test]
async fn closed_login_wants_the_password() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.open_login = false;
    let server = Server::start(config).await;
    assert_eq!(server.backend.add_user("Ada", "correct horse").await.unwrap(), "p-ada");
    let right = server
        .ok("/login", json!({ "username": "ada", "password": "correct horse" }))
        .await;
    assert_eq!(right["user"]["platformid"], "p-ada");
    for body in [
        json!({ "username": "ada" }),
        json!({ "username": "ada", "password": "wrong" }),
        json!({ "username": "user0" }),
        json!({ "username": "user0", "password": "" }),
        json!({ "username": "nobody", "password": "correct horse" }),
    ] {
        server.refused("/login", body, 401, "invalid_credentials").await;
    }
}

#[tokio::test]
async fn open_login_still_refuses_a_wrong_password() {
    let (server, _database) = Server::seeded().await;
    server.backend.add_user("user1", "secret").await.unwrap();
    server
        .refused(
            "/login",
            json!({ "username": "user1", "password": "wrong" }),
            401,
            "invalid_credentials",
        )
        .await;
    assert_eq!(server.login("user1").await["user"]["platformid"], "p1");
}

#[tokio::test]
async fn malformed_auth_bodies_are_refused_by_field() {
    let (server, _database) = Server::seeded().await;
    for (path, body, field) in [
        ("/login", json!({}), "username"),
        ("/login", json!({ "username": 5 }), "username"),
        ("/login", json!({ "username": "" }), "username"),
        ("/login", json!({ "username": " a" }), "username"),
        ("/login", json!({ "username": "a{b}" }), "username"),
        ("/login", json!({ "username": "a\u{0}" }), "username"),
        ("/login", json!({ "username": "a".repeat(129) }), "username"),
        (
            "/login",
            json!({ "username": "a", "password": "x".repeat(2000) }),
            "password",
        ),
        ("/logout", json!({}), "refreshToken"),
        ("/verify-access-token", json!({}), "token"),
        ("/verify-access-token", json!({ "token": null }), "token"),
        ("/refresh-token", json!({ "rotate": true }), "refreshToken"),
        (
            "/refresh-token",
            json!({ "refreshToken": "x", "rotate": "yes" }),
            "rotate",
        ),
        ("/refresh-token", json!([]), "body"),
    ] {
        assert_eq!(
            server.refused(path, body, 400, "bad_request").await.as_deref(),
            Some(field),
            "{path}"
        );
    }
}

#[tokio::test]
async fn access_tokens_are_judged_by_signature_then_expiry() {
    let (server, _database) = Server::seeded().await;
    let secret = "a secret for tests, 32 bytes long";
    let claims = |exp: u64| json!({ "platformid": "p1", "username": "user1", "exp": exp });
    let own = signed(&claims(4_000_000_000), secret);
    assert_eq!(
        server.ok("/verify-access-token", json!({ "token": own })).await["valid"],
        true
    );
    let expired = signed(&claims(1_000_000_000), secret);
    server
        .refused("/verify-access-token", json!({ "token": expired }), 401, "expired")
        .await;
    for token in [
        signed(&claims(4_000_000_000), "another secret"),
        signed(&claims(1_000_000_000), "another secret"),
        signed(&json!({ "platformid": "p1", "username": "user1" }), secret),
        signed(&json!({ "exp": 4_000_000_000_u64 }), secret),
        // {"alg":"none"} with the claims of user1
        "eyJhbGciOiJub25lIn0.eyJwbGF0Zm9ybWlkIjoicDEiLCJ1c2VybmFtZSI6InVzZXIxIiwiZXhwIjo0MDAwMDAwMDAwfQ.".to_owned(),
        "garbage".to_owned(),
        String::new(),
    ] {
        assert_eq!(
            server.ok("/verify-access-token", json!({ "token": token })).await["valid"],
            false,
            "{token}"
        );
    }
}

#[tokio::test]
async fn legacy_clients_keep_their_refresh_token() {
    let (server, _database) = Server::seeded().await;
    let login = server.login("user2").await;
    for _ in 0..3 {
        let body = json!({ "refreshToken": login["refreshToken"] });
        let answer = server.ok("/refresh-token", body).await;
        assert_eq!(answer["user"], json!({ "platformid": "p2", "username": "user2" }));
        assert_eq!(answer.get("refreshToken"), None);
        assert_eq!(
            server
                .ok("/verify-access-token", json!({ "token": answer["accessToken"] }))
                .await["valid"],
            true
        );
    }
    refresh_refused(&server, &json!("unknown"), false, "invalid_token").await;
}

#[tokio::test]
async fn the_direct_predecessor_works_within_the_grace() {
    let (server, _database) = Server::seeded().await;
    let first = server.login("user2").await["refreshToken"].clone();
    let (status, second) = refresh(&server, &first, true).await;
    assert_eq!(status, 200);
    assert_ne!(second["refreshToken"], first);
    // The answer got lost: the client asks again with what it has, and gets another successor.
    let (status, third) = refresh(&server, &first, true).await;
    assert_eq!(status, 200);
    assert_ne!(third["refreshToken"], second["refreshToken"]);
    for token in [&first, &second["refreshToken"], &third["refreshToken"]] {
        assert_eq!(refresh(&server, token, false).await.0, 200);
    }
}

#[tokio::test]
async fn a_token_two_generations_old_ends_the_family() {
    let (server, _database) = Server::seeded().await;
    let login = server.login("user2").await;
    let other = server.login("user2").await;
    let first = login["refreshToken"].clone();
    let second = refresh(&server, &first, true).await.1["refreshToken"].clone();
    let third = refresh(&server, &second, true).await.1;
    refresh_refused(&server, &first, false, "reused").await;
    for token in [&first, &second, &third["refreshToken"]] {
        refresh_refused(&server, token, true, "revoked").await;
    }
    let verified = server
        .ok("/verify-access-token", json!({ "token": third["accessToken"] }))
        .await;
    assert_eq!(verified, json!({ "valid": false, "error": "revoked" }));
    assert_eq!(
        refresh(&server, &other["refreshToken"], true).await.0,
        200,
        "another login is another family"
    );
}

#[tokio::test]
async fn reuse_after_the_grace_ends_the_family() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.refresh_grace = Duration::ZERO;
    let server = Server::start(config).await;
    let first = server.login("user2").await["refreshToken"].clone();
    let second = refresh(&server, &first, true).await.1["refreshToken"].clone();
    refresh_refused(&server, &first, true, "reused").await;
    refresh_refused(&server, &second, true, "revoked").await;
}

#[tokio::test]
async fn expired_refresh_tokens_are_refused() {
    let database = Database::new().await;
    let mut config = config(&database);
    config.refresh_ttl = Duration::ZERO;
    let server = Server::start(config).await;
    let token = server.login("user2").await["refreshToken"].clone();
    refresh_refused(&server, &token, false, "expired").await;
}

#[tokio::test]
async fn logout_ends_the_session_by_either_token() {
    let (server, _database) = Server::seeded().await;
    for name in ["refreshToken", "accessToken"] {
        let login = server.login("user2").await;
        let rotated = refresh(&server, &login["refreshToken"], true).await.1;
        assert_eq!(
            server.ok("/logout", json!({ name: login[name] })).await,
            json!({ "ok": true, "ended": true })
        );
        assert_eq!(
            server.ok("/logout", json!({ name: login[name] })).await,
            json!({ "ok": true, "ended": false })
        );
        refresh_refused(&server, &rotated["refreshToken"], false, "revoked").await;
        for token in [&login["accessToken"], &rotated["accessToken"]] {
            assert_eq!(
                server.ok("/verify-access-token", json!({ "token": token })).await["valid"],
                false
            );
        }
    }
    assert_eq!(
        server.ok("/logout", json!({ "refreshToken": "unknown" })).await["ended"],
        false
    );
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let (server, database) = Server::seeded().await;
    let login = server.login("Kim").await;
    server.stop().await;
    let server = Server::start(config(&database)).await;
    assert_eq!(
        refresh(&server, &login["refreshToken"], false).await.1["user"],
        login["user"]
    );
    server.stop().await;
}
