//! Access tokens (JWT), refresh tokens (opaque) and passwords.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::error::BackendError;
use super::store::Account;

/// Argon2 takes 19 MiB and a core for tens of milliseconds; more at once would only slow everything down.
const HASHES_AT_ONCE: usize = 2;

/// What an access token says. Times are Unix seconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    pub platformid: String,
    pub username: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    pub exp: u64,
}

/// Why an access token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    Expired,
    Other,
}

/// Signs and checks access tokens, hashes passwords.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
    access_ttl: Duration,
    hashing: Semaphore,
}

impl Tokens {
    /// Tokens signed with one HS256 secret.
    pub fn new(secret: &str, access_ttl: Duration) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.validate_aud = false;
        Self {
            encoding: EncodingKey::from_secret(secret.as_bytes()),
            decoding: DecodingKey::from_secret(secret.as_bytes()),
            validation,
            access_ttl,
            hashing: Semaphore::new(HASHES_AT_ONCE),
        }
    }

    /// A signed access token of a session.
    pub fn issue(&self, account: &Account, sid: &str) -> Result<String, BackendError> {
        let iat = now_ms().unsigned_abs() / 1000;
        let claims = Claims {
            platformid: account.platformid.clone(),
            username: account.username.clone(),
            sid: Some(sid.to_owned()),
            iat: Some(iat),
            exp: iat + self.access_ttl.as_secs(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| BackendError::Internal(error.to_string()))
    }

    /// Checks signature and expiry, without leeway: here the clock that issued is the clock that checks.
    pub fn check(&self, token: &str) -> Result<Claims, Invalid> {
        match jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation) {
            Ok(data) => Ok(data.claims),
            Err(error) if matches!(error.kind(), ErrorKind::ExpiredSignature) => Err(Invalid::Expired),
            Err(_) => Err(Invalid::Other),
        }
    }

    /// Hashes a password for storage.
    pub async fn hash_password(&self, password: &str) -> Result<String, BackendError> {
        let password = password.to_owned();
        let mut salt = [0_u8; 16];
        rand::rng().fill_bytes(&mut salt);
        self.hashing(move || {
            let salt = SaltString::encode_b64(&salt).map_err(|error| error.to_string())?;
            let hash = Argon2::default().hash_password(password.as_bytes(), &salt);
            hash.map(|hash| hash.to_string()).map_err(|error| error.to_string())
        })
        .await?
        .map_err(BackendError::Internal)
    }

    /// Compares a password with a stored hash. Without a hash it is false after as much work, so that
    /// the time taken does not tell who exists.
    pub async fn password_matches(&self, password: &str, hash: Option<&str>) -> Result<bool, BackendError> {
        let (password, hash) = (password.to_owned(), hash.map(str::to_owned));
        self.hashing(move || match hash.as_deref().map(PasswordHash::new) {
            Some(Ok(hash)) => Argon2::default().verify_password(password.as_bytes(), &hash).is_ok(),
            _ => {
                let mut wasted = [0_u8; 32];
                let _same_work = Argon2::default().hash_password_into(password.as_bytes(), &[0; 16], &mut wasted);
                false
            }
        })
        .await
    }

    async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, BackendError> {
        let _permit = self
            .hashing
            .acquire()
            .await
            .map_err(|error| BackendError::Internal(error.to_string()))?;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| BackendError::Internal(error.to_string()))
    }
}

/// A new opaque token of 256 random bits.
pub fn random_token() -> String {
    let mut bytes = [0_u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The form a refresh token is stored in. It has 256 random bits, so a plain digest cannot be searched.
pub fn digest(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token.as_bytes()))
}

/// Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
