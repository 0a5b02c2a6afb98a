//! The node's periodic work: its liveness in Redis, what sockets need renewed, and the traces of dead nodes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::succession::{Succession, write_anew};
use crate::model::{Scope, UserId};
use crate::ops::Health;
use crate::redis::{LEASE_RENEW, Load, RedisError, USER_ROOMS_TTL};
use crate::socket::{App, Inbox, Job, Live};

/// The pace of everything here.
const TICK: Duration = Duration::from_millis(500);
/// A failover is over sooner, and a node that every other would follow into unreadiness helps nobody.
const UNREADY_AFTER: Duration = Duration::from_secs(5);
/// How often the node's liveness is renewed: several times within its life.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// How often lists are retried and caches swept.
pub const FLUSH: Duration = Duration::from_secs(5);
/// How often the counts of those are written who say much: other nodes know by then what a user took here.
const COUNTS: Duration = Duration::from_secs(1);
/// How often the bans known here are compared with those in Redis: what a node missed, or Redis lost, is found then.
const BANS: Duration = Duration::from_secs(30);
/// Calls of one kind under way at once.
const PARALLEL: usize = 64;
/// How often room lists are renewed: at least twice within their life.
const RENEW: Duration = Duration::from_secs(USER_ROOMS_TTL.as_secs() / 3);
/// How often dead nodes are looked for.
const REAP_PERIOD: Duration = Duration::from_secs(10);
/// How long Redis must have been up and reachable before anybody is declared dead: all others need the time to return.
const REAP_AFTER: Duration = Duration::from_secs(60);
/// Users renewed by one pipeline.
const BATCH: usize = 500;

/// Runs until cancelled.
pub async fn keep(app: Arc<App>, health: Health) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut heartbeat, mut flushed, mut renewed) = (Instant::now(), Instant::now(), Instant::now());
    let (mut counted, mut compared, mut leased) = (Instant::now(), Instant::now(), Instant::now());
    let mut compare = false;
    let (mut connected, mut changed) = (true, Instant::now());
    let mut succession = Succession::default();
    loop {
        ticks.tick().await;
        if app.crashed.load(std::sync::atomic::Ordering::Acquire) {
            return;
        }
        let now_connected = app.redis.is_connected();
        if now_connected != connected {
            connected = now_connected;
            changed = Instant::now();
            tracing::warn!(connected, "connection to Redis changed");
            // Bans may wait to be written, or may have been lost.
            compare = true;
        }
        if connected {
            health.set("redis", Ok(()));
        } else if changed.elapsed() >= UNREADY_AFTER {
            health.set("redis", Err("not reachable"));
        }
        app.deliver.sweep();
        // The frozen process is the dangerous one: liveness first, also right after an outage.
        if heartbeat.elapsed() >= HEARTBEAT && connected {
            heartbeat = Instant::now();
            beat(&app, &health).await;
            succession.look(&app, &health).await;
        }
        if counted.elapsed() >= COUNTS && connected {
            counted = Instant::now();
            let within = flushed.elapsed().max(COUNTS);
            flush(&app, within, |count| app.guard.is_worth_settling(count, within)).await;
        }
        if (compare || compared.elapsed() >= BANS) && connected {
            compared = Instant::now();
            let result = app.guard.resync().await;
            compare = result.is_err();
            if let Err(error) = result {
                tracing::debug!(%error, "bans not compared");
            }
        }
        if leased.elapsed() >= LEASE_RENEW && connected {
            leased = Instant::now();
            renew_leases(&app).await;
        }
        if flushed.elapsed() >= FLUSH && connected {
            flush(&app, flushed.elapsed(), |_| true).await;
            flushed = Instant::now();
            app.guard.sweep();
            retry_lists(&app);
            app.chat.sweep_lists();
            app.transports.sweep(|sid| app.sockets.contains_key(&sid));
        }
        if renewed.elapsed() >= RENEW && connected {
            renewed = Instant::now();
            let users: Vec<UserId> = app.chat.connected_users();
            for batch in users.chunks(BATCH) {
                if let Err(error) = app.redis.renew_user_rooms(batch).await {
                    tracing::debug!(%error, "room lists not renewed");
                }
            }
        }
    }
}

