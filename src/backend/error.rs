//! What can go wrong in the services, and its JSON form.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A failure of the reference services: at start-up, while serving, or as the answer to one request.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// A setting is unusable.
    #[error("{setting}: {reason}")]
    Config { setting: &'static str, reason: String },
    /// The listener failed for good.
    #[error("listener: {0}")]
    Listen(#[from] std::io::Error),
    /// The database refused or is away.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("migration: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A request is malformed; `field` names the culprit.
    #[error("{field}: {reason}")]
    BadRequest { field: String, reason: String },
    /// The caller's statement contradicts what is stored.
    #[error("{field} contradicts what is stored")]
    Forged { field: &'static str },
    /// A password or token was refused; `code` says why.
    #[error("{reason}")]
    Refused { code: &'static str, reason: &'static str },
    /// The user does not exist or the name does not belong to the id.
    #[error("no such user, or the username does not belong to the platformid")]
    UnknownUser,
    /// The calling service did not present the service token.
    #[error("the Authorization header does not carry the service token")]
    ServiceToken,
    /// Nothing is there.
    #[error("{what} not found")]
    NotFound { what: &'static str },
    /// The method does not fit the path.
    #[error("method not allowed")]
    Method,
    /// The thing exists with other properties.
    #[error("{0}")]
    Conflict(&'static str),
    /// The body or an array in it is too large.
    #[error("{field}: at most {limit}")]
    TooLarge { field: String, limit: String },
    /// The request took longer than allowed.
    #[error("the request took too long")]
    Timeout,
    /// Something that should never fail did.
    #[error("internal error: {0}")]
    Internal(String),
}

impl BackendError {
    /// Shorthand for a malformed field.
    pub fn bad(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::BadRequest {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// The stable name sent to clients.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config { .. } => "bad_configuration",
            Self::Database(error) if is_passing(error) => "unavailable",
            Self::Listen(_) | Self::Database(_) | Self::Migrate(_) | Self::Internal(_) => "internal",
            Self::BadRequest { .. } => "bad_request",
            Self::Forged { .. } => "forged",
            Self::Refused { code, .. } => code,
            Self::UnknownUser => "unknown_user",
            Self::ServiceToken => "service_token",
            Self::NotFound { .. } => "not_found",
            Self::Method => "method_not_allowed",
            Self::Conflict(_) => "conflict",
            Self::TooLarge { .. } => "too_large",
            Self::Timeout => "timeout",
        }
    }

    /// Whether the same call may succeed a little later.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Timeout | Self::ServiceToken => true,
            Self::Database(error) => is_passing(error),
            _ => false,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest { .. } | Self::Forged { .. } => StatusCode::BAD_REQUEST,
            Self::Refused { .. } => StatusCode::UNAUTHORIZED,
            Self::UnknownUser => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            // 401 and 403 mean "this user is refused" to a node, which then blocks the user. A missing service token is
            // a fault of the operator and must look like an outage.
            Self::ServiceToken | Self::Timeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(error) if is_passing(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Config { .. } | Self::Listen(_) | Self::Database(_) | Self::Migrate(_) | Self::Internal(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Self::BadRequest { field, .. } | Self::TooLarge { field, .. } => Some(field),
            Self::Forged { field } => Some(field),
            _ => None,
        }
    }
}

/// Failures of a busy or absent database, as opposed to a statement that is wrong.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => true,
        // SQLite: busy, locked, disk full. PostgreSQL: connection lost, serialisation, deadlock, resources, shutdown.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            matches!(&*code, "5" | "6" | "13" | "261" | "517" | "40001" | "40P01")
                || (code.len() == 5 && (code.starts_with("08") || code.starts_with("53") || code.starts_with("57")))
        }),
        _ => false,
    }
}

impl IntoResponse for BackendError {
    fn into_response(self) -> Response {
        let status = self.status();
        let message = if status.is_server_error() && !matches!(self, Self::ServiceToken | Self::Timeout) {
            tracing::error!(code = self.code(), error = %self, "request failed");
            "the service cannot answer now".to_owned()
        } else {
            self.to_string()
        };
        let mut body = json!({ "error": self.code(), "message": message });
        if let Some(field) = self.field() {
            body["field"] = field.into();
        }
        if self.retryable() {
            body["retryable"] = true.into();
        }
        (status, axum::Json(body)).into_response()
    }
}
