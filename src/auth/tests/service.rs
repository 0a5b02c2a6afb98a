//! The auth service as verifier and as the one who exchanges tokens.

use crate::upstream::testing::{NOWHERE, Scripted};

use super::*;

fn answer(access_token: &str, platformid: &str) -> Value {
    json!({"accessToken": access_token, "user": {"platformid": platformid, "username": "Anna"}, "refreshToken": "next"})
}

#[tokio::test]
async fn the_service_verifies_in_http_mode() {
    let service = Scripted::start(
        200,
        json!({"valid": true, "user": {"platformid": "p1", "username": "Anna", "sid": "s"}, "exp": seconds(100), "iat": 1_700_000_000}),
    )
    .await;
    let auth = auth(&[("AUTH_MODE", "http"), ("AUTH_URL", &service.url)]);
    let identity = auth.verify("opaque").await.unwrap();
    assert_eq!(identity.user, anna().user);
    assert_eq!(identity.session.as_deref(), Some("s"));
    assert!(identity.expires_at.unwrap() > unix_ms() + 100_000);
    assert_eq!(identity.issued_at, Some(1_700_000_000_000));
    assert_eq!(auth.ask_again_after(&identity), None);
    service.answer(
        200,
        json!({"valid": true, "user": {"platformid": "p1", "username": "Anna"}}),
    );
    let endless = auth.verify("opaque").await.unwrap();
    assert_eq!(endless, anna());
    assert_eq!(auth.ask_again_after(&endless), Some(Duration::from_secs(60)));
    service.answer(401, "");
    assert_eq!(reason(&auth, "opaque").await, InvalidToken::Expired);
    service.answer(403, "");
    assert_eq!(reason(&auth, "opaque").await, InvalidToken::Refused);
    let asked = service.asked().len();
    assert_eq!(reason(&auth, &"x".repeat(9000)).await, InvalidToken::TooLong);
    assert_eq!(service.asked().len(), asked);
    for (status, body) in [(500, ""), (200, "{}"), (404, ""), (302, "")] {
        service.answer(status, body);
        let error = auth.verify("opaque").await.unwrap_err();
        assert!(
            matches!(error, VerifyError::Unavailable(_)) && error.retryable(),
            "{error}"
        );
    }
    assert_eq!(auth.verify("opaque").await.unwrap_err().code(), "auth_unavailable");
}

#[tokio::test]
async fn a_refresh_gives_the_identity_of_the_new_token() {
    let token = sign(Algorithm::HS256, &claims(json!({"sid": "s-9"})));
    let service = Scripted::start(200, answer(&token, "p1")).await;
    let auth = auth(&[("JWT_SECRET", SECRET), ("AUTH_URL", &service.url)]);
    let refreshed = auth.refresh("old", true).await.unwrap();
    assert_eq!(refreshed.access_token, token);
    assert_eq!(refreshed.refresh_token.as_deref(), Some("next"));
    assert_eq!(refreshed.identity.session.as_deref(), Some("s-9"));
    assert!(refreshed.identity.expires_at.is_some());
    let shown = format!("{refreshed:?}");
    assert!(!shown.contains(&token) && !shown.contains("next"), "{shown}");
    assert_eq!(service.last().body, r#"{"refreshToken":"old","rotate":true}"#);
}

#[tokio::test]
async fn only_the_service_refuses_a_refresh_token() {
    let service = Scripted::start(401, "").await;
    let auth = auth(&[("JWT_SECRET", SECRET), ("AUTH_URL", &service.url)]);
    for status in [400, 401, 403] {
        service.answer(status, "");
        assert_eq!(auth.refresh("old", false).await, Err(RefreshError::Refused));
    }
    let good = sign(Algorithm::HS256, &claims(json!({})));
    let expired = sign(Algorithm::HS256, &claims(json!({"exp": seconds(-1000)})));
    let foreign = sign_with(
        &EncodingKey::from_secret(b"x"),
        Algorithm::HS256,
        None,
        &claims(json!({})),
    );
    for (status, body) in [
        (200, answer(&good, "p2")),
        (200, answer(&expired, "p1")),
        (200, answer(&foreign, "p1")),
        (200, answer("", "p1")),
        (200, json!({"accessToken": good})),
        (404, json!({})),
        (500, json!({})),
        (302, json!({})),
    ] {
        service.answer(status, &body);
        let error = auth.refresh("old", false).await.unwrap_err();
        assert!(matches!(error, RefreshError::Unavailable(_)), "{body}: {error}");
        assert!(error.retryable() && error.code() == "auth_unavailable" && !error.to_string().contains(&good));
    }
    assert_eq!(auth.refresh(&"x".repeat(9000), false).await, Err(RefreshError::Refused));
    let away = super::auth(&[("JWT_SECRET", SECRET), ("AUTH_URL", NOWHERE)]);
    assert!(matches!(
        away.refresh("old", false).await,
        Err(RefreshError::Unavailable(_))
    ));
}
