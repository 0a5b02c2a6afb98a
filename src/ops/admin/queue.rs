//! `/admin/queue`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::input::{Params, Payload};
use super::{Admin, Refusal, answer, limited};
use crate::guard::operate::{Letters, QueueError, read_actor};

/// Entries of an answer where nobody says, as on the command line.
const LIMIT: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    id: Option<String>,
    #[serde(default)]
    all: bool,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    by: Option<String>,
}

impl From<QueueError> for Refusal {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Bad(error) => error.into(),
            QueueError::Redis(error) => error.into(),
        }
    }
}

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/queue", get(stats))
        .route("/queue/next", get(next))
        .route("/queue/dead", get(dead))
        .route("/queue/retry", post(retry))
        .route("/queue/drop", post(drop_letters))
        .route("/queue/pause", post(pause))
        .route("/queue/resume", post(resume))
}

/// `GET /admin/queue?limit=`: of rooms and users.
async fn stats(State(admin): State<Admin>, Params(listing): Params<Listing>) -> Result<Response, Refusal> {
    let limit = limited(listing.limit, LIMIT)?;
    Ok(Json(admin.operate.queue_stats(limit).await?).into_response())
}

/// `GET /admin/queue/next?limit=`.
async fn next(State(admin): State<Admin>, Params(listing): Params<Listing>) -> Result<Response, Refusal> {
    let limit = limited(listing.limit, LIMIT)?;
    Ok(Json(admin.operate.queue_next(limit).await?).into_response())
}

/// `GET /admin/queue/dead?limit=`.
async fn dead(State(admin): State<Admin>, Params(listing): Params<Listing>) -> Result<Response, Refusal> {
    let limit = limited(listing.limit, LIMIT)?;
    Ok(Json(admin.operate.queue_dead(limit).await?).into_response())
}

/// `POST /admin/queue/retry {id | all, by?}`.
async fn retry(State(admin): State<Admin>, Payload(which): Payload<Which>) -> Result<Response, Refusal> {
    let letters = Letters::new(which.id.as_deref(), which.all)?;
    let by = read_actor(which.by.as_deref().unwrap_or(super::ACTOR))?;
    let Some(done) = admin.operate.queue_retry(&letters, &by).await? else {
        return Ok(missing());
    };
    tracing::info!(by, retried = done.retried, "dead letters retried");
    Ok(Json(done).into_response())
}

/// `POST /admin/queue/drop {id | all, by?}`.
async fn drop_letters(State(admin): State<Admin>, Payload(which): Payload<Which>) -> Result<Response, Refusal> {
    let letters = Letters::new(which.id.as_deref(), which.all)?;
    let by = read_actor(which.by.as_deref().unwrap_or(super::ACTOR))?;
    let Some(dropped) = admin.operate.queue_drop(&letters, &by).await? else {
        return Ok(missing());
    };
    tracing::info!(by, dropped, "dead letters dropped");
    Ok(Json(json!({"dropped": dropped})).into_response())
}

/// `POST /admin/queue/pause {reason?, by?}`.
async fn pause(State(admin): State<Admin>, Payload(pause): Payload<Pause>) -> Result<Response, Refusal> {
    let by = read_actor(pause.by.as_deref().unwrap_or(super::ACTOR))?;
    let new = admin.operate.queue_pause(pause.reason.as_deref(), &by).await?;
    Ok(Json(json!({"paused": true, "was": !new})).into_response())
}

/// `POST /admin/queue/resume {by?}`.
async fn resume(State(admin): State<Admin>, Payload(resume): Payload<Resume>) -> Result<Response, Refusal> {
    let by = read_actor(resume.by.as_deref().unwrap_or(super::ACTOR))?;
    let paused = admin.operate.queue_resume(&by).await?;
    let ms = paused.map(|paused| u64::try_from(paused.as_millis()).unwrap_or(u64::MAX));
    Ok(Json(json!({"paused": false, "paused_for_ms": ms})).into_response())
}

fn missing() -> Response {
    answer(StatusCode::NOT_FOUND, "not_found", "there is no such dead letter")
}
