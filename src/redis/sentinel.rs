//! What the sentinels say: which server is the primary, and whether they are about to replace it.
//!
//! A primary that is replaced while it is healthy goes on acknowledging until a sentinel demotes it, some ten seconds, and
//! all of that is lost. So every sentinel is listened to: from the moment one of them looks for a replica to promote until
//! the new primary is named, nothing is said to the old one; then every connection is made anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fred::prelude::*;
use fred::types::config::Server;
use fred::types::{ClusterHash, CustomCommand};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a sentinel is asked that says nothing by itself.
const PERIOD: Duration = Duration::from_millis(250);
/// How long nothing is said to a primary that is to be replaced. A promotion is seen within two seconds; one that takes
/// longer may never come, because the replica is gone, and the sentinels would wait for it for minutes.
const REPLACING_MAX: Duration = Duration::from_secs(5);
/// How long the sentinels may disagree before connections are made anew: fred asks one of them, perhaps the last to know.
const DISAGREEING_MAX: Duration = Duration::from_secs(2);
/// How long a reconnect may take to begin.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The states of a failover in which the old primary is still named.
const REPLACING: [&str; 3] = ["select_slave", "send_slaveof_noone", "wait_promotion"];

/// Follows the sentinels until it is dropped.
pub(super) struct Sentinels {
    verdict: watch::Receiver<Verdict>,
    stop: CancellationToken,
}

/// What one sentinel has said last.
#[derive(Debug, Clone, Default)]
struct View {
    /// Whether it answers.
    heard: bool,
    primary: Option<(String, u16)>,
    /// The number of the failover that made it the primary.
    epoch: u64,
    /// Since when it has been about to replace the primary.
    replacing: Option<Instant>,
}

/// What follows from all views.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// The primary as the sentinels with the newest knowledge write it: one server, unless they write it differently.
    primaries: Vec<(String, u16)>,
    /// Whether it is about to be replaced.
    replacing: bool,
    /// Whether every sentinel that answers names it.
    agreed: bool,
}

impl Verdict {
    fn of(views: &[View], now: Instant) -> Self {
        let heard = views.iter().any(|view| view.heard);
        // When none answers, what they said last still holds; one that is gone is not believed against the others.
        let believed = || {
            let views = views.iter().filter(move |view| view.heard || !heard);
            views.filter_map(|view| view.primary.as_ref().map(|primary| (view, primary)))
        };
        let newest = believed().map(|(view, _)| view.epoch).max();
        let mut primaries = Vec::new();
        for (view, primary) in believed() {
            if Some(view.epoch) == newest && !primaries.contains(primary) {
                primaries.push(primary.clone());
            }
        }
        let is_recent = |since: Instant| now.duration_since(since) < REPLACING_MAX;
        Self {
            replacing: believed().any(|(view, _)| view.heard && view.replacing.is_some_and(is_recent)),
            agreed: believed().all(|(_, primary)| primaries.contains(primary)),
            primaries,
        }
    }

    fn names(&self, server: &Server) -> bool {
        self.primaries
            .iter()
            .any(|(host, port)| *host == *server.host && *port == server.port)
    }

    /// Whether a connected client is at another server than the primary.
    fn is_astray(&self, client: &impl ClientLike) -> bool {
        client.is_connected() && !client.active_connections().iter().any(|server| self.names(server))
    }
}

/// The views of all sentinels.
struct Council {
    views: Mutex<Vec<View>>,
    verdict: watch::Sender<Verdict>,
}

impl Council {
    fn hear(&self, sentinel: usize, said: Option<View>) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let view = &mut views[sentinel];
        match said {
            Some(mut said) => {
                said.replacing = said.replacing.map(|now| view.replacing.unwrap_or(now));
                *view = said;
            }
            None => view.heard = false,
        }
        let verdict = Verdict::of(&views, Instant::now());
        self.verdict.send_if_modified(|before| {
            let changed = *before != verdict;
            if changed {
                tracing::info!(?verdict, "the sentinels say");
                *before = verdict;
            }
            changed
        });
    }
}

impl Sentinels {
    /// Listens to sentinels, each behind an unconnected client of its own, about one primary.
    pub fn start(clients: Vec<Client>, service: &str) -> Self {
        let (verdict, heard) = watch::channel(Verdict::default());
        let stop = CancellationToken::new();
        let council = Arc::new(Council {
            views: Mutex::new(vec![View::default(); clients.len()]),
            verdict,
        });
        for (sentinel, client) in clients.into_iter().enumerate() {
            let (council, service, stop) = (council.clone(), service.to_owned(), stop.clone());
            tokio::spawn(async move {
                let listening = listen(&client, &service, |view| council.hear(sentinel, view));
                let _stopped = stop.run_until_cancelled(listening).await;
                let _closed = client.quit().await;
            });
        }
        Self { verdict: heard, stop }
    }

