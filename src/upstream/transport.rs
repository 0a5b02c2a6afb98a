//! One exchange with a service: bounded in time and size, judged by the contract, remembered for readiness.

use std::error::Error;
use std::time::{Duration, Instant};

use reqwest::{RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use crate::config::Config;

use super::{Call, Service, Upstream, UpstreamError};

/// The largest answer read; a thousand rooms of a sync stay well below it.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// How much of a refusal's body is read, only so that the connection can be used again.
const MAX_REFUSAL_BODY: usize = 64 * 1024;

/// Idle connections are dropped before the service drops them under a request: Node.js closes after 5 s.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Builds the pooled client: no redirects (they would carry tokens elsewhere), no proxy from the environment.
pub(super) fn build_client(config: &Config) -> Result<reqwest::Client, UpstreamError> {
    let timeout = *config.upstream_timeout;
    let mut builder = reqwest::Client::builder()
        .timeout(timeout)
        .connect_timeout(timeout)
        .pool_idle_timeout(POOL_IDLE)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")));
    let tls = [Some(&config.auth_url), Some(&config.api_url), config.jwks_url.as_ref()]
        .into_iter()
        .flatten()
        .any(|url| url.as_str().starts_with("https:"));
    if !tls {
        // Reading the system's certificates fails in an image that has none, and nobody needs them here.
        builder = builder.tls_certs_only([]);
    }
    builder
        .build()
        .map_err(|error| UpstreamError::Setup(describe(&error).to_owned()))
}

impl Upstream {
    /// Posts `body` as JSON and reads the answer as `T`.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        call: Call,
        url: &Url,
        body: &impl serde::Serialize,
    ) -> Result<T, UpstreamError> {
        self.ask(call, self.client.post(url.clone()).json(body), parse).await
    }

    /// Sends `request`, reads the answer with `read` and keeps the books.
    pub(super) async fn ask<T>(
        &self,
        call: Call,
        request: RequestBuilder,
        read: impl FnOnce(Vec<u8>) -> Result<T, String>,
    ) -> Result<T, UpstreamError> {
        let request = match (&self.bearer, call.service()) {
            (Some(token), Service::Auth | Service::Api) => request.bearer_auth(token.expose()),
            _ => request,
        };
        let started = Instant::now();
        let outcome = exchange(call, request).await.and_then(|body| {
            read(body).map_err(|problem| UpstreamError::Unavailable(format!("{}: {problem}", call.as_str())))
        });
        if let Some(metrics) = &self.metrics {
            metrics
                .upstream_request_duration_seconds
                .observe(call.as_str(), started.elapsed());
        }
        self.note(call, outcome.as_ref().err());
        outcome
    }

    fn note(&self, call: Call, error: Option<&UpstreamError>) {
        let service = call.service();
        let result = error.map_or("ok", UpstreamError::code);
        if let Some(metrics) = &self.metrics {
            metrics.upstream_requests_total.inc([call.as_str(), result]);
        }
        // Only the first failure and the recovery are worth a line: an outage means thousands of failed calls.
        match error {
            None | Some(UpstreamError::Refused { .. }) => {
                let failures = self.health.note_success(service);
                if failures > 0 {
                    tracing::info!(service = service.as_str(), failures, "service answers again");
                }
            }
            Some(error) => {
                if self.health.note_failure(service) == 0 {
                    tracing::warn!(service = service.as_str(), %error, "service does not answer as agreed");
                } else {
                    tracing::debug!(service = service.as_str(), %error, "service call failed");
                }
            }
        }
    }
}

async fn exchange(call: Call, request: RequestBuilder) -> Result<Vec<u8>, UpstreamError> {
    let unavailable = |problem: &str| UpstreamError::Unavailable(format!("{}: {problem}", call.as_str()));
    let response = request.send().await.map_err(|error| unavailable(describe(&error)))?;
    let status = response.status();
    if status.is_success() {
        return read_body(response, MAX_BODY).await.map_err(unavailable);
    }
    let _ = read_body(response, MAX_REFUSAL_BODY).await;
    let status = status.as_u16();
    match call.refusal(status) {
        Some(reason) => Err(UpstreamError::Refused { status, reason }),
        None => Err(unavailable(&format!("unexpected status {status}"))),
    }
}

async fn read_body(mut response: Response, limit: usize) -> Result<Vec<u8>, &'static str> {
    const TOO_LARGE: &str = "answer too large";
    let announced = usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(TOO_LARGE);
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > limit {
            return Err(TOO_LARGE);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Reads JSON; the error tells the place but not the text, which may be a token.
pub(super) fn parse<T: DeserializeOwned>(body: Vec<u8>) -> Result<T, String> {
    serde_json::from_slice(&body)
        .map_err(|error| format!("unexpected answer at line {} column {}", error.line(), error.column()))
}

/// A fixed text for a failure of the transport: reqwest's own names the address, with ids in it.
pub(crate) fn describe(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "timed out";
    }
    if error.is_builder() {
        return "the client cannot be built (are the system's certificates readable?)";
    }
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            match io.kind() {
                std::io::ErrorKind::ConnectionRefused => return "connection refused",
                std::io::ErrorKind::ConnectionReset => return "connection reset",
                std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
                    return "network unreachable";
                }
                _ => {}
            }
        }
        cause = inner.source();
    }
    if error.is_connect() {
        "cannot connect (name, route or TLS)"
    } else {
        "connection broke"
    }
}