/// Renews the node's liveness. A node whose liveness had expired is being reaped: it takes a new name and writes all its
/// sockets anew.
async fn beat(app: &Arc<App>, health: &Health) {
    match app.redis.renew_node(&app.node.get(), load(app, health)).await {
        Ok(true) => return,
        Ok(false) => {}
        Err(error) => {
            tracing::debug!(%error, "heartbeat failed");
            return;
        }
    }
    // The old name is cleaned up first, by us or by whoever has begun: doing it later would remove what is written now.
    let old = app.node.get();
    match clean_up(app, &old).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            tracing::debug!(%error, "this node's old name is not cleaned up yet");
            return;
        }
    }
    let name = app.node.renew();
    tracing::warn!(node = %name, sockets = app.sockets.len(), "this node's liveness had expired: writing everything anew");
    if let Err(error) = app.redis.announce_node(&name, load(app, health)).await {
        tracing::warn!(%error, "not announced");
    }
    write_anew(app);
}

/// What this node says of itself.
fn load(app: &App, health: &Health) -> Load {
    Load {
        sockets: app.sockets.len(),
        is_draining: health.is_draining(),
    }
}

/// Removes what is left under a name that expired; `false` while another node is at it.
async fn clean_up(app: &App, old: &str) -> Result<bool, RedisError> {
    Ok(app.redis.reap_node(old).await?.is_some() || !app.redis.is_known_node(old).await?)
}

/// Renews what counts the sockets of an address and of a user, also where it was lost.
async fn renew_leases(app: &App) {
    let mut sockets: HashMap<Scope, Vec<String>> = HashMap::new();
    for Live { session, .. } in app.live() {
        for (scope, socket) in app
            .guard
            .leases(session.address, Some(&session.user()), session.sid.as_str())
        {
            sockets.entry(scope).or_default().push(socket);
        }
    }
    let failed = futures::stream::iter(sockets)
        .map(|(scope, sockets)| async move { app.redis.renew_leases(&scope, sockets).await.is_err() })
        .buffer_unordered(PARALLEL)
        .filter(|failed| std::future::ready(*failed))
        .count()
        .await;
    if failed > 0 {
        tracing::debug!(failed, "leases not renewed");
    }
}

/// Writes those counts of messages that are wanted, taken within some time, and removes sockets that could not be removed
/// before.
pub async fn flush(app: &Arc<App>, within: Duration, wanted: impl Fn(u32) -> bool) {
    let counts: Vec<(UserId, u32)> = app
        .message_counts
        .iter()
        .filter(|entry| wanted(*entry.value()))
        .map(|entry| (entry.key().clone(), *entry.value()))
        .collect();
    for batch in counts.chunks(BATCH) {
        if let Err(error) = app.redis.count_messages(batch).await {
            tracing::debug!(%error, "message counts not written");
            break;
        }
        for (user, count) in batch {
            if app.guard.is_worth_settling(*count, within)
                && let Err(error) = app.guard.settle_messages(user, *count).await
            {
                tracing::debug!(%error, "messages not settled");
            }
        }
        for (user, written) in batch {
            if let Some(mut count) = app.message_counts.get_mut(user) {
                *count -= written;
            }
            app.message_counts.remove_if(user, |_, count| *count == 0);
        }
    }
    let orphans: Vec<_> = app.orphans.iter().map(|entry| entry.value().clone()).collect();
    for orphan in orphans {
        match app.redis.unregister_socket(&app.node.get(), &orphan).await {
            Ok(()) => drop(app.orphans.remove(&orphan.socket)),
            Err(_) => break,
        }
    }
}

/// Room lists that could not be fetched when their sockets connected, and sockets that could not be written.
fn retry_lists(app: &App) {
    for Live { session, socket } in app.live() {
        if !session.rooms.was_fetched() && session.cut_reason().is_none() {
            session.refresh_rooms(&socket);
        } else if session.is_unregistered() {
            let _queued = Inbox::push(&session, &socket, Job::Register);
        }
    }
}

/// Removes what dead nodes left behind.
pub async fn reap(app: Arc<App>) {
    let mut reachable_since: Option<Instant> = None;
    loop {
        tokio::time::sleep(REAP_PERIOD).await;
        if app.crashed.load(std::sync::atomic::Ordering::Acquire) {
            return;
        }
        let Ok(uptime) = app.redis.uptime().await else {
            reachable_since = None;
            continue;
        };
        let since = *reachable_since.get_or_insert_with(Instant::now);
        if uptime < REAP_AFTER || since.elapsed() < REAP_AFTER {
            continue;
        }
        let silent = match app.redis.silent_nodes().await {
            Ok(silent) => silent,
            Err(error) => {
                tracing::debug!(%error, "dead nodes not looked for");
                continue;
            }
        };
        for node in silent {
            match app.redis.reap_node(&node).await {
                Ok(Some(sockets)) => {
                    tracing::warn!(node, sockets, "removed the traces of a dead node");
                    app.metrics.reaped_sockets_total.inc_by(sockets as u64);
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(node, %error, "a dead node was not cleaned up"),
            }
        }
    }
}
