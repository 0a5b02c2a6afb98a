//! What a request says, read so that a mistake is answered as JSON like everything else.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use serde::de::DeserializeOwned;

use super::answer;

/// The JSON object of the body.
pub struct Payload<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Payload<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| answer(error.status(), code_of(error.status()), &error.body_text()))?;
        let mut json = serde_json::Deserializer::from_slice(&body);
        serde_path_to_error::deserialize(&mut json)
            .map(Self)
            .map_err(|error| answer(StatusCode::BAD_REQUEST, "bad_payload", &error.to_string()))
    }
}

/// The parameters of the query.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        let params = Query::from_request_parts(parts, state).await;
        params
            .map(|Query(params)| Self(params))
            .map_err(|error| answer(StatusCode::BAD_REQUEST, "bad_payload", &error.body_text()))
    }
}

fn code_of(status: StatusCode) -> &'static str {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        "too_large"
    } else {
        "bad_payload"
    }
}
