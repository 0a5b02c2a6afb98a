//! Key sets: selection, rotation, outages.

use std::time::Duration;

use crate::auth::jwks::Pace;
use crate::upstream::testing::{NOWHERE, Scripted};

use super::*;

const QUICK: Pace = Pace {
    renew: Duration::from_millis(300),
    floor: Duration::from_millis(50),
    empty_floor: Duration::from_millis(10),
    keep: Duration::from_secs(60),
};

/// A public key of `tests/fixtures/jwks.json` with more members.
fn jwk(name: &str, members: Value) -> Value {
    let all: Value = serde_json::from_str(fixture!("jwks.json")).unwrap();
    let mut key = all[name].clone();
    for (member, value) in members.as_object().unwrap() {
        key[member] = value.clone();
    }
    key
}

fn set(keys: &[Value]) -> Value {
    json!({ "keys": keys })
}

fn token(algorithm: Algorithm, kid: Option<&str>) -> String {
    sign_with(&signing_key(algorithm), algorithm, kid, &claims(json!({})))
}

fn rsa2_token(kid: &str) -> String {
    let key = EncodingKey::from_rsa_pem(fixture!("rsa2.key.pem").as_bytes()).unwrap();
    sign_with(&key, Algorithm::RS256, Some(kid), &claims(json!({})))
}

fn quick(service: &Scripted, pace: Pace) -> Auth {
    let config = config(&[("JWKS_URL", &service.url), ("UPSTREAM_TIMEOUT", "500ms")]);
    let upstream = Arc::new(Upstream::new(&config).unwrap());
    let jwks = Jwks::with_pace(&service.url, Rules::new(&config), upstream.clone(), pace);
    Auth {
        upstream,
        verifier: Verifier::Jwks(Arc::new(jwks)),
        leeway_ms: 60_000,
        verify_every: Duration::from_secs(60),
    }
}

async fn is_unavailable(auth: &Auth, token: &str) -> bool {
    matches!(auth.verify(token).await, Err(VerifyError::Unavailable(_)))
}

