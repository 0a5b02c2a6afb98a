//! When a post counts as stored: with the script's answer, with the disk, or with the replicas.
//!
//! * `memory`: the answer is enough.
//! * `fsync`: the servers run `appendfsync always`, so an answer is only given once the write is on disk; `fitness` checks
//!   that. `WAITAOF` with a slower policy would take up to the second between two of its syncs.
//! * `replica`: `WAIT` on the connection that carried the post; elsewhere it returns at once. A `WAIT` covers everything
//!   the connection has written, so the posts that are answered while one is under way share the next one, and posts
//!   have connections of their own, because a `WAIT` holds up what comes behind it.

use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::InfoKind;
use tokio::sync::{mpsc, oneshot};

use super::RedisError;

/// Posts that wait for one confirmation at most; more share the next.
const GROUP_MAX: usize = 1024;
/// A replica that is not further behind keeps up: they report once a second.
const PROMPT_MAX_SECONDS: i64 = 2;
/// How long what was written for a `WAIT` stays; nobody reads it.
const FENCE_MS: i64 = 60_000;
/// Within this time after a promotion every node has turned to the new primary.
const FAILOVER_MAX: Duration = Duration::from_secs(5);

/// What a server calls the history that it writes: it changes in every restart and failover.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replid(String);

impl Replid {
    /// From an epoch that was current when the script ran: its beginning is that of the server's `master_replid`.
    pub(super) fn of_epoch(epoch: &str) -> Self {
        Self(epoch.chars().take(8).collect())
    }

    pub(super) fn of_info(info: &str) -> Option<Self> {
        let replid = info.lines().find_map(|line| line.strip_prefix("master_replid:"))?;
        Some(Self::of_epoch(replid.trim()))
    }
}

struct Wish {
    /// A key at the server that has answered.
    fence: String,
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
    pub fn wait(&self, fence: String, replid: Replid) -> impl Future<Output = Result<(), RedisError>> + Send + use<> {
        let (done, confirmed) = oneshot::channel();
        // A closed channel drops the wish, and with it the other end.
        let _closed = self.wishes.send(Wish { fence, replid, done });
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
    let mut followers = Followers::default();
    while wished.recv_many(&mut group, GROUP_MAX).await > 0 {
        let fence = group[0].fence.clone();
        let holder = replicated(&client, fence, replicas, timeout, &mut followers).await;
        for wish in group.drain(..) {
            let _gone = wish.done.send(holder.as_ref() == Some(&wish.replid));
        }
    }
}

/// What a primary says about its replicas, and since when one of them is missing.
///
/// A replica that is promoted leaves its primary, which goes on acknowledging with the help of the others until clients
/// and sentinels have turned away from it; all of that is lost. So every replica that keeps up must have a write, and
/// when one has left, nothing counts as stored until the failover that may be behind it would be over.
#[derive(Debug, Default)]
struct Followers {
    replid: Option<Replid>,
    connected: usize,
    /// Those that acknowledge without delay.
    prompt: usize,
    left: Option<Instant>,
}

impl Followers {
    /// Reads `INFO replication`.
    fn read(&mut self, info: &str) {
        let replid = Replid::of_info(info);
        let lags = info.lines().filter_map(|line| {
            let (name, fields) = line.strip_prefix("slave")?.split_once(':')?;
            name.parse::<u32>().ok()?;
            // -1 at the turn of a second: the server takes the two times of this difference from clocks of which one is
            // some milliseconds behind.
            let lag = fields.trim().rsplit_once("lag=")?.1.parse::<i64>().ok()?;
            Some((fields.contains("state=online"), lag))
        });
        let (connected, prompt) = lags.fold((0, 0), |(connected, prompt), (online, lag)| {
            let is_prompt = online && lag <= PROMPT_MAX_SECONDS;
            (connected + 1, prompt + usize::from(is_prompt))
        });
        if self.replid != replid {
            *self = Self::default();
        } else if connected < self.connected {
            self.left = Some(Instant::now());
        }
        (self.replid, self.connected, self.prompt) = (replid, connected, prompt);
    }

    /// Whether one has left so recently that it may have been promoted.
    fn may_be_deposed(&self) -> bool {
        self.left.is_some_and(|left| left.elapsed() < FAILOVER_MAX)
    }
}

/// Waits for the replicas; tells the history of the server that has them.
///
/// A `WAIT` covers what the connection itself has written, on newer servers nothing else. What is to be confirmed may have
/// come over another one, before a reconnect or by the node that a resend has left: so each group writes a little first.
async fn replicated(
    client: &Client,
    fence: String,
    replicas: u32,
    timeout: Duration,
    followers: &mut Followers,
) -> Option<Replid> {
    if followers.replid.is_none() {
        followers.read(&client.info::<String>(Some(InfoKind::Replication)).await.ok()?);
    }
    let wanted = i64::from(replicas).max(i64::try_from(followers.prompt).unwrap_or(i64::MAX));
    let timeout = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    // One behind the other on the same connection: a reconnect between the post and here shows in the history.
    let (written, reached, info): (Result<(), Error>, Result<i64, Error>, Result<String, Error>) = futures::join!(
        client.set(fence, "", Some(Expiration::PX(FENCE_MS)), None, false),
        client.wait(wanted, timeout),
        client.info(Some(InfoKind::Replication))
    );
    match (written.and(reached), info) {
        (Ok(reached), Ok(info)) => {
            followers.read(&info);
            if reached >= wanted && !followers.may_be_deposed() {
                return followers.replid.clone();
            }
            tracing::warn!(reached, wanted, ?followers, "posts are not known to be replicated");
        }
        (Err(error), _) | (_, Err(error)) => tracing::warn!(%error, "posts are not known to be replicated"),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prompt_replica_counts_and_one_that_left_may_have_been_promoted() {
        let info = |replid: &str, lags: &[i64]| {
            let lines = lags
                .iter()
                .enumerate()
                .map(|(n, lag)| format!("slave{n}:ip=127.0.0.1,port=7,state=online,offset=5,lag={lag}\r\n"));
            let lines: String = lines.collect();
            format!(
                "role:master\r\nconnected_slaves:{}\r\nslave_priority:1\r\n{lines}master_replid:{replid}\r\n",
                lags.len()
            )
        };
        let mut followers = Followers::default();
        followers.read(&info("0123456789", &[0, 9]));
        assert_eq!((followers.connected, followers.prompt), (2, 1));
        assert!(!followers.may_be_deposed());
        followers.read(&info("0123456789", &[-1, 9]));
        assert_eq!((followers.connected, followers.prompt), (2, 1));
        assert!(!followers.may_be_deposed(), "nobody has left at the turn of a second");
        followers.read(&info("0123456789", &[0]));
        assert!(followers.may_be_deposed());
        followers.read(&info("aaaaaaaaaa", &[]));
        assert!(!followers.may_be_deposed(), "another primary has its own followers");
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
