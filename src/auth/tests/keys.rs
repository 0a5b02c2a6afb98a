//! Local keys: claims, algorithms, forgeries.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

#[tokio::test]
async fn an_issued_token_comes_back_as_its_identity() {
    let auth = auth(&[("JWT_SECRET", SECRET)]);
    let someone = Identity {
        session: Some("s-1".to_owned()),
        ..anna()
    };
    let token = issue_token(SECRET, &someone, Duration::from_secs(600)).unwrap();
    let identity = auth.verify(&token).await.unwrap();
    assert_eq!(identity.user, someone.user);
    assert_eq!(identity.session.as_deref(), Some("s-1"));
    assert!(identity.issued_at.unwrap().abs_diff(unix_ms()) < 5000);
    let left = identity.expires_at.unwrap().saturating_sub(unix_ms());
    assert!(
        (655_000..=660_000).contains(&left),
        "600 s and the leeway of 60 s, not {left} ms"
    );
}

#[tokio::test]
async fn settings_rename_claims_and_demand_issuer_and_audience() {
    let pairs = [
        ("JWT_SECRET", SECRET),
        ("JWT_CLAIM_PLATFORMID", "sub"),
        ("JWT_CLAIM_USERNAME", "name"),
        ("JWT_ISSUER", "me"),
        ("JWT_AUDIENCE", "chat"),
    ];
    let auth = auth(&pairs);
    let token = issue_token_with(&config(&pairs), &anna(), Duration::from_secs(60)).unwrap();
    assert_eq!(auth.verify(&token).await.unwrap().user, anna().user);
    let base = json!({"sub": 5, "name": "A", "iss": "me", "aud": ["x", "chat"], "exp": seconds(60)});
    let with = |name: &str, value: Value| {
        let mut claims = base.clone();
        claims[name] = value;
        sign(Algorithm::HS256, &claims)
    };
    assert_eq!(auth.verify(&with("sub", json!(5))).await.unwrap().user.as_str(), "5");
    assert_eq!(reason(&auth, &with("iss", json!("you"))).await, InvalidToken::Issuer);
    assert_eq!(reason(&auth, &with("iss", Value::Null)).await, InvalidToken::Issuer);
    assert_eq!(
        reason(&auth, &with("aud", json!("other"))).await,
        InvalidToken::Audience
    );
    assert_eq!(reason(&auth, &with("aud", Value::Null)).await, InvalidToken::Audience);
    let without_secret = config(&[("AUTH_MODE", "http")]);
    assert_eq!(
        issue_token_with(&without_secret, &anna(), Duration::from_secs(1)),
        Err(IssueError::NoSecret)
    );
}

#[tokio::test]
async fn an_audience_nobody_configured_does_not_matter() {
    let auth = auth(&[("JWT_SECRET", SECRET)]);
    let token = sign(
        Algorithm::HS256,
        &claims(json!({"aud": "elsewhere", "iss": "x", "sid": 7})),
    );
    assert_eq!(auth.verify(&token).await.unwrap().session.as_deref(), Some("7"));
}

#[tokio::test]
async fn ends_and_beginnings_tolerate_the_leeway_only() {
    let auth = auth(&[("JWT_SECRET", SECRET)]);
    let late = auth
        .verify(&sign(Algorithm::HS256, &claims(json!({"exp": seconds(-50)}))))
        .await
        .unwrap();
    assert!(
        late.expires_at.unwrap() > unix_ms(),
        "a verified identity has not ended"
    );
    let expired = sign(Algorithm::HS256, &claims(json!({"exp": seconds(-65)})));
    assert_eq!(reason(&auth, &expired).await, InvalidToken::Expired);
    auth.verify(&sign(Algorithm::HS256, &claims(json!({"nbf": seconds(50)}))))
        .await
        .unwrap();
    let early = sign(Algorithm::HS256, &claims(json!({"nbf": seconds(90)})));
    assert_eq!(reason(&auth, &early).await, InvalidToken::NotYetValid);
    auth.verify(&sign(Algorithm::HS256, &claims(json!({"exp": 4_000_000_000.5}))))
        .await
        .unwrap();

    let strict = super::auth(&[("JWT_SECRET", SECRET), ("JWT_LEEWAY", "0s")]);
    let expired = sign(Algorithm::HS256, &claims(json!({"exp": seconds(-2)})));
    assert_eq!(reason(&strict, &expired).await, InvalidToken::Expired);
    assert!(try_auth(&[("JWT_SECRET", SECRET), ("JWT_LEEWAY", "2h")]).is_err());
}

#[tokio::test]
async fn missing_and_mistyped_claims_are_invalid() {
    let auth = auth(&[("JWT_SECRET", SECRET)]);
    for changes in [
        json!({"exp": null}),
        json!({"exp": "4000000000"}),
        json!({"exp": -5}),
        json!({"nbf": "soon"}),
        json!({"platformid": null}),
        json!({"platformid": ""}),
        json!({"platformid": "a{b}"}),
        json!({"platformid": 1.5}),
        json!({"platformid": ["p1"]}),
        json!({"username": null}),
        json!({"username": ""}),
        json!({"username": 5}),
        json!({"sid": {"a": 1}}),
        json!({"sid": "a}b"}),
    ] {
        let found = reason(&auth, &sign(Algorithm::HS256, &claims(changes.clone()))).await;
        assert_eq!(found, InvalidToken::Claims, "{changes}");
    }
    let number = sign(Algorithm::HS256, &claims(json!({"platformid": 42})));
    assert_eq!(auth.verify(&number).await.unwrap().user.as_str(), "42");
}

