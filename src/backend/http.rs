//! The router: paths, limits, the service token, CORS for browsers, and one log line a request.

use std::time::Instant;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::BackendError;
use super::{Backend, auth, messages, rooms};

/// Enough for the largest list a path accepts.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// Saves carry whole events.
const MAX_SAVE_BYTES: usize = 8 * 1024 * 1024;

/// The description of all this, kept beside the code; a test holds its paths against the router.
const OPENAPI: &str = include_str!("openapi.json");

/// All paths of the services.
pub fn router(backend: &Backend, origins: AllowOrigin) -> Router {
    let browser = Router::new()
        .route("/login", post(auth::login))
        .route("/logout", post(auth::logout))
        // Here too, before the layer: the one of the whole router would take preflights past it.
        .method_not_allowed_fallback(async || BackendError::Method)
        .layer(
            CorsLayer::new()
                .allow_origin(origins)
                .allow_methods([Method::POST])
                .allow_headers([CONTENT_TYPE, AUTHORIZATION]),
        );
    let service = Router::new()
        .route("/verify-access-token", post(auth::verify))
        .route("/refresh-token", post(auth::refresh))
        .route("/api/rooms/check-room", post(rooms::check))
        .route("/api/rooms/user-rooms", post(rooms::of_user))
        .route("/api/rooms/create-room", post(rooms::create))
        .route("/api/rooms/delete-room", post(rooms::delete))
        .route("/api/messages/get-messages/{room_id}", get(messages::list))
        .route("/api/messages/get-message/{room_id}/{id}", get(messages::get))
        .route("/api/messages/sync-rooms", post(messages::sync))
        .route(
            "/api/messages/save-messages",
            post(messages::save).layer(DefaultBodyLimit::max(MAX_SAVE_BYTES)),
        )
        .route_layer(from_fn_with_state(backend.clone(), require_service_token));
    Router::new()
        .route("/healthz", get(healthz))
        .route(
            "/openapi.json",
            get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)),
        )
        .merge(browser)
        .merge(service)
        .fallback(async || BackendError::NotFound { what: "path" })
        .method_not_allowed_fallback(async || BackendError::Method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(backend.clone(), watch))
        .with_state(backend.clone())
}

/// The origins that may call `/login` and `/logout` from a page.
pub fn allowed_origins(origins: &[String]) -> Result<AllowOrigin, BackendError> {
    if origins.iter().any(|origin| origin == "*") {
        return Ok(AllowOrigin::any());
    }
    let origins = origins.iter().map(|origin| {
        HeaderValue::from_str(origin).map_err(|_| BackendError::Config {
            setting: "cors_origins",
            reason: format!("{origin:?} is no origin"),
        })
    });
    Ok(AllowOrigin::list(origins.collect::<Result<Vec<_>, _>>()?))
}

async fn healthz(State(backend): State<Backend>) -> Result<Response, BackendError> {
    backend.store().ping().await?;
    Ok(Json(json!({ "status": "ok" })).into_response())
}

async fn require_service_token(
    State(backend): State<Backend>,
    request: Request,
    next: Next,
) -> Result<Response, BackendError> {
    if let Some(expected) = &backend.config().service_token {
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map_or("", |(_, token)| token.trim());
        // Digests have one length, so not even that of the token shows in the time taken.
        let same = Sha256::digest(given.as_bytes()).ct_eq(&Sha256::digest(expected.as_bytes()));
        if !bool::from(same) {
            tracing::warn!(path = path_of(&request), "call without the service token refused");
            return Err(BackendError::ServiceToken);
        }
    }
    Ok(next.run(request).await)
}

/// Bounds the time of a request and logs its outcome; never its body, query or tokens.
async fn watch(State(backend): State<Backend>, request: Request, next: Next) -> Response {
    let (method, path, started) = (request.method().clone(), path_of(&request).to_owned(), Instant::now());
    let answer = tokio::time::timeout(backend.config().request_timeout, next.run(request)).await;
    let response = answer.unwrap_or_else(|_| BackendError::Timeout.into_response());
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    if response.status().is_server_error() {
        tracing::warn!(%method, path, status, ?elapsed, "request");
    } else {
        tracing::debug!(%method, path, status, ?elapsed, "request");
    }
    response
}

/// The route, not the path as sent: that could hold anything.
fn path_of(request: &Request) -> &str {
    request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unknown", MatchedPath::as_str)
}
