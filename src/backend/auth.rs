//! `/login`, `/logout`, `/verify-access-token`, `/refresh-token`.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Backend;
use super::error::BackendError;
use super::input::{Body, check_name};
use super::rooms::MAX_ROOMS;
use super::store::{Account, Participant, Refusal, Rotation, Session};
use super::tokens::{Invalid, digest, millis, now_ms, random_token};

/// Longer passwords only cost hashing time, in bytes.
pub(super) const MAX_PASSWORD_BYTES: usize = 1024;

type Answer = Result<Json<Value>, BackendError>;

const WRONG_CREDENTIALS: BackendError = BackendError::Refused {
    code: "invalid_credentials",
    reason: "unknown user or wrong password",
};

#[derive(Deserialize)]
pub struct Login {
    username: String,
    password: Option<String>,
}

pub async fn login(State(backend): State<Backend>, Body(login): Body<Login>) -> Answer {
    check_name(&login.username, "username")?;
    if login
        .password
        .as_ref()
        .is_some_and(|password| password.len() > MAX_PASSWORD_BYTES)
    {
        return Err(BackendError::bad("password", "too long"));
    }
    let account = backend.authenticate(&login.username, login.password.as_deref()).await?;
    let (sid, refresh_token, now) = (random_token(), random_token(), now_ms());
    let session = Session {
        sid: &sid,
        platformid: &account.platformid,
        token_hash: &digest(&refresh_token),
        expires_at: now.saturating_add(millis(backend.config().refresh_ttl)),
        forget_before: now.saturating_sub(millis(backend.config().access_ttl)),
    };
    backend.store().begin_session(session).await?;
    let access_token = backend.tokens().issue(&account, &sid)?;
    let rooms = backend.welcome(&account).await?;
    tracing::info!(platformid = account.platformid, sid, "login");
    Ok(Json(json!({
        "accessToken": access_token,
        "refreshToken": refresh_token,
        "user": user(&account),
        "rooms": rooms,
    })))
}

impl Backend {
    async fn authenticate(&self, username: &str, password: Option<&str>) -> Result<Account, BackendError> {
        let known = self.store().account_by_name(username).await?;
        if self.config().open_login {
            return match (known, password) {
                (
                    Some(Account {
                        password_hash: Some(hash),
                        ..
                    }),
                    Some(password),
                ) if !self.tokens().password_matches(password, Some(&hash)).await? => Err(WRONG_CREDENTIALS),
                (Some(account), _) => Ok(account),
                (None, _) => self.register(username).await,
            };
        }
        let hash = known.as_ref().and_then(|account| account.password_hash.as_deref());
        let matches = self
            .tokens()
            .password_matches(password.unwrap_or_default(), hash)
            .await?;
        known.filter(|_| matches).ok_or(WRONG_CREDENTIALS)
    }

    /// The user's rooms, the open ones among them.
    async fn welcome(&self, account: &Account) -> Result<Vec<String>, BackendError> {
        if self.config().open_login {
            let member = Participant {
                platformid: account.platformid.clone(),
                nickname: account.username.clone(),
            };
            for room in &self.config().welcome_rooms {
                self.store()
                    .create_room(room, None, None, None, std::slice::from_ref(&member))
                    .await?;
            }
        }
        Ok(self.store().rooms_of(&account.platformid, MAX_ROOMS).await?)
    }

    /// Adds a user under the id that follows from the name; the one who has the name already stays as is.
    pub(super) async fn register(&self, username: &str) -> Result<Account, BackendError> {
        let added = self.store().add_account(&platformid_of(username), username).await?;
        added.ok_or(BackendError::Conflict(
            "another user has the platformid of this username",
        ))
    }
}

/// The id of a new user: `pN` for `userN`, as seeding makes it, else `p-` and the name in lower case.
pub(super) fn platformid_of(username: &str) -> String {
    let name = username.to_lowercase();
    let number = name.strip_prefix("user").filter(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) && (*rest == "0" || !rest.starts_with('0'))
    });
    number.map_or_else(|| format!("p-{name}"), |number| format!("p{number}"))
}

