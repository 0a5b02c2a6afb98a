//! A verification key with the one algorithm it is used for.

use std::fmt;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use crate::config::{Config, ConfigError};

use super::claims::Rules;
use super::pem;

/// A secret shorter than its hash can be guessed offline from any token (RFC 7518, 3.2), in bytes.
const GOOD_SECRET: usize = 32;

/// A key whose algorithm comes from the key itself, never from the header of a token.
///
/// That is what defeats `alg: none` and a token signed by HMAC with a public key as the secret.
pub(super) struct PinnedKey {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    pub(super) validation: Validation,
}

impl fmt::Debug for PinnedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedKey")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl PinnedKey {
    pub(super) fn new(kid: Option<String>, algorithm: Algorithm, key: DecodingKey, rules: &Rules) -> Self {
        Self {
            kid,
            algorithm,
            key,
            validation: rules.validation(algorithm),
        }
    }

    /// The key of `JWT_SECRET` or `JWT_PUBLIC_KEY`.
    pub(super) fn from_config(config: &Config, rules: &Rules) -> Result<Self, ConfigError> {
        let (algorithm, key) = match (&config.jwt_secret, &config.jwt_public_key) {
            (Some(secret), None) => {
                let secret = secret.expose().as_bytes();
                if secret.len() < GOOD_SECRET {
                    tracing::warn!("JWT_SECRET is shorter than {GOOD_SECRET} bytes and can be guessed from a token");
                }
                (Algorithm::HS256, DecodingKey::from_secret(secret))
            }
            (None, Some(pem)) => pem::read_public_key(pem.expose())
                .map_err(|(problem, cure)| ConfigError::new("JWT_PUBLIC_KEY", problem, cure))?,
            _ => {
                return Err(ConfigError::new(
                    "AUTH_MODE",
                    "`jwt` needs exactly one key",
                    "set one of JWT_SECRET, JWT_PUBLIC_KEY or JWKS_URL, or AUTH_MODE=http",
                ));
            }
        };
        Ok(Self::new(None, algorithm, key, rules))
    }
}
