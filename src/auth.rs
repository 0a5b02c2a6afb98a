//! Whose a token is: verified here with a pinned key, or by the auth service, and exchanged there.
//!
//! A token that does not hold is `Invalid`; whatever keeps us from knowing (the auth service or the key set away,
//! an answer nobody expects) is `Unavailable` and must never punish the user.

mod claims;
mod issue;
mod jwks;
mod key;
mod keyset;
mod pem;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AuthMode, Config, ConfigError};
use crate::model::Identity;
use crate::upstream::{Upstream, UpstreamError, VerifiedUser};

use claims::Rules;
pub use issue::{IssueError, issue_token, issue_token_with};
use jwks::Jwks;
use key::PinnedKey;

/// The longest token looked at, in bytes: genuine ones stay below what proxies accept as a header.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The largest clock difference that `JWT_LEEWAY` may grant, in seconds.
const MAX_LEEWAY_SECONDS: u64 = 3600;

/// Verifies access tokens and exchanges refresh tokens; share it in an `Arc`.
pub struct Auth {
    upstream: Arc<Upstream>,
    verifier: Verifier,
    leeway_ms: u64,
    verify_every: Duration,
}

enum Verifier {
    Key { rules: Rules, key: Box<PinnedKey> },
    Jwks(Arc<Jwks>),
    Service,
}

/// Why an access token does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidToken {
    /// It has ended.
    Expired,
    /// It does not hold yet (`nbf`).
    NotYetValid,
    /// Its signature is not of the key.
    BadSignature,
    /// It names a key that the key set does not have.
    UnknownKey,
    /// It names another algorithm than the key's.
    Algorithm,
    /// A claim is missing or of the wrong type.
    Claims,
    /// It is of another issuer.
    Issuer,
    /// It is for another audience.
    Audience,
    /// It is no token.
    Malformed,
    /// It is longer than [`MAX_TOKEN_BYTES`].
    TooLong,
    /// The auth service says so.
    Refused,
}

impl InvalidToken {
    /// One word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::BadSignature => "bad_signature",
            Self::UnknownKey => "unknown_key",
            Self::Algorithm => "algorithm",
            Self::Claims => "claims",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Refused => "refused",
        }
    }
}

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an access token was not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The token does not hold.
    #[error("access token not valid: {0}")]
    Invalid(InvalidToken),
    /// Nobody can tell now.
    #[error("access tokens cannot be verified now: {0}")]
    Unavailable(String),
}

impl VerifyError {
    /// The code of this error on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "auth_expired",
            Self::Unavailable(_) => "auth_unavailable",
        }
    }

    /// Whether the same token may hold later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<InvalidToken> for VerifyError {
    fn from(reason: InvalidToken) -> Self {
        Self::Invalid(reason)
    }
}

/// Why a refresh token was not exchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    /// The auth service refused it.
    #[error("refresh token refused")]
    Refused,
    /// The auth service is away, or its answer is none to work with.
    #[error("tokens cannot be exchanged now: {0}")]
    Unavailable(String),
}

impl RefreshError {
    /// The code of this error on the wire.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused => "auth_expired",
            Self::Unavailable(_) => "auth_unavailable",
        }
    }

    /// Whether the same token may be exchanged later.
    pub fn retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// New tokens and the verified user they belong to.
#[derive(Clone, PartialEq, Eq)]
pub struct Refreshed {
    /// The new access token.
    pub access_token: String,
    /// The new refresh token, when the old one was rotated.
    pub refresh_token: Option<String>,
    /// What the new access token says.
    pub identity: Identity,
}

