//! The two REST services the node relies on, and the key set of access tokens: one pooled client, typed answers.
//!
//! An answer is a value, a refusal the contract names for that call, or an outage: a service that answers anything
//! else (another status, a redirect, a body of another shape) counts as away, so that its faults never punish a user.

mod call;
mod error;
mod health;
mod kubernetes;
mod messages;
mod rooms;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod transport;
mod wire;

use std::sync::Arc;

use reqwest::Url;

use crate::config::{Config, Secret};
use crate::telemetry::Metrics;

use call::Call;
pub use call::Service;
pub use error::UpstreamError;
pub use health::ServiceHealth;
pub use kubernetes::Pod;
pub use messages::{MessageQuery, RoomMessages};
pub use rooms::{Participant, RoomInfo};
pub use tokens::{TokenPair, VerifiedUser};
pub(crate) use transport::describe;

/// The REST services of one node or worker; share it in an `Arc`.
pub struct Upstream {
    client: reqwest::Client,
    bearer: Option<Secret>,
    addresses: Addresses,
    health: health::HealthMemory,
    metrics: Option<Arc<Metrics>>,
}

/// The addresses of the calls, joined and checked once.
struct Addresses {
    verify: Url,
    refresh: Url,
    check_room: Url,
    user_rooms: Url,
    delete_room: Url,
    get_messages: String,
    get_message: String,
    sync_rooms: Url,
    save_messages: Url,
}

impl Upstream {
    /// Builds the client; fails when an address is none or the certificates of the system cannot be read.
    pub fn new(config: &Config) -> Result<Self, UpstreamError> {
        let auth = |path: &str| join(config.auth_url.as_str(), path);
        let api = |path: &str| join(config.api_url.as_str(), path);
        let address =
            |text: String| Url::parse(&text).map_err(|_| UpstreamError::Setup(format!("bad address `{text}`")));
        Ok(Self {
            client: transport::build_client(config)?,
            bearer: config.upstream_token.clone(),
            addresses: Addresses {
                verify: address(auth(&config.path_verify))?,
                refresh: address(auth(&config.path_refresh))?,
                check_room: address(api(&config.path_check_room))?,
                user_rooms: address(api(&config.path_user_rooms))?,
                delete_room: address(api(&config.path_delete_room))?,
                get_messages: api(&config.path_get_messages),
                get_message: api(&config.path_get_message),
                sync_rooms: address(api(&config.path_sync_rooms))?,
                save_messages: address(api(&config.path_save_messages))?,
            },
            health: health::HealthMemory::default(),
            metrics: None,
        })
    }

    /// The same services, counting every call in `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// How `service` has answered lately.
    pub fn health(&self, service: Service) -> ServiceHealth {
        self.health.read(service)
    }

    /// Fetches the key set at `url`, without the bearer token: it may belong to a third party.
    pub async fn jwks(&self, url: &str) -> Result<String, UpstreamError> {
        let url = Url::parse(url).map_err(|_| UpstreamError::Setup("bad address of the key set".to_owned()))?;
        self.ask(Call::Jwks, self.client.get(url), |body| {
            String::from_utf8(body).map_err(|_| "no text".to_owned())
        })
        .await
    }
}

fn join(base: &str, path: &str) -> String {
    format!("{base}/{}", path.trim_start_matches('/').trim_end_matches('/'))
}
