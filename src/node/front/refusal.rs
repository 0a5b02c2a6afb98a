//! How a request is refused: by a code that clients know, and when to come back.

use std::time::Duration;

use http::{Response, StatusCode, header};

use super::RETRY_AFTER;

/// When a page of a foreign origin may ask again: it takes a change of the settings.
const FOREIGN_ORIGIN_RETRY: Duration = Duration::from_secs(60);

/// A refusal before the upgrade.
pub struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: &'static str,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with this status, code and explanation.
    pub fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            retry_after: None,
        }
    }

    /// As this one, with when to come back.
    pub fn after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// A refusal by a node that cannot serve now.
    pub fn unavailable(code: &'static str, message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message).after(RETRY_AFTER)
    }

    /// A refusal of a page of another origin.
    pub fn foreign_origin() -> Self {
        let message = "this origin may not connect; see CORS_ORIGINS";
        Self::new(StatusCode::FORBIDDEN, "origin", message).after(FOREIGN_ORIGIN_RETRY)
    }

    /// Its answer. Whoever is refused is not worth a connection that stays open.
    pub fn response(&self) -> Response<String> {
        let mut json = serde_json::json!({"code": self.code, "message": self.message});
        let mut response = Response::builder()
            .status(self.status)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(after) = self.retry_after {
            json["retryAfterMs"] = u64::try_from(after.as_millis()).unwrap_or(u64::MAX).into();
            response = response.header(header::RETRY_AFTER, after.as_secs().max(1));
        }
        response.body(json.to_string()).unwrap_or_default()
    }
}

/// A response as it is on the wire, after which the connection ends.
pub fn to_bytes(response: &Response<String>) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let end = format!("content-length: {}\r\nconnection: close\r\n\r\n", response.body().len());
    bytes.extend_from_slice(end.as_bytes());
    bytes.extend_from_slice(response.body().as_bytes());
    bytes
}
