//! Reads and checks what clients send; every refusal names the field.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::IntoResponse as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use super::error::BackendError;

/// Longest id or epoch, in bytes: names of keys and index entries, not content.
const MAX_ID_BYTES: usize = 256;
/// Longest user name or nickname, in characters.
const MAX_NAME_CHARS: usize = 128;

/// A JSON body, whatever its content type says.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = BackendError;

    async fn from_request(request: Request, state: &S) -> Result<Self, BackendError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                BackendError::TooLarge {
                    field: "body".to_owned(),
                    limit: "the size documented for this path".to_owned(),
                }
            } else {
                BackendError::bad("body", "could not be read to its end")
            }
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|_| BackendError::bad("body", "not UTF-8"))?;
        parse(text, "").map(Body)
    }
}

/// The query string.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = BackendError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BackendError> {
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|query| Self(query.0))
            .map_err(|rejection| BackendError::bad("query", rejection.body_text()))
    }
}

/// The variable parts of the path, percent-decoded.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = BackendError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BackendError> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejection| BackendError::bad("path", rejection.body_text()))
    }
}

/// Parses a JSON object; `at` is where it stands in the body.
pub fn parse<'de, T: Deserialize<'de>>(text: &'de str, at: &str) -> Result<T, BackendError> {
    // serde also reads a struct from an array, which no client means.
    if !text.trim_start().starts_with('{') {
        return Err(BackendError::bad(
            if at.is_empty() { "body" } else { at },
            "expected a JSON object",
        ));
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let mut field = at.to_owned();
        let path = error.path().to_string();
        if path != "." {
            extend(&mut field, &path);
        }
        let reason = error.inner().to_string();
        if let Some(missing) = reason
            .strip_prefix("missing field `")
            .and_then(|rest| rest.split('`').next())
        {
            extend(&mut field, missing);
        }
        BackendError::bad(if field.is_empty() { "body" } else { &field }, reason)
    })?;
    let rest = deserializer.end();
    rest.map_err(|error| BackendError::bad(if at.is_empty() { "body" } else { at }, error.to_string()))?;
    Ok(value)
}

fn extend(field: &mut String, part: &str) {
    if !field.is_empty() {
        field.push('.');
    }
    field.push_str(part);
}

/// Checks a room, message or user id. Braces would be hash tags in Redis key names.
pub fn check_id(id: &str, field: &str) -> Result<(), BackendError> {
    let reason = if id.is_empty() {
        "must not be empty"
    } else if id.len() > MAX_ID_BYTES {
        "too long"
    } else if id.contains(['{', '}']) || id.chars().any(char::is_control) {
        "braces and control characters are not allowed"
    } else {
        return Ok(());
    };
    Err(BackendError::bad(field, reason))
}

/// Checks a user name or nickname.
pub fn check_name(name: &str, field: &str) -> Result<(), BackendError> {
    let reason = if name.is_empty() {
        "must not be empty"
    } else if name.chars().count() > MAX_NAME_CHARS {
        "too long"
    } else if name.trim() != name || name.contains(['{', '}']) || name.chars().any(char::is_control) {
        "outer blanks, braces and control characters are not allowed"
    } else {
        return Ok(());
    };
    Err(BackendError::bad(field, reason))
}

/// Checks the length of an array.
pub fn check_count(count: usize, limit: usize, field: &str) -> Result<(), BackendError> {
    if count > limit {
        return Err(BackendError::TooLarge {
            field: field.to_owned(),
            limit: format!("{limit} entries"),
        });
    }
    Ok(())
}

/// A time as clients write it: Unix ms as a number or a string, or ISO 8601.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Time {
    Millis(i64),
    Fraction(f64),
    Text(String),
}

impl Time {
    /// Unix milliseconds.
    pub fn millis(&self, field: &str) -> Result<i64, BackendError> {
        match self {
            Self::Millis(ms) => Ok(*ms),
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the cast saturates, and fractions of a ms do not count"
            )]
            Self::Fraction(ms) => Ok(ms.floor() as i64),
            Self::Text(text) => parse_millis(text)
                .ok_or_else(|| BackendError::bad(field, "expected Unix milliseconds or an ISO 8601 time")),
        }
    }
}

fn parse_millis(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(ms) = text.parse::<i64>() {
        return Some(ms);
    }
    // In a query string the plus of an offset arrives as a blank.
    let text = text.replace(' ', "+");
    let time = OffsetDateTime::parse(&text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(&text, &Iso8601::DEFAULT))
        .ok()?;
    i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
}

/// The optional time of a field; null and the empty string are none.
pub fn optional_millis(time: Option<&Time>, field: &str) -> Result<Option<i64>, BackendError> {
    match time {
        None => Ok(None),
        Some(Time::Text(text)) if text.is_empty() => Ok(None),
        Some(time) => time.millis(field).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_millis;

    #[test]
    fn times_are_read_in_every_form_clients_use() {
        let ms = Some(1_700_000_000_123);
        for text in [
            "1700000000123",
            "2023-11-14T22:13:20.123Z",
            "2023-11-15T07:13:20.123+09:00",
            "2023-11-15T07:13:20.123 09:00",
        ] {
            assert_eq!(parse_millis(text), ms, "{text}");
        }
        for text in ["", "yesterday", "1.5", "2023-13-01T00:00:00Z", "99999999999999999999"] {
            assert_eq!(parse_millis(text), None, "{text}");
        }
    }
}
