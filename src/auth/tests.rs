//! Tokens of every kind against every kind of key, and services that misbehave.

mod jwks;
mod keys;
mod service;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::model::{UserId, unix_ms};
use crate::upstream::testing::config;

const SECRET: &str = "a-secret-of-thirty-two-characters";

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/", $name))
    };
}
use fixture;

fn auth(pairs: &[(&'static str, &str)]) -> Auth {
    try_auth(pairs).unwrap()
}

fn try_auth(pairs: &[(&'static str, &str)]) -> Result<Auth, ConfigError> {
    let config = config(pairs);
    Auth::new(&config, Arc::new(Upstream::new(&config).unwrap()))
}

/// The private key of `tests/fixtures` for an algorithm.
fn signing_key(algorithm: Algorithm) -> EncodingKey {
    match algorithm {
        Algorithm::HS256 => EncodingKey::from_secret(SECRET.as_bytes()),
        Algorithm::ES256 => EncodingKey::from_ec_pem(fixture!("p256.key.pem").as_bytes()).unwrap(),
        Algorithm::ES384 => EncodingKey::from_ec_pem(fixture!("p384.key.pem").as_bytes()).unwrap(),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(fixture!("ed25519.key.pem").as_bytes()).unwrap(),
        _ => EncodingKey::from_rsa_pem(fixture!("rsa.key.pem").as_bytes()).unwrap(),
    }
}

fn sign_with(key: &EncodingKey, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = Header {
        kid: kid.map(str::to_owned),
        ..Header::new(algorithm)
    };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}

fn sign(algorithm: Algorithm, claims: &Value) -> String {
    sign_with(&signing_key(algorithm), algorithm, None, claims)
}

fn seconds(offset: i64) -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap() + offset
}

/// The claims of Anna for another hour, with `changes` on top; null removes a claim.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"platformid": "p1", "username": "Anna", "exp": seconds(3600)});
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            _ => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}

async fn reason(auth: &Auth, token: &str) -> InvalidToken {
    match auth.verify(token).await {
        Err(VerifyError::Invalid(reason)) => reason,
        other => panic!("not invalid: {other:?}"),
    }
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
