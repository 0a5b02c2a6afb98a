//! Whether the servers can keep what roomcast promises: their settings, held against the durability level.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::prelude::*;

use super::{Redis, RedisError};
use crate::config::{ConfigError, Durability};

/// How long to wait before servers that did not answer are asked again.
const RETRY: Duration = Duration::from_millis(100);

/// Why the servers are not known to be as they must be.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Unreachable(#[from] RedisError),
}

impl Redis {
    /// Refuses servers that may throw away keys or cannot keep the durability level, and a cluster under the address of a
    /// single server; posts are refused until they are as they must be. `false` when a primary did not answer: not being
    /// reachable is no misconfiguration.
    pub async fn check_server(&self) -> Result<bool, ConfigError> {
        match self.look_at_settings().await {
            Ok(()) => {
                self.fit.store(true, Ordering::Release);
                Ok(true)
            }
            Err(Unfit::Config(error)) => {
                self.fit.store(false, Ordering::Release);
                Err(error)
            }
            Err(Unfit::Unreachable(error)) => {
                tracing::debug!(%error, "the servers' settings are not known yet");
                Ok(false)
            }
        }
    }

    /// As [`Self::check_server`], until every primary has answered.
    pub async fn wait_checked(&self) -> Result<(), ConfigError> {
        while !self.check_server().await? {
            tokio::time::sleep(RETRY).await;
        }
        Ok(())
    }

    async fn look_at_settings(&self) -> Result<(), Unfit> {
        for primary in self.each_primary()? {
            let info: String = primary.info(None).await.map_err(RedisError::from)?;
            check_info(&info, self.is_clustered())?;
            if self.settings.durability != Durability::Memory {
                check(
                    self.settings.durability,
                    self.settings.replicas,
                    &read_settings(&primary).await?,
                )?;
            }
        }
        Ok(())
    }
}

fn check_info(info: &str, clustered: bool) -> Result<(), ConfigError> {
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    if field("cluster_enabled") == Some("1") && !clustered {
        return Err(ConfigError::new(
            "REDIS_URL",
            "the server is a node of a cluster",
            "use redis-cluster://host:port, or rediss-cluster:// with TLS",
        ));
    }
    let policy = field("maxmemory_policy").unwrap_or("noeviction");
    if policy != "noeviction" {
        return Err(ConfigError::new(
            "REDIS_URL",
            format!("the server has maxmemory-policy {policy} and would silently throw away messages"),
            "set `maxmemory-policy noeviction` on every server",
        ));
    }
    Ok(())
}

/// What a server tells of its [`SETTINGS`]; it may refuse to.
async fn read_settings(primary: &Client) -> Result<HashMap<String, String>, RedisError> {
    let mut settings = HashMap::new();
    for name in SETTINGS {
        let answer: Result<HashMap<String, String>, _> = primary.config_get(name).await;
        match answer.map_err(RedisError::from) {
            Ok(found) => settings.extend(found),
            Err(RedisError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(settings)
}

/// The servers' settings that [`check`] looks at.
const SETTINGS: [&str; 3] = ["appendonly", "appendfsync", "min-replicas-to-write"];

/// Refuses a server whose settings cannot keep what the durability level promises; what it does not tell is missing.
fn check(durability: Durability, replicas: u32, settings: &HashMap<String, String>) -> Result<(), ConfigError> {
    let setting = |name: &str| settings.get(name).cloned();
    let refuse = |name: &str, found: Option<String>, cure: String| {
        let found = found.unwrap_or_else(|| "unknown: CONFIG GET is not allowed".to_owned());
        Err(ConfigError::new(
            "ROOMCAST_DURABILITY",
            format!(
                "`{}` cannot be promised: the server's {name} is {found}",
                durability.as_str()
            ),
            cure,
        ))
    };
    match durability {
        Durability::Memory => Ok(()),
        Durability::Fsync => {
            for (name, wanted) in [("appendonly", "yes"), ("appendfsync", "always")] {
                let found = setting(name);
                if found.as_deref() != Some(wanted) {
                    return refuse(
                        name,
                        found,
                        format!("set `{name} {wanted}` on the server, or ROOMCAST_DURABILITY=memory"),
                    );
                }
            }
            Ok(())
        }
        Durability::Replica => {
            let name = "min-replicas-to-write";
            let found = setting(name);
            let enough = found
                .as_deref()
                .and_then(|text| text.parse::<u32>().ok())
                .is_some_and(|n| n >= replicas);
            if enough {
                return Ok(());
            }
            refuse(
                name,
                found,
                format!("set `{name} {replicas}` on the server: a primary without replicas must not accept writes"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(durability: Durability, settings: &[(&str, &str)]) -> Result<(), String> {
        let settings = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        check(durability, 2, &settings.collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_level_that_the_server_cannot_keep_is_refused_with_the_cure() {
        assert_eq!(verdict(Durability::Memory, &[]), Ok(()));
        assert_eq!(
            verdict(Durability::Fsync, &[("appendonly", "yes"), ("appendfsync", "always")]),
            Ok(())
        );
        let error = verdict(Durability::Fsync, &[("appendonly", "yes"), ("appendfsync", "everysec")]).unwrap_err();
        assert!(
            error.contains("appendfsync is everysec") && error.contains("`appendfsync always`"),
            "{error}"
        );
        assert_eq!(verdict(Durability::Replica, &[("min-replicas-to-write", "2")]), Ok(()));
        let error = verdict(Durability::Replica, &[("min-replicas-to-write", "1")]).unwrap_err();
        assert!(error.contains("min-replicas-to-write 2"), "{error}");
        let error = verdict(Durability::Replica, &[]).unwrap_err();
        assert!(error.contains("CONFIG GET is not allowed"), "{error}");
    }
}