#[tokio::test]
async fn what_is_no_token_is_malformed_and_long_text_is_not_read() {
    let auth = auth(&[("JWT_SECRET", SECRET)]);
    let good = sign(Algorithm::HS256, &claims(json!({})));
    let padded = good.replace('.', "=.");
    for text in [
        "",
        ".",
        "..",
        "a.b.c",
        "null",
        &good[1..],
        &padded,
        &format!("{good}.x"),
        "ü.é.ñ",
    ] {
        assert_eq!(reason(&auth, text).await, InvalidToken::Malformed, "{text}");
    }
    assert_eq!(
        reason(&auth, &"x".repeat(MAX_TOKEN_BYTES + 1)).await,
        InvalidToken::TooLong
    );
    let signature_of_another = sign_with(
        &EncodingKey::from_secret(b"other"),
        Algorithm::HS256,
        None,
        &claims(json!({})),
    );
    assert_eq!(reason(&auth, &signature_of_another).await, InvalidToken::BadSignature);
    let header = Header {
        crit: Some(vec!["b64".to_owned()]),
        ..Header::default()
    };
    let critical = jsonwebtoken::encode(&header, &claims(json!({})), &signing_key(Algorithm::HS256)).unwrap();
    assert_eq!(reason(&auth, &critical).await, InvalidToken::Malformed);
}

#[tokio::test]
async fn a_public_key_verifies_its_one_algorithm() {
    let keys = [
        (fixture!("rsa.pub.pem"), Algorithm::RS256),
        (fixture!("rsa.pkcs1.pub.pem"), Algorithm::RS256),
        (fixture!("p256.pub.pem"), Algorithm::ES256),
        (fixture!("p384.pub.pem"), Algorithm::ES384),
        (fixture!("ed25519.pub.pem"), Algorithm::EdDSA),
    ];
    for (pem, algorithm) in keys {
        for text in [pem.to_owned(), pem.trim().replace('\n', "\\n")] {
            let auth = auth(&[("JWT_PUBLIC_KEY", &text)]);
            let identity = auth.verify(&sign(algorithm, &claims(json!({})))).await.unwrap();
            assert_eq!(identity.user, anna().user, "{algorithm:?}");
            for other in [
                Algorithm::HS256,
                Algorithm::RS256,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::ES256,
                Algorithm::ES384,
                Algorithm::EdDSA,
            ] {
                if other != algorithm {
                    let token = sign(other, &claims(json!({})));
                    assert_eq!(
                        reason(&auth, &token).await,
                        InvalidToken::Algorithm,
                        "{algorithm:?} {other:?}"
                    );
                }
            }
        }
    }
}

#[tokio::test]
async fn algorithms_cannot_be_confused() {
    let auth = auth(&[("JWT_PUBLIC_KEY", fixture!("rsa.pub.pem"))]);
    // HMAC with the public key as the secret: as text, trimmed, and as the bytes inside.
    let pem = fixture!("rsa.pub.pem");
    let inner: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(inner).unwrap();
    for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der] {
        let key = EncodingKey::from_secret(secret);
        let forged = sign_with(&key, Algorithm::HS256, None, &claims(json!({})));
        assert_eq!(reason(&auth, &forged).await, InvalidToken::Algorithm);
    }
    // No signature at all, in several spellings.
    let body = URL_SAFE_NO_PAD.encode(claims(json!({})).to_string());
    for algorithm in ["none", "None", "NONE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": algorithm, "typ": "JWT"}).to_string());
        for signature in ["", "AA"] {
            let found = reason(&auth, &format!("{header}.{body}.{signature}")).await;
            assert_eq!(found, InvalidToken::Malformed, "{algorithm}");
        }
    }
    // A genuine signature under a changed body.
    let genuine = sign(Algorithm::RS256, &claims(json!({})));
    let parts: Vec<&str> = genuine.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims(json!({"platformid": "admin"})).to_string());
    let forged = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(reason(&auth, &forged).await, InvalidToken::BadSignature);
    // A key brought along in the header is not used.
    let header = json!({"alg": "RS256", "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "jku": "http://evil"});
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    assert_eq!(
        reason(&auth, &format!("{header}.{other}.{}", parts[2])).await,
        InvalidToken::BadSignature
    );
}

#[test]
fn unusable_public_keys_are_errors_at_start_that_tell_the_cure() {
    for (pem, hint) in [
        (fixture!("rsa.key.pem"), "-pubout"),
        (fixture!("p256.key.pem"), "-pubout"),
        (fixture!("rsa1024.pub.pem"), "2048"),
        (fixture!("secp256k1.pub.pem"), "P-256"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "x509"),
        (
            "-----BEGIN PUBLIC KEY-----\n!!\n-----END PUBLIC KEY-----",
            "BEGIN PUBLIC KEY",
        ),
        ("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "P-256"),
        ("ssh-ed25519 AAAA", "BEGIN PUBLIC KEY"),
    ] {
        let error = try_auth(&[("JWT_PUBLIC_KEY", pem)]).err().unwrap().to_string();
        assert!(error.contains("JWT_PUBLIC_KEY") && error.contains(hint), "{error}");
    }
}
