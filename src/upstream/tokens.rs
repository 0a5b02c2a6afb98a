//! The calls of the auth service.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::{UnixMs, UserId};

use super::wire::{self, User};
use super::{Call, Upstream, UpstreamError};

/// The user of a token that the auth service calls valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUser {
    /// The user's id.
    pub user: UserId,
    /// The user's name.
    pub username: String,
    /// The login session, where the service names one (`user.sid`).
    pub session: Option<String>,
    /// When the token was issued, where the service says so (`iat`).
    pub issued_at: Option<UnixMs>,
    /// When the token ends, where the service says so (`exp`).
    pub expires_at: Option<UnixMs>,
}

/// New tokens and whose they are.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenPair {
    /// The new access token.
    pub access_token: String,
    /// The user's id.
    pub user: UserId,
    /// The user's name.
    pub username: String,
    /// The new refresh token, when the old one was rotated.
    pub refresh_token: Option<String>,
}

impl fmt::Debug for TokenPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenPair")
            .field("user", &self.user)
            .field("rotated", &self.refresh_token.is_some())
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct VerifyRequest<'a> {
    token: &'a str,
}

#[derive(Deserialize)]
struct VerifyAnswer {
    valid: bool,
    user: Option<User>,
    #[serde(default, deserialize_with = "wire::optional_seconds")]
    iat: Option<UnixMs>,
    #[serde(default, deserialize_with = "wire::optional_seconds")]
    exp: Option<UnixMs>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefreshRequest<'a> {
    refresh_token: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rotate: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RefreshAnswer {
    #[serde(deserialize_with = "wire::filled")]
    access_token: String,
    user: User,
    refresh_token: Option<String>,
}

impl Upstream {
    /// Asks whose access token this is; a token that is not valid is `Refused` (`expired` or `invalid`).
    pub async fn verify_access_token(&self, token: &str) -> Result<VerifiedUser, UpstreamError> {
        let request = self.client.post(self.addresses.verify.clone());
        let answer = self
            .ask(Call::VerifyToken, request.json(&VerifyRequest { token }), |body| {
                let answer: VerifyAnswer = super::transport::parse(body)?;
                if answer.valid && answer.user.is_none() {
                    return Err("valid, but of nobody".to_owned());
                }
                Ok(answer)
            })
            .await?;
        match answer.user {
            Some(user) if answer.valid => Ok(VerifiedUser {
                user: user.platformid,
                username: user.username,
                session: user.sid,
                issued_at: answer.iat,
                expires_at: answer.exp,
            }),
            _ => Err(UpstreamError::Refused {
                status: 200,
                reason: "invalid",
            }),
        }
    }

    /// Exchanges a refresh token; it is rotated only when `rotate` asks for it.
    pub async fn refresh_token(&self, refresh_token: &str, rotate: bool) -> Result<TokenPair, UpstreamError> {
        let request = RefreshRequest { refresh_token, rotate };
        let answer: RefreshAnswer = self.post(Call::RefreshToken, &self.addresses.refresh, &request).await?;
        Ok(TokenPair {
            access_token: answer.access_token,
            user: answer.user.platformid,
            username: answer.user.username,
            refresh_token: answer.refresh_token.filter(|token| !token.is_empty()),
        })
    }
}
