//! `/admin/sessions`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::input::{Params, Payload};
use super::{Admin, Refusal, limited};
use crate::guard::operate::{SessionFilter, Target, read_actor};

/// Sessions in an answer where nobody says.
const LIMIT: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    user: Option<String>,
    ip: Option<String>,
    login: Option<String>,
    node: Option<String>,
    limit: Option<usize>,
}

/// The names of `POST /admin/revoke`, and two more.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kick {
    socket: Option<String>,
    platformid: Option<String>,
    sid: Option<String>,
    ip: Option<String>,
    by: Option<String>,
}

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/sessions", get(list))
        .route("/sessions/kick", post(kick))
}

/// `GET /admin/sessions?user=&ip=&login=&node=&limit=`.
async fn list(State(admin): State<Admin>, Params(listing): Params<Listing>) -> Result<Response, Refusal> {
    let limit = limited(listing.limit, LIMIT)?;
    let (user, login, ip) = (listing.user.as_deref(), listing.login.as_deref(), listing.ip.as_deref());
    let filter = SessionFilter::new(user, login, ip, listing.node)?;
    Ok(Json(admin.operate.sessions(&filter, limit).await?).into_response())
}

/// `POST /admin/sessions/kick {socket | platformid | sid | ip, by?}`.
async fn kick(State(admin): State<Admin>, Payload(kick): Payload<Kick>) -> Result<Response, Refusal> {
    let (user, login, ip) = (kick.platformid.as_deref(), kick.sid.as_deref(), kick.ip.as_deref());
    let target = Target::new(kick.socket.as_deref(), user, login, ip)?;
    let by = read_actor(kick.by.as_deref().unwrap_or(super::ACTOR))?;
    let kicked = admin.operate.kick(&target, &by).await?;
    tracing::info!(%target, by, sockets = kicked.sockets, "kicked");
    Ok(Json(kicked).into_response())
}
