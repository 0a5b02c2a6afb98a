//! When a post counts as stored: with the script's answer, with the disk, or with the replicas.
//!
//! * `memory`: the answer is enough.
//! * `fsync`: the servers run `appendfsync always`, so an answer is only given once the write is on disk; that is checked
//!   at start. `WAITAOF` with a slower policy would take up to the second between two of its syncs.
//! * `replica`: `WAIT` on the connection that carried the post; elsewhere it returns at once. A `WAIT` covers everything
//!   the connection has written, so the posts that are answered while one is under way share the next one, and posts
//!   have connections of their own, because a `WAIT` holds up what comes behind it.

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::InfoKind;
use tokio::sync::{mpsc, oneshot};

use super::RedisError;
use crate::config::{ConfigError, Durability};

/// Posts that wait for one confirmation at most; more share the next.
const GROUP_MAX: usize = 1024;

/// What a server calls the history that it writes: it changes in every restart and failover.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Replid(String);

impl Replid {
    /// From an epoch that was current when the script ran: its beginning is that of the server's `master_replid`.
    pub fn of_epoch(epoch: &str) -> Self {
        Self(epoch.chars().take(8).collect())
    }

    fn of_info(info: &str) -> Option<Self> {
        let replid = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?;
        Some(Self::of_epoch(replid.trim()))
    }
}

struct Wish {
    replid: Replid,
    done: oneshot::Sender<bool>,
}

/// Confirms what one connection has written.
pub(super) struct Commits {
    client: Client,
    wishes: mpsc::UnboundedSender<Wish>,
}

impl Commits {
    /// Starts to confirm writes of `client`: each must be on `replicas` replicas within `timeout`.
    pub fn start(client: Client, replicas: u32, timeout: Duration) -> Self {
        // Bounded by the posts under way: each waits for its wish.
        let (wishes, wished) = mpsc::unbounded_channel();
        tokio::spawn(confirm(client.clone(), replicas, timeout, wished));
        Self { client, wishes }
    }

    /// Whether the connection stands.
    pub fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Resolves when everything that was answered on the connection before is replicated.
    ///
    /// [`RedisError::Uncertain`]: not in time, or the server has another history than the one that answered.
    pub fn wait(&self, replid: Replid) -> impl Future<Output = Result<(), RedisError>> + Send + use<> {
        let (done, confirmed) = oneshot::channel();
        // A closed channel drops the wish, and with it the other end.
        let _closed = self.wishes.send(Wish { replid, done });
        async move {
            match confirmed.await {
                Ok(true) => Ok(()),
                _ => Err(RedisError::Uncertain("not replicated in time".to_owned())),
            }
        }
    }
}

async fn confirm(client: Client, replicas: u32, timeout: Duration, mut wished: mpsc::UnboundedReceiver<Wish>) {
    let mut group = Vec::new();
    while wished.recv_many(&mut group, GROUP_MAX).await > 0 {
        let holder = replicated(&client, replicas, timeout).await;
        for wish in group.drain(..) {
            let _gone = wish.done.send(holder.as_ref() == Some(&wish.replid));
        }
    }
}

/// Waits for the replicas; tells the history of the server that has them.
async fn replicated(client: &Client, replicas: u32, timeout: Duration) -> Option<Replid> {
    let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    // One behind the other on the same connection: a reconnect between the post and here shows in the history.
    let (reached, info): (Result<i64, Error>, Result<String, Error>) = futures::join!(
        client.wait(i64::from(replicas), timeout),
        client.info(Some(InfoKind::Replication))
    );
    match (reached, info) {
        (Ok(reached), Ok(info)) if reached >= i64::from(replicas) => Replid::of_info(&info),
        (Ok(reached), Ok(_)) => {
            tracing::warn!(reached, wanted = replicas, "posts are not replicated in time");
            None
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::warn!(%error, "posts are not known to be replicated");
            None
        }
    }
}

/// The servers' settings that [`check`] looks at.
pub(super) const SETTINGS: [&str; 3] = ["appendonly", "appendfsync", "min-replicas-to-write"];

/// Refuses a server whose settings cannot keep what the durability level promises; what it does not tell is missing.
pub(super) fn check(
    durability: Durability,
    replicas: u32,
    settings: &HashMap<String, String>,
) -> Result<(), ConfigError> {
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

    #[test]
    fn a_history_is_known_by_the_beginning_of_its_id() {
        let info = "# Replication\r\nrole:master\r\nmaster_replid:0123456789abcdef\r\nmaster_replid2:00\r\n";
        assert_eq!(
            Replid::of_info(info),
            Some(Replid::of_epoch("01234567-1700000000000000"))
        );
    }
}