#[tokio::test]
async fn each_key_of_a_set_verifies_its_own_algorithm() {
    let service = Scripted::start(
        200,
        set(&[
            jwk("rsa", json!({"kid": "r", "use": "sig"})),
            jwk("rsa", json!({"kid": "p", "alg": "PS256"})),
            jwk("p256", json!({"kid": "e", "alg": "ES256"})),
            jwk("p384", json!({"kid": "f"})),
            jwk("ed25519", json!({"kid": "d", "alg": "Ed25519", "key_ops": ["verify"]})),
            jwk("rsa2", json!({"kid": "enc", "use": "enc"})),
            json!({"kty": "oct", "kid": "o", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-521", "kid": "z", "x": "AA", "y": "AA"}),
            json!({"kty": "RSA", "kid": "tiny", "n": "AQAB", "e": "AQAB"}),
            json!("garbage"),
        ]),
    )
    .await;
    let auth = auth(&[("JWKS_URL", &service.url)]);
    for (algorithm, kid) in [
        (Algorithm::RS256, "r"),
        (Algorithm::PS256, "p"),
        (Algorithm::ES256, "e"),
        (Algorithm::ES384, "f"),
        (Algorithm::EdDSA, "d"),
    ] {
        auth.verify(&token(algorithm, Some(kid))).await.unwrap();
        auth.verify(&token(algorithm, None)).await.unwrap();
    }
    assert_eq!(service.asked().len(), 1, "one fetch serves all");
    for (algorithm, kid) in [
        (Algorithm::PS256, "r"),
        (Algorithm::RS256, "p"),
        (Algorithm::RS512, "r"),
        (Algorithm::HS256, "r"),
        (Algorithm::ES384, "e"),
    ] {
        assert_eq!(
            reason(&auth, &token(algorithm, Some(kid))).await,
            InvalidToken::Algorithm
        );
    }
    for kid in ["enc", "o", "z", "tiny", "none such"] {
        assert_eq!(reason(&auth, &rsa2_token(kid)).await, InvalidToken::UnknownKey, "{kid}");
    }
    assert_eq!(reason(&auth, &rsa2_token("r")).await, InvalidToken::BadSignature);
}

#[tokio::test]
async fn a_token_without_a_key_name_needs_a_single_fitting_key() {
    let service = Scripted::start(
        200,
        set(&[
            jwk("rsa", json!({"kid": "a"})),
            jwk("rsa2", json!({"kid": "b"})),
            jwk("p256", json!({})),
        ]),
    )
    .await;
    let auth = auth(&[("JWKS_URL", &service.url)]);
    assert_eq!(
        reason(&auth, &token(Algorithm::RS256, None)).await,
        InvalidToken::UnknownKey
    );
    auth.verify(&token(Algorithm::ES256, None)).await.unwrap();
    assert_eq!(
        reason(&auth, &token(Algorithm::EdDSA, None)).await,
        InvalidToken::UnknownKey
    );
}

#[tokio::test]
async fn a_rotated_key_is_fetched_at_once_but_guesses_do_not_storm() {
    let service = Scripted::start(200, set(&[jwk("rsa", json!({"kid": "old"}))])).await;
    let pace = Pace {
        floor: Duration::from_millis(400),
        renew: Duration::from_secs(60),
        ..QUICK
    };
    let auth = Arc::new(quick(&service, pace));
    auth.verify(&token(Algorithm::RS256, Some("old"))).await.unwrap();
    tokio::time::sleep(pace.floor).await;
    service.answer(
        200,
        set(&[jwk("rsa", json!({"kid": "old"})), jwk("rsa2", json!({"kid": "new"}))]),
    );
    let verified = futures::future::join_all((0..50).map(|_| {
        let auth = auth.clone();
        tokio::spawn(async move { auth.verify(&rsa2_token("new")).await.map(|identity| identity.user) })
    }))
    .await;
    assert!(verified.iter().all(|result| result.as_ref().unwrap().is_ok()));
    assert_eq!(service.asked().len(), 2, "one fetch for all who waited");
    for kid in ["x", "y", "z"] {
        assert_eq!(reason(&auth, &rsa2_token(kid)).await, InvalidToken::UnknownKey);
    }
    assert_eq!(service.asked().len(), 2, "guessed names must wait for the floor");
}

#[tokio::test]
async fn keys_that_were_withdrawn_end_with_the_renewal_in_the_background() {
    let service = Scripted::start(200, set(&[jwk("rsa", json!({"kid": "old"}))])).await;
    let auth = quick(&service, QUICK);
    let old = token(Algorithm::RS256, Some("old"));
    auth.verify(&old).await.unwrap();
    service.answer(200, set(&[jwk("rsa2", json!({"kid": "new"}))]));
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    while auth.verify(&old).await.is_ok() {
        assert!(std::time::Instant::now() < deadline, "the key was never renewed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(reason(&auth, &old).await, InvalidToken::UnknownKey);
    auth.verify(&rsa2_token("new")).await.unwrap();
}

#[tokio::test]
async fn an_outage_of_the_key_set_keeps_known_keys_and_judges_no_unknown_one() {
    let service = Scripted::start(200, set(&[jwk("rsa", json!({"kid": "old"}))])).await;
    let auth = quick(&service, QUICK);
    let old = token(Algorithm::RS256, Some("old"));
    auth.verify(&old).await.unwrap();
    for (status, body) in [
        (500, json!({})),
        (200, json!({"keys": []})),
        (200, json!("x")),
        (302, json!({})),
        (200, set(&[jwk("rsa", json!({"kid": "old", "use": "enc"}))])),
    ] {
        service.answer(status, &body);
        tokio::time::sleep(QUICK.floor * 2).await;
        assert!(is_unavailable(&auth, &rsa2_token("new")).await, "{status} {body}");
        assert!(is_unavailable(&auth, &rsa2_token("new")).await, "within the floor too");
        tokio::time::sleep(QUICK.renew).await;
        auth.verify(&old).await.unwrap();
    }
    service.answer(200, set(&[jwk("rsa2", json!({"kid": "new"}))]));
    tokio::time::sleep(QUICK.floor * 2).await;
    auth.verify(&rsa2_token("new")).await.unwrap();
}

#[tokio::test]
async fn a_key_set_never_fetched_or_too_old_is_an_outage() {
    let away = auth(&[("JWKS_URL", NOWHERE)]);
    let good = token(Algorithm::RS256, Some("old"));
    assert!(is_unavailable(&away, &good).await);
    assert_eq!(reason(&away, "no.token.here").await, InvalidToken::Malformed);

    let service = Scripted::start(200, set(&[jwk("rsa", json!({"kid": "old"}))])).await;
    let pace = Pace {
        keep: Duration::from_millis(300),
        ..QUICK
    };
    let auth = quick(&service, pace);
    auth.verify(&good).await.unwrap();
    service.answer(503, "");
    tokio::time::sleep(pace.keep).await;
    assert!(is_unavailable(&auth, &good).await);
    service.answer(200, set(&[jwk("rsa", json!({"kid": "old"}))]));
    tokio::time::sleep(pace.empty_floor * 2).await;
    auth.verify(&good).await.unwrap();
}

#[tokio::test]
async fn an_abandoned_fetch_counts_as_failed_and_does_not_lift_the_floor() {
    let router = axum::Router::new().fallback(|| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
    let url = crate::upstream::testing::serve(router).await;
    let auth = auth(&[("JWKS_URL", &url), ("UPSTREAM_TIMEOUT", "20s")]);
    let good = token(Algorithm::RS256, Some("old"));
    let abandoned = tokio::time::timeout(Duration::from_millis(100), auth.verify(&good)).await;
    assert!(abandoned.is_err());
    let next = tokio::time::timeout(Duration::from_millis(500), is_unavailable(&auth, &good)).await;
    assert_eq!(next, Ok(true), "another fetch was started at once");
}
