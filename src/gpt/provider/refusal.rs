//! What an endpoint means by a status or an error object.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::ProviderError;

/// Longest pause that is believed: a wrong clock over there must not stop replies for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// Longest error code passed on.
const MAX_CODE: usize = 48;
/// How endpoints say that a prompt is too long, in their codes and texts.
const TOO_LONG: [&str; 8] = [
    "context length",
    "context_length",
    "maximum context",
    "context window",
    "context size",
    "too many tokens",
    "prompt is too long",
    "input is too long",
];

/// The error of an answer with `status` and `body`.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ProviderError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    judge_code(
        status.as_u16(),
        retry_after(headers),
        body.get("error").unwrap_or(&body),
    )
}

/// The error of an `error` object within a stream; its `code` may be a status.
pub(super) fn judge_event(error: &Value) -> ProviderError {
    let status = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    match u16::try_from(status).unwrap_or_default() {
        0 if mentions(error, &["rate_limit", "rate limit"]) => ProviderError::RateLimited { retry_after: None },
        0 if mentions(error, &TOO_LONG) => ProviderError::ContextTooLong,
        0 => ProviderError::unavailable(with_code("error within the stream", error)),
        status => judge_code(status, None, error),
    }
}

/// Whether the limit of the reply must be sent under its newer name.
pub(super) fn wants_completion_field(status: StatusCode, body: &[u8]) -> bool {
    status == StatusCode::BAD_REQUEST
        && serde_json::from_slice::<Value>(body)
            .is_ok_and(|body| mentions(body.get("error").unwrap_or(&body), &["max_completion_tokens"]))
}

fn judge_code(status: u16, retry_after: Option<Duration>, error: &Value) -> ProviderError {
    let too_long = || mentions(error, &TOO_LONG);
    match status {
        429 => ProviderError::RateLimited { retry_after },
        500..=599 if retry_after.is_some() => ProviderError::RateLimited { retry_after },
        400 | 422 if too_long() => ProviderError::ContextTooLong,
        413 => ProviderError::ContextTooLong,
        // Some gateways say so when a filter does not like the prompt; the key is fine then.
        403 if mentions(error, &["moderation", "content_filter", "flagged"]) => {
            ProviderError::Refused("its filter does not like it".to_owned())
        }
        401..=403 => ProviderError::Unauthorized(status),
        400 | 422 => ProviderError::Refused(with_code(&format!("status {status}"), error)),
        404 => ProviderError::unavailable(with_code("status 404: no such model or path there", error)),
        // Some servers of models have no status for it.
        500 if too_long() => ProviderError::ContextTooLong,
        _ => ProviderError::unavailable(with_code(&format!("unexpected status {status}"), error)),
    }
}

/// Whether the code, the type or the text of `error` (an object or a text) holds one of `words`.
fn mentions(error: &Value, words: &[&str]) -> bool {
    let fields = ["code", "type", "message", "detail"].map(|name| error.get(name));
    fields
        .into_iter()
        .flatten()
        .chain([error])
        .filter_map(Value::as_str)
        .map(str::to_lowercase)
        .any(|text| words.iter().any(|word| text.contains(word)))
}

/// `problem` with the endpoint's own code, if that is a plain word: its texts quote keys and prompts.
fn with_code(problem: &str, error: &Value) -> String {
    let word = |text: &&str| {
        !text.is_empty() && text.len() <= MAX_CODE && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    ["code", "type"]
        .into_iter()
        .filter_map(|name| error.get(name)?.as_str())
        .find(word)
        .map_or_else(|| problem.to_owned(), |code| format!("{problem} ({code})"))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(ms) = text("retry-after-ms").and_then(|text| text.parse().ok()) {
        return Some(Duration::from_millis(ms).min(RETRY_AFTER_MAX));
    }
    let text = text(RETRY_AFTER.as_str())?;
    let pause = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
            // A moment of the past asks for no pause.
            (at - OffsetDateTime::now_utc()).try_into().unwrap_or_default()
        }
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(status: u16, body: &str) -> &'static str {
        judge(
            StatusCode::from_u16(status).unwrap(),
            &HeaderMap::new(),
            body.as_bytes(),
        )
        .code()
    }

    #[test]
    fn each_status_has_its_meaning() {
        for (status, body, expected) in [
            (401, "", "unauthorized"),
            (402, "", "unauthorized"),
            (
                403,
                r#"{"error":{"message":"no access to this model"}}"#,
                "unauthorized",
            ),
            (403, r#"{"error":{"message":"Your input was flagged"}}"#, "refused"),
            (400, r#"{"error":{"code":"content_filter"}}"#, "refused"),
            (
                400,
                r#"{"error":{"code":"context_length_exceeded"}}"#,
                "context_too_long",
            ),
            (
                400,
                r#"{"error":"Input is too long for requested model."}"#,
                "context_too_long",
            ),
            (
                400,
                r#"{"message":"This model's maximum context length is 8 tokens"}"#,
                "context_too_long",
            ),
            (413, "<html>", "context_too_long"),
            (429, "", "rate_limited"),
            (404, "", "provider_unavailable"),
            (302, "", "provider_unavailable"),
            (500, "<html>", "provider_unavailable"),
            (503, "", "provider_unavailable"),
        ] {
            assert_eq!(code(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn what_an_endpoint_writes_is_not_passed_on_but_for_its_code() {
        let body = r#"{"error":{"message":"Incorrect key sk-Abc1","type":"sk-Abc1","code":"invalid_request_error"}}"#;
        let error = judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes());
        assert!(
            error.to_string().ends_with("status 400 (invalid_request_error)"),
            "{error}"
        );
        let body = r#"{"error":{"message":"sk-Abc1","type":"sk-Abc1"}}"#;
        let error = judge(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes());
        assert!(error.to_string().ends_with("status 400"), "{error}");
    }

    #[test]
    fn a_pause_is_seconds_milliseconds_or_a_moment_and_never_long() {
        let pause = |name: &'static str, value: &str| {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            judge(StatusCode::SERVICE_UNAVAILABLE, &headers, b"").retry_after()
        };
        assert_eq!(pause("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(pause("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(pause("retry-after", "86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(
            pause("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(
            pause("retry-after", "Wed, 21 Oct 2099 07:28:00 GMT"),
            Some(RETRY_AFTER_MAX)
        );
        assert_eq!(pause("retry-after", "soon"), None);
    }

    #[test]
    fn an_error_within_a_stream_has_a_meaning_too() {
        let code = |json: &str| judge_event(&serde_json::from_str(json).unwrap()).code();
        assert_eq!(code(r#"{"code":429,"message":"slow down"}"#), "rate_limited");
        assert_eq!(code(r#"{"type":"rate_limit_error"}"#), "rate_limited");
        assert_eq!(code(r#"{"code":"context_length_exceeded"}"#), "context_too_long");
        assert_eq!(code(r#"{"type":"server_error"}"#), "provider_unavailable");
        assert_eq!(code(r#""overloaded""#), "provider_unavailable");
    }
}
