//! This process' own pod, as the API server of Kubernetes knows it: only its deletion cost is ever written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Certificate, Url, header};

use super::{UpstreamError, describe};
use crate::config::Config;

/// What a ReplicaSet looks at when it has too many pods: those of the lowest cost go first.
const ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pod of this process.
#[derive(Debug)]
pub struct Pod {
    client: reqwest::Client,
    url: Url,
    token_file: PathBuf,
}

impl Pod {
    /// The pod that `ROOMCAST_POD` names; `None` where it names none.
    pub fn new(config: &Config) -> Result<Option<Self>, UpstreamError> {
        let Some(pod) = &config.pod else { return Ok(None) };
        let setup = |problem: String| UpstreamError::Setup(problem);
        let Some((namespace, name)) = pod.split_once('/') else {
            return Err(setup(format!("ROOMCAST_POD is `{pod}`; write namespace/name")));
        };
        let mut url = Url::parse(config.kubernetes_url.as_str())
            .map_err(|_| setup("ROOMCAST_KUBERNETES_URL is no address".to_owned()))?;
        url.path_segments_mut()
            .map_err(|()| setup("ROOMCAST_KUBERNETES_URL is no address of a server".to_owned()))?
            .pop_if_empty()
            .extend(["api", "v1", "namespaces", namespace, "pods", name]);
        let account = Path::new(&config.service_account);
        let mut builder = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("roomcast/", env!("CARGO_PKG_VERSION")));
        // The cluster signs its own certificate: no other authority counts.
        let authorities = if url.scheme() == "https" {
            let file = account.join("ca.crt");
            let pem = std::fs::read(&file).map_err(|error| {
                setup(format!(
                    "{}: {error}; mount the service account's token, or unset ROOMCAST_POD",
                    file.display()
                ))
            })?;
            Certificate::from_pem_bundle(&pem).map_err(|_| setup(format!("{}: no certificates", file.display())))?
        } else {
            Vec::new()
        };
        builder = builder.tls_certs_only(authorities);
        Ok(Some(Self {
            client: builder.build().map_err(|error| setup(describe(&error).to_owned()))?,
            url,
            token_file: account.join("token"),
        }))
    }

    /// Says how costly it is to delete this pod.
    pub async fn set_deletion_cost(&self, cost: i32) -> Result<(), UpstreamError> {
        let unavailable = |problem: String| UpstreamError::Unavailable(format!("Kubernetes: {problem}"));
        // Read each time: it is replaced every hour or so.
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|error| unavailable(format!("{}: {error}", self.token_file.display())))?;
        let mut patch = serde_json::json!({"metadata": {"annotations": {}}});
        patch["metadata"]["annotations"][ANNOTATION] = cost.to_string().into();
        let request = self
            .client
            .patch(self.url.clone())
            .bearer_auth(token.trim())
            .header(header::CONTENT_TYPE, "application/merge-patch+json")
            .body(patch.to_string());
        let answer = request
            .send()
            .await
            .map_err(|error| unavailable(describe(&error).to_owned()))?;
        match answer.status().as_u16() {
            200..=299 => Ok(()),
            status @ (401 | 403 | 404) => Err(UpstreamError::Refused {
                status,
                reason: "deletion cost",
            }),
            status => Err(unavailable(format!("unexpected status {status}"))),
        }
    }
}