    /// Whether something may be said on this connection: it leads to the primary, and that one is to stay.
    pub fn permit(&self, client: &Client) -> bool {
        let verdict = self.verdict.borrow();
        !verdict.replacing && !verdict.is_astray(client)
    }

    /// Makes a connection anew whenever it is not to the primary.
    pub fn guide(&self, client: impl ClientLike + 'static) {
        let mut verdict = self.verdict.clone();
        tokio::spawn(async move {
            let mut astray: Option<Instant> = None;
            loop {
                let (is_astray, agreed) = {
                    let verdict = verdict.borrow_and_update();
                    let is_known = !verdict.primaries.is_empty();
                    (is_known && verdict.is_astray(&client), verdict.agreed)
                };
                astray = is_astray.then(|| astray.unwrap_or_else(Instant::now));
                if astray.is_some_and(|since| agreed || since.elapsed() >= DISAGREEING_MAX) {
                    tracing::info!(
                        client = client.id(),
                        "this connection leads to another server than the primary"
                    );
                    let reconnect = client.force_reconnection();
                    if tokio::time::timeout(RECONNECT_TIMEOUT, reconnect).await.is_err() {
                        tracing::warn!(client = client.id(), "not connected anew yet");
                    }
                }
                // A connection may also go astray by itself.
                if let Ok(Err(_)) = tokio::time::timeout(PERIOD, verdict.changed()).await {
                    return;
                }
            }
        });
    }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Asks a sentinel again and again, at once when it has something to say.
async fn listen(client: &Client, service: &str, hear: impl Fn(Option<View>)) {
    let _connection = client.connect();
    let (mut events, mut reconnects) = (client.message_rx(), client.reconnect_rx());
    let mut subscribed = false;
    loop {
        if !subscribed && client.is_connected() {
            subscribed = client.psubscribe("*").await.is_ok();
        }
        let said = match client.is_connected() {
            true => ask(client, service).await,
            false => Err(Error::new(ErrorKind::IO, "not connected")),
        };
        if let Err(error) = &said {
            tracing::debug!(%error, "a sentinel does not answer");
        }
        hear(said.ok());
        tokio::select! {
            _ = reconnects.recv() => subscribed = false,
            // Whatever it is, the answer to the next question says it.
            _ = events.recv() => {}
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

async fn ask(client: &Client, service: &str) -> Result<View, Error> {
    let command = || CustomCommand::new_static("SENTINEL", ClusterHash::FirstKey, false);
    // In this order: a promotion between the two is seen as an old failover's new address, never the other way round.
    let state: HashMap<String, String> = client.custom(command(), vec!["MASTER", service]).await?;
    let primary: Option<(String, u16)> = client
        .custom(command(), vec!["GET-MASTER-ADDR-BY-NAME", service])
        .await?;
    let is_replacing = state
        .get("failover-state")
        .is_some_and(|state| REPLACING.contains(&state.as_str()));
    Ok(View {
        heard: true,
        primary,
        epoch: state
            .get("config-epoch")
            .and_then(|epoch| epoch.parse().ok())
            .unwrap_or(0),
        replacing: is_replacing.then(Instant::now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(port: u16, epoch: u64) -> View {
        View {
            heard: true,
            primary: Some(("127.0.0.1".to_owned(), port)),
            epoch,
            replacing: None,
        }
    }

    fn ports(verdict: &Verdict) -> Vec<u16> {
        verdict.primaries.iter().map(|(_, port)| *port).collect()
    }

    #[test]
    fn the_sentinel_with_the_newest_knowledge_is_believed() {
        let now = Instant::now();
        let verdict = Verdict::of(&[view(1, 3), view(2, 4), view(1, 3)], now);
        assert_eq!((ports(&verdict), verdict.agreed), (vec![2], false));
        assert!(verdict.names(&Server::new("127.0.0.1", 2)) && !verdict.names(&Server::new("127.0.0.1", 1)));
        let verdict = Verdict::of(&[view(2, 4), View::default(), view(2, 4)], now);
        assert_eq!((ports(&verdict), verdict.agreed), (vec![2], true));
    }

    #[test]
    fn one_that_is_gone_is_believed_only_when_nobody_answers() {
        let now = Instant::now();
        let gone = View {
            heard: false,
            ..view(2, 9)
        };
        assert_eq!(ports(&Verdict::of(&[gone.clone(), view(1, 3)], now)), [1]);
        assert_eq!(ports(&Verdict::of(&[gone, View::default()], now)), [2]);
    }

    #[test]
    fn a_replacement_that_does_not_come_is_not_awaited_for_ever() {
        let now = Instant::now();
        let replacing = View {
            replacing: Some(now),
            ..view(1, 3)
        };
        let views = [view(1, 3), replacing];
        assert!(Verdict::of(&views, now).replacing);
        assert!(!Verdict::of(&views, now + REPLACING_MAX).replacing);
    }
}
