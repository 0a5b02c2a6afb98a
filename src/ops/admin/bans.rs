//! `/admin/bans` and `/admin/audit`.

use std::net::IpAddr;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use super::input::{Params, Payload};
use super::{Admin, Refusal, answer, limited};
use crate::guard::operate::{BanOrder, Kind, read_actor, read_scope};

/// Bans, and acts, in an answer where nobody says.
const LIMIT: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    kind: Option<Kind>,
    ip: Option<IpAddr>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    scope: String,
    #[serde(rename = "for")]
    length: Option<String>,
    reason: Option<String>,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct By {
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Newest {
    limit: Option<usize>,
}

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/bans", get(list).post(add))
        .route("/bans/{scope}", get(show).delete(remove))
        .route("/audit", get(audit))
}

/// `GET /admin/bans?kind=&ip=&limit=`.
async fn list(State(admin): State<Admin>, Params(listing): Params<Listing>) -> Result<Response, Refusal> {
    let limit = limited(listing.limit, LIMIT)?;
    let list = admin.operate.bans(listing.kind, listing.ip, limit).await?;
    Ok(Json(list).into_response())
}

/// `POST /admin/bans {scope, for?, reason?, by?}`.
async fn add(State(admin): State<Admin>, Payload(order): Payload<Order>) -> Result<Response, Refusal> {
    let by = order.by.as_deref().unwrap_or(super::ACTOR);
    let order = BanOrder::new(&order.scope, order.length.as_deref(), order.reason.as_deref(), by)?;
    let set = admin.operate.ban(&order).await?;
    tracing::info!(scope = %order.scope, by = order.by, "banned");
    Ok((StatusCode::CREATED, Json(set)).into_response())
}

/// `GET /admin/bans/{scope}`: also of a scope that is not banned, whose `ban` is null.
async fn show(State(admin): State<Admin>, Path(scope): Path<String>) -> Result<Response, Refusal> {
    let report = admin.operate.report(&read_scope(&scope)?).await?;
    Ok(Json(report).into_response())
}

/// `DELETE /admin/bans/{scope}?by=`.
async fn remove(
    State(admin): State<Admin>,
    Path(scope): Path<String>,
    Params(By { by }): Params<By>,
) -> Result<Response, Refusal> {
    let (scope, by) = (read_scope(&scope)?, read_actor(by.as_deref().unwrap_or(super::ACTOR))?);
    let was = admin.operate.unban(&scope, &by).await?;
    tracing::info!(%scope, by, was, "unbanned");
    Ok(if was {
        Json(json!({"removed": scope})).into_response()
    } else {
        answer(StatusCode::NOT_FOUND, "not_found", &format!("{scope} is not banned"))
    })
}

/// `GET /admin/audit?limit=`.
async fn audit(State(admin): State<Admin>, Params(Newest { limit }): Params<Newest>) -> Result<Response, Refusal> {
    let limit = limited(limit, LIMIT)?;
    Ok(Json(json!({"audit": admin.operate.audits(limit).await?})).into_response())
}
