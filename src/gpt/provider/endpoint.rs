//! One endpoint: its address, key and model, and the call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, Url};
use tokio::time::{Instant, timeout_at};

use super::breaker::{Breaker, Permit};
use super::reply::{Limits, ReplyStream};
use super::{Prompt, ProviderError, refusal, wire};
use crate::config::{Config, ConfigError};
use crate::upstream::describe;

/// How much of a refusal is read: its error object is at the beginning.
const MAX_REFUSAL: usize = 64 * 1024;

pub(super) struct Endpoint {
    pub(super) breaker: Arc<Breaker>,
    url: Url,
    bearer: Option<HeaderValue>,
    model: Arc<str>,
    /// Whether the model there takes the limit of a reply only under its newer name; found out by asking.
    completion_field: AtomicBool,
}

/// The endpoints in order of preference, each with its key and model.
pub(super) fn from_settings(config: &Config) -> Result<Vec<Arc<Endpoint>>, ConfigError> {
    let count = config.gpt_base_url.len();
    let keys: Vec<&str> = match &config.gpt_api_key {
        Some(keys) => keys.expose().split(',').map(str::trim).collect(),
        None => vec![""],
    };
    let models: Vec<&str> = config.gpt_model.iter().map(String::as_str).collect();
    for (name, given) in [("GPT_API_KEY", keys.len()), ("GPT_MODEL", models.len())] {
        if given != 1 && given != count {
            return Err(ConfigError::new(
                name,
                format!("has {given} items for {count} addresses in GPT_BASE_URL"),
                "give one for all of them, or one for each in the same order",
            ));
        }
    }
    let of_all_or_each = |items: &[&str], index: usize| {
        items
            .get(index)
            .or(items.first())
            .copied()
            .unwrap_or_default()
            .to_owned()
    };
    config
        .gpt_base_url
        .iter()
        .enumerate()
        .map(|(index, base)| {
            let url = address(base.as_str()).ok_or_else(|| {
                ConfigError::new(
                    "GPT_BASE_URL",
                    "has an address without a path",
                    "use addresses such as https://api.openai.com/v1",
                )
            })?;
            let label = format!(
                "{}:{}",
                url.host_str().unwrap_or_default(),
                url.port_or_known_default().unwrap_or_default()
            );
            Ok(Arc::new(Endpoint {
                breaker: Arc::new(Breaker::new(label)),
                url,
                bearer: bearer(&of_all_or_each(&keys, index))?,
                model: of_all_or_each(&models, index).into(),
                completion_field: AtomicBool::new(false),
            }))
        })
        .collect()
}

/// The address of the call; a query of the base (some gateways have one) stays.
fn address(base: &str) -> Option<Url> {
    let mut url = Url::parse(base).ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["chat", "completions"]);
    Some(url)
}

fn bearer(key: &str) -> Result<Option<HeaderValue>, ConfigError> {
    if key.is_empty() {
        return Ok(None);
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
        ConfigError::new(
            "GPT_API_KEY",
            "has characters that no header can carry",
            "give the key alone, without quotes or line feeds",
        )
    })?;
    // Libraries below show it as such in their logs.
    value.set_sensitive(true);
    Ok(Some(value))
}

impl Endpoint {
    /// Asks for a reply and waits for its first token, within the time for that.
    pub(super) async fn ask(
        &self,
        client: &Client,
        prompt: &Prompt,
        temperature: Option<f32>,
        limits: &Limits,
        mut permit: Permit,
    ) -> Result<ReplyStream, ProviderError> {
        let until = Instant::now() + limits.first_token;
        let answer = timeout_at(until, self.call(client, prompt, temperature)).await;
        match answer.unwrap_or(Err(ProviderError::Timeout("first token"))) {
            Ok(response) => ReplyStream::begin(response, self.model.clone(), limits, until, permit).await,
            Err(error) => {
                permit.failed(&error, std::time::Instant::now());
                Err(error)
            }
        }
    }

    async fn call(
        &self,
        client: &Client,
        prompt: &Prompt,
        temperature: Option<f32>,
    ) -> Result<Response, ProviderError> {
        loop {
            let completion_field = self.completion_field.load(Ordering::Relaxed);
            let body = wire::Request::new(prompt, &self.model, temperature, completion_field);
            let mut request = client.post(self.url.clone()).json(&body);
            if let Some(bearer) = &self.bearer {
                request = request.header(AUTHORIZATION, bearer.clone());
            }
            let response = request
                .send()
                .await
                .map_err(|error| ProviderError::unavailable(describe(&error)))?;
            if response.status().is_success() {
                return check_type(response);
            }
            let (status, headers) = (response.status(), response.headers().clone());
            let refusal = read_refusal(response).await;
            if !completion_field && refusal::wants_completion_field(status, &refusal) {
                self.completion_field.store(true, Ordering::Relaxed);
                continue;
            }
            return Err(refusal::judge(status, &headers, &refusal));
        }
    }
}

fn check_type(response: Response) -> Result<Response, ProviderError> {
    let kind = response.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
        Ok(response)
    } else {
        Err(ProviderError::BadStream("the answer is no event stream"))
    }
}

/// The beginning of a refusal; what cannot be read is left out, the status says enough.
async fn read_refusal(mut response: Response) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let room = MAX_REFUSAL - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_REFUSAL {
            break;
        }
    }
    body
}
