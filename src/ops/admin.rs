//! `/admin`: what operators and other services may do, with a bearer token.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::model::{Scope, UserId, unix_ms};
use crate::redis::{Act, Redis, RedisError};

/// How long a revocation is remembered: longer than any access token in use lives.
const REVOKED_FOR: Duration = Duration::from_secs(24 * 3600);

/// The administration of one deployment.
#[derive(Clone)]
pub struct Admin {
    redis: Redis,
    token: Secret,
}

/// Whom to log out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revocation {
    sid: Option<String>,
    platformid: Option<String>,
}

impl Admin {
    /// Administration for whoever has `token`.
    pub fn new(redis: Redis, token: Secret) -> Self {
        Self { redis, token }
    }

    /// The routes below `/admin`.
    pub(super) fn router(self) -> Router {
        Router::new().route("/admin/revoke", post(revoke)).with_state(self)
    }

    fn allows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        given
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| token.as_bytes().ct_eq(self.token.expose().as_bytes()).into())
    }
}

/// `POST /admin/revoke {sid | platformid}`: the session, or every login of the user up to now, is over; its sockets are
/// cut on every node.
async fn revoke(State(admin): State<Admin>, headers: HeaderMap, body: String) -> Response {
    if !admin.allows(&headers) {
        return answer(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the bearer token is not ROOMCAST_ADMIN_TOKEN",
        );
    }
    let Some(scope) = read_scope(&body) else {
        return answer(
            StatusCode::BAD_REQUEST,
            "bad_payload",
            "send {\"sid\": …} or {\"platformid\": …}",
        );
    };
    match revoke_scope(&admin.redis, &scope).await {
        Ok(()) => {
            tracing::info!(%scope, "revoked");
            Json(json!({"ok": true})).into_response()
        }
        Err(error) => {
            tracing::warn!(%scope, %error, "not revoked");
            answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "Redis is not available right now",
            )
        }
    }
}

async fn revoke_scope(redis: &Redis, scope: &Scope) -> Result<(), RedisError> {
    // The mark first: a socket that is cut and comes back at once must find it.
    redis.revoke(scope, unix_ms(), REVOKED_FOR).await?;
    redis
        .publish_act(&Act::Cut {
            scope: scope.clone(),
            code: "revoked".into(),
        })
        .await
}

fn read_scope(body: &str) -> Option<Scope> {
    match serde_json::from_str(body).ok()? {
        // Session ids follow the rules of user ids: both become part of key names.
        Revocation {
            sid: Some(sid),
            platformid: None,
        } => Some(Scope::Session(UserId::new(&sid).ok()?.to_string())),
        Revocation {
            sid: None,
            platformid: Some(user),
        } => Some(Scope::User(UserId::new(&user).ok()?)),
        Revocation { .. } => None,
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
        assert_eq!(read_scope(r#"{"sid":"s1"}"#).unwrap().to_string(), "session:s1");
        assert_eq!(read_scope(r#"{"platformid":"p1"}"#).unwrap().to_string(), "user:p1");
        for bad in [
            "",
            "{}",
            r#"{"sid":"s","platformid":"p"}"#,
            r#"{"sid":"a{b}"}"#,
            r#"{"user":"p"}"#,
            "[1]",
        ] {
            assert!(read_scope(bad).is_none(), "{bad}");
        }
    }
}
