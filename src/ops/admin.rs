//! `/admin`: what operators and other services may do, with a bearer token.

mod bans;
mod input;
mod queue;
mod sessions;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use self::input::Payload;
use crate::config::{Config, Key};
use crate::guard::operate::{BadOrder, Operate, read_actor};
use crate::model::{Scope, UserId, unix_ms};
use crate::redis::{Act, Redis, RedisError};

/// How long a revocation is remembered: longer than any access token in use lives.
const REVOKED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The largest body; everything that is said here is small.
const BODY_MAX: usize = 16 * 1024;
/// The most entries of one answer.
const LIMIT_MAX: usize = 10_000;
/// Who acts where a request does not say.
const ACTOR: &str = "admin";

/// The administration of one deployment.
#[derive(Clone)]
pub struct Admin {
    redis: Redis,
    operate: Operate,
    token: Key,
}

/// Whom to log out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    sid: Option<String>,
    platformid: Option<String>,
    by: Option<String>,
}

impl Admin {
    /// Administration for whoever has the token of the settings; `None` where there is none.
    pub fn new(config: &Config, redis: &Redis) -> Option<Self> {
        Some(Self {
            redis: redis.clone(),
            operate: Operate::new(redis.clone(), config.guard_allow.to_vec()),
            token: config.admin_token.clone()?,
        })
    }

    /// The routes below `/admin`. Whoever has no token learns nothing, not even which there are.
    pub(super) fn router(self) -> Router {
        let routes = Router::new()
            .route("/revoke", post(revoke))
            .merge(bans::routes())
            .merge(sessions::routes())
            .merge(queue::routes())
            .fallback(super::not_found)
            .method_not_allowed_fallback(super::method_not_allowed)
            .layer(DefaultBodyLimit::max(BODY_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), demand_token))
            .with_state(self);
        Router::new().nest("/admin", routes)
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| token.as_bytes().ct_eq(self.token.expose().as_bytes()).into())
    }
}

async fn demand_token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    if admin.allows(request.headers()) {
        return next.run(request).await;
    }
    answer(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the bearer token is not ROOMCAST_ADMIN_TOKEN",
    )
}

/// Why a request is not carried out.
struct Refusal(Response);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.0
    }
}

impl From<BadOrder> for Refusal {
    fn from(error: BadOrder) -> Self {
        Self(answer(StatusCode::BAD_REQUEST, "bad_payload", &error.to_string()))
    }
}

impl From<RedisError> for Refusal {
    fn from(error: RedisError) -> Self {
        tracing::warn!(%error, "a request of /admin failed");
        Self(answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "Redis is not available right now; it is safe to repeat the request",
        ))
    }
}

/// The number of entries asked for, else `default`.
fn limited(limit: Option<usize>, default: usize) -> Result<usize, BadOrder> {
    let limit = limit.unwrap_or(default);
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(BadOrder {
        what: "limit",
        problem: format!("must be from 1 to {LIMIT_MAX}"),
    })
}

/// `POST /admin/revoke {sid | platformid, by?}`: the session, or every login of the user up to now, is over; its sockets
/// are cut on every node.
async fn revoke(State(admin): State<Admin>, Payload(revocation): Payload<Revocation>) -> Result<Response, Refusal> {
    let Some(scope) = revoked_scope(&revocation) else {
        let message = "send {\"sid\": …} or {\"platformid\": …}";
        return Ok(answer(StatusCode::BAD_REQUEST, "bad_payload", message));
    };
    let by = read_actor(revocation.by.as_deref().unwrap_or(ACTOR))?;
    revoke_scope(&admin.redis, &scope, &by).await?;
    tracing::info!(%scope, by, "revoked");
    Ok(Json(json!({"ok": true})).into_response())
}

async fn revoke_scope(redis: &Redis, scope: &Scope, by: &str) -> Result<(), RedisError> {
    // The mark first: a socket that is cut and comes back at once must find it.
    redis.revoke(scope, unix_ms(), REVOKED_FOR).await?;
    let code = "revoked".to_owned();
    let cut = Act::Cut {
        scope: scope.clone(),
        code,
    };
    redis.publish_act(&cut).await?;
    redis.audit("revoke", scope.to_string(), String::new(), by).await
}

fn revoked_scope(revocation: &Revocation) -> Option<Scope> {
    match (&revocation.sid, &revocation.platformid) {
        // Session ids follow the rules of user ids: both become part of key names.
        (Some(sid), None) => Some(Scope::Session(UserId::new(sid).ok()?.to_string())),
        (None, Some(user)) => UserId::new(user).ok().map(Scope::User),
        _ => None,
    }
}

fn answer(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({"code": code, "message": message}))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_names_exactly_one_scope() {
        let read_scope = |body: &str| {
            let revocation = serde_json::from_str(body).ok()?;
            revoked_scope(&revocation).map(|scope| scope.to_string())
        };
        assert_eq!(read_scope(r#"{"sid":"s1"}"#).unwrap(), "session:s1");
        assert_eq!(read_scope(r#"{"platformid":"p1","by":"kim"}"#).unwrap(), "user:p1");
        for bad in [
            "",
            "{}",
            r#"{"sid":"s","platformid":"p"}"#,
            r#"{"sid":"a{b}"}"#,
            r#"{"user":"p"}"#,
            "[1]",
        ] {
            assert_eq!(read_scope(bad), None, "{bad}");
        }
    }
}