fn user(account: &Account) -> Value {
    json!({ "platformid": account.platformid, "username": account.username })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Logout {
    refresh_token: Option<String>,
    access_token: Option<String>,
}

pub async fn logout(State(backend): State<Backend>, Body(logout): Body<Logout>) -> Answer {
    let sid = match (&logout.refresh_token, &logout.access_token) {
        (Some(token), _) => backend.store().sid_of_token(&digest(token)).await?,
        (None, Some(token)) => backend.tokens().check(token).ok().and_then(|claims| claims.sid),
        (None, None) => return Err(BackendError::bad("refreshToken", "required, or accessToken")),
    };
    let ended = match &sid {
        Some(sid) => backend.store().end_session(sid, now_ms()).await?,
        None => false,
    };
    tracing::info!(sid, ended, "logout");
    Ok(Json(json!({ "ok": true, "ended": ended })))
}

#[derive(Deserialize)]
pub struct Verify {
    token: String,
}

pub async fn verify(State(backend): State<Backend>, Body(verify): Body<Verify>) -> Answer {
    let claims = match backend.tokens().check(&verify.token) {
        Ok(claims) => claims,
        Err(Invalid::Expired) => {
            return Err(BackendError::Refused {
                code: "expired",
                reason: "the access token has expired",
            });
        }
        Err(Invalid::Other) => return Ok(Json(json!({ "valid": false, "error": "invalid_token" }))),
    };
    if let Some(sid) = &claims.sid
        && backend.store().is_revoked(sid).await?
    {
        return Ok(Json(json!({ "valid": false, "error": "revoked" })));
    }
    let mut user = json!({ "platformid": claims.platformid, "username": claims.username });
    if let Some(sid) = claims.sid {
        user["sid"] = sid.into();
    }
    let mut answer = json!({ "valid": true, "user": user, "exp": claims.exp });
    if let Some(iat) = claims.iat {
        answer["iat"] = iat.into();
    }
    Ok(Json(answer))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    refresh_token: String,
    #[serde(default)]
    rotate: bool,
}

pub async fn refresh(State(backend): State<Backend>, Body(refresh): Body<Refresh>) -> Answer {
    let now = now_ms();
    let next = refresh.rotate.then(random_token);
    let next_hash = next.as_deref().map(digest);
    let rotation = next_hash.as_deref().map(|next_hash| Rotation {
        next_hash,
        next_expires_at: now.saturating_add(millis(backend.config().refresh_ttl)),
    });
    let grace = millis(backend.config().refresh_grace);
    let verdict = backend
        .store()
        .refresh(&digest(&refresh.refresh_token), rotation, now, grace)
        .await?;
    let (sid, account) = verdict.map_err(|refusal| {
        let (code, reason) = match refusal {
            Refusal::Unknown => ("invalid_token", "unknown refresh token"),
            Refusal::Expired => ("expired", "the refresh token has expired"),
            Refusal::Revoked => ("revoked", "the session has ended"),
            Refusal::Reused => ("reused", "a replaced refresh token came back; the session was ended"),
        };
        if refusal == Refusal::Reused {
            tracing::warn!("a replaced refresh token came back: session revoked");
        }
        BackendError::Refused { code, reason }
    })?;
    let mut answer = json!({ "accessToken": backend.tokens().issue(&account, &sid)?, "user": user(&account) });
    if let Some(next) = next {
        answer["refreshToken"] = next.into();
    }
    Ok(Json(answer))
}

#[cfg(test)]
mod tests {
    use super::platformid_of;

    #[test]
    fn platformid_follows_from_the_name_alone() {
        let cases = [
            ("user7", "p7"),
            ("USER7", "p7"),
            ("user07", "p-user07"),
            ("user0", "p0"),
            ("Kim", "p-kim"),
            ("user", "p-user"),
        ];
        for (name, id) in cases {
            assert_eq!(platformid_of(name), id);
        }
    }
}