impl fmt::Debug for Refreshed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refreshed")
            .field("identity", &self.identity)
            .field("rotated", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// Reads the key of the settings, or prepares to ask for it; a bad key is an error at start.
    pub fn new(config: &Config, upstream: Arc<Upstream>) -> Result<Self, ConfigError> {
        if config.jwt_leeway.as_secs() > MAX_LEEWAY_SECONDS {
            return Err(ConfigError::new(
                "JWT_LEEWAY",
                "is out of range",
                "use at most 1h: it is for clocks that differ, not for longer tokens",
            ));
        }
        let verifier = match (config.auth_mode, &config.jwks_url) {
            (AuthMode::Http, _) => Verifier::Service,
            (AuthMode::Jwt, Some(url)) => {
                Verifier::Jwks(Arc::new(Jwks::new(url.as_str(), Rules::new(config), upstream.clone())))
            }
            (AuthMode::Jwt, None) => {
                let rules = Rules::new(config);
                let key = Box::new(PinnedKey::from_config(config, &rules)?);
                Verifier::Key { rules, key }
            }
        };
        Ok(Self {
            upstream,
            verifier,
            leeway_ms: config.jwt_leeway.as_secs() * 1000,
            verify_every: *config.auth_verify_every,
        })
    }

    /// Tells whose access token this is; the end of the identity includes the tolerated clock difference.
    ///
    /// With a key or a fetched key set this neither waits nor asks anybody.
    pub async fn verify(&self, access_token: &str) -> Result<Identity, VerifyError> {
        if access_token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLong.into());
        }
        match &self.verifier {
            Verifier::Key { rules, key } => rules.verify(access_token, key),
            Verifier::Jwks(jwks) => jwks.verify(access_token).await,
            Verifier::Service => match self.upstream.verify_access_token(access_token).await {
                Ok(user) => Ok(self.identity(user)),
                Err(UpstreamError::Refused { reason: "expired", .. }) => Err(InvalidToken::Expired.into()),
                Err(UpstreamError::Refused { .. }) => Err(InvalidToken::Refused.into()),
                Err(error) => Err(VerifyError::Unavailable(error.to_string())),
            },
        }
    }

    /// Whether [`Self::verify`] asks nobody: the key is in the settings.
    pub fn verifies_alone(&self) -> bool {
        matches!(self.verifier, Verifier::Key { .. })
    }

    /// Exchanges a refresh token and verifies the access token that comes back.
    ///
    /// A new access token that does not hold, or is of another user than the answer says, is an answer nobody
    /// expects: `Unavailable`, never `Refused`.
    pub async fn refresh(&self, refresh_token: &str, rotate: bool) -> Result<Refreshed, RefreshError> {
        if refresh_token.len() > MAX_TOKEN_BYTES {
            return Err(RefreshError::Refused);
        }
        let pair = match self.upstream.refresh_token(refresh_token, rotate).await {
            Ok(pair) => pair,
            Err(UpstreamError::Refused { .. }) => return Err(RefreshError::Refused),
            Err(error) => return Err(RefreshError::Unavailable(error.to_string())),
        };
        let identity = match self.verify(&pair.access_token).await {
            Ok(identity) => identity,
            Err(VerifyError::Unavailable(problem)) => return Err(RefreshError::Unavailable(problem)),
            Err(VerifyError::Invalid(reason)) => {
                tracing::warn!(%reason, "the auth service gave out an access token that does not hold here");
                return Err(RefreshError::Unavailable(format!(
                    "the new access token is not valid: {reason}"
                )));
            }
        };
        if identity.user != pair.user {
            tracing::warn!(answer = %pair.user, token = %identity.user, "the auth service gave out the token of another user");
            return Err(RefreshError::Unavailable(
                "the new access token is of another user".to_owned(),
            ));
        }
        Ok(Refreshed {
            access_token: pair.access_token,
            refresh_token: pair.refresh_token,
            identity,
        })
    }

    /// After which time the access token of this identity must be verified again: only the auth service knows when it
    /// ends. `None` when the token says so itself.
    pub fn ask_again_after(&self, identity: &Identity) -> Option<Duration> {
        let unknown = matches!(self.verifier, Verifier::Service) && identity.expires_at.is_none();
        unknown.then_some(self.verify_every)
    }

    fn identity(&self, user: VerifiedUser) -> Identity {
        Identity {
            user: user.user,
            username: user.username,
            session: user.session,
            issued_at: user.issued_at,
            expires_at: user.expires_at.map(|end| end.saturating_add(self.leeway_ms)),
        }
    }
}
