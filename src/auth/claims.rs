//! What a signed token must say to name a user.

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, Validation};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::model::{Identity, UnixMs, UserId, unix_ms};

use super::key::PinnedKey;
use super::{InvalidToken, VerifyError};

/// The claims asked for, by the names of the settings.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    platformid: String,
    username: String,
    sid: String,
    leeway_seconds: u64,
    issuer: Option<String>,
    audience: Option<String>,
}

impl Rules {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            platformid: config.jwt_claim_platformid.clone(),
            username: config.jwt_claim_username.clone(),
            sid: config.jwt_claim_sid.clone(),
            leeway_seconds: config.jwt_leeway.as_secs(),
            issuer: config.jwt_issuer.clone(),
            audience: config.jwt_audience.clone(),
        }
    }

    /// The checks of the registered claims under one algorithm, made once per key.
    pub(super) fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp"];
        validation.leeway = self.leeway_seconds;
        validation.validate_nbf = true;
        // The library checks these only where a token has them: a token without must not slip through.
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.validate_aud = self.audience.is_some();
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// Checks signature and claims with the one algorithm the key is pinned to.
    pub(super) fn verify(&self, token: &str, key: &PinnedKey) -> Result<Identity, VerifyError> {
        let token = jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &key.validation)
            .map_err(|error| explain(&error))?;
        // RFC 7515: a token that says "understand this or refuse" is refused, since nothing is understood here.
        if token.header.crit.is_some() {
            return Err(InvalidToken::Malformed.into());
        }
        let identity = self.identity(&token.claims).ok_or(InvalidToken::Claims)?;
        // The library grants the whole second of `exp`. A token must not be taken that is cut for its age at once.
        if identity.expires_at.is_some_and(|end| end <= unix_ms()) {
            return Err(InvalidToken::Expired.into());
        }
        Ok(identity)
    }

    fn identity(&self, claims: &Map<String, Value>) -> Option<Identity> {
        let session = match claims.get(&self.sid) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            // It becomes part of key names, so it obeys the same rules as a user's id.
            Some(value) => Some(UserId::new(&text_of(value)?).ok()?.as_str().to_owned()),
        };
        let username = claims.get(&self.username)?.as_str()?;
        if username.is_empty() {
            return None;
        }
        let exp = claims.get("exp")?;
        let exp = exp
            .as_u64()
            .or_else(|| exp.as_f64().map(|seconds| seconds.round() as u64))?;
        Some(Identity {
            user: UserId::new(&text_of(claims.get(&self.platformid)?)?).ok()?,
            username: username.to_owned(),
            session,
            issued_at: claims.get("iat").and_then(Value::as_f64).and_then(unix_ms_of),
            expires_at: Some(exp.saturating_add(self.leeway_seconds).saturating_mul(1000)),
        })
    }
}

/// A time in seconds, whole or fractional; what is none says nothing.
fn unix_ms_of(seconds: f64) -> Option<UnixMs> {
    (seconds.is_finite() && seconds >= 0.0).then_some((seconds * 1000.0) as UnixMs)
}

/// Text, or a whole number as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

/// What a failed check of the library means.
pub(super) fn explain(error: &Error) -> VerifyError {
    match error.kind() {
        ErrorKind::ExpiredSignature => InvalidToken::Expired,
        ErrorKind::ImmatureSignature => InvalidToken::NotYetValid,
        ErrorKind::InvalidSignature => InvalidToken::BadSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            InvalidToken::Algorithm
        }
        ErrorKind::MissingRequiredClaim(name) => match name.as_str() {
            "iss" => InvalidToken::Issuer,
            "aud" => InvalidToken::Audience,
            _ => InvalidToken::Claims,
        },
        ErrorKind::InvalidClaimFormat(_) => InvalidToken::Claims,
        ErrorKind::InvalidIssuer => InvalidToken::Issuer,
        ErrorKind::InvalidAudience => InvalidToken::Audience,
        // Our key is at fault, not the token.
        ErrorKind::InvalidKeyFormat
        | ErrorKind::InvalidRsaKey(_)
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::Provider(_) => return VerifyError::Unavailable("the verification key cannot be used".to_owned()),
        _ => InvalidToken::Malformed,
    }
    .into()
}
