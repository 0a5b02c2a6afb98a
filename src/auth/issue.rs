//! Access tokens for tests, demos and load generators; in production the auth service issues them.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::model::{Identity, unix_ms};

/// Why no token was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// There is no secret to sign with.
    #[error("JWT_SECRET is not set; tokens can only be signed with it")]
    NoSecret,
    /// The crypto library failed.
    #[error("the token cannot be signed")]
    Signing,
}

impl IssueError {
    /// The code of this error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSecret => "bad_configuration",
            Self::Signing => "internal",
        }
    }

    /// Always false: nothing changes by itself.
    pub fn retryable(&self) -> bool {
        false
    }
}

/// Signs an access token (HS256) of `identity` that ends after `ttl`, with the default claim names.
pub fn issue_token(secret: &str, identity: &Identity, ttl: Duration) -> Result<String, IssueError> {
    let mut claims = Map::new();
    fill(&mut claims, ["platformid", "username", "sid"], identity);
    sign(secret, claims, ttl)
}

/// The same with the secret, claim names, issuer and audience of the settings: a node of these settings accepts it.
pub fn issue_token_with(config: &Config, identity: &Identity, ttl: Duration) -> Result<String, IssueError> {
    let secret = config.jwt_secret.as_ref().ok_or(IssueError::NoSecret)?;
    let names = [
        config.jwt_claim_platformid.as_str(),
        &config.jwt_claim_username,
        &config.jwt_claim_sid,
    ];
    let mut claims = Map::new();
    fill(&mut claims, names, identity);
    for (name, value) in [("iss", &config.jwt_issuer), ("aud", &config.jwt_audience)] {
        if let Some(value) = value {
            claims.insert(name.to_owned(), json!(value));
        }
    }
    sign(secret.expose(), claims, ttl)
}

fn fill(claims: &mut Map<String, Value>, [platformid, username, sid]: [&str; 3], identity: &Identity) {
    claims.insert(platformid.to_owned(), json!(identity.user));
    claims.insert(username.to_owned(), json!(identity.username));
    if let Some(session) = &identity.session {
        claims.insert(sid.to_owned(), json!(session));
    }
}

fn sign(secret: &str, mut claims: Map<String, Value>, ttl: Duration) -> Result<String, IssueError> {
    let now = unix_ms() / 1000;
    claims.insert("iat".to_owned(), json!(now));
    claims.insert("exp".to_owned(), json!(now.saturating_add(ttl.as_secs())));
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).map_err(|_| IssueError::Signing)
}
