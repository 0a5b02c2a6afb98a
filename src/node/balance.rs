//! A node with more than its share of the sockets sends some away, slowly, so that a new node gets its part.
//!
//! Nobody assigns sockets to nodes: the load balancer does when a client connects, and a websocket then stays for hours. After
//! a scale-out the new node would stay nearly empty, and after a rolling restart so would the last one.

mod policy;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::policy::Balance;
use self::policy::View;
use super::upkeep::HEARTBEAT;
use crate::ops::Health;
use crate::redis::Load;
use crate::socket::{App, Departure, Live};

/// Over how long the sockets of one step leave.
const STEP: Duration = Duration::from_secs(5);
/// Between two looks: whoever was sent away has found a node by then, and every node has told its new number.
const PAUSE: Duration = Duration::from_secs(HEARTBEAT.as_secs() + 2);

/// Runs until cancelled.
pub async fn keep(app: Arc<App>, health: Health, mut balance: Balance) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let loads = loads(&app, &health).await;
        let (name, sockets) = (app.node.get(), app.sockets.len());
        let step = balance.look(Instant::now(), &name, sockets, loads.as_deref());
        show(&app, step.view, step.is_futile);
        if step.count == 0 {
            continue;
        }
        tracing::info!(
            count = step.count,
            sockets,
            "more than this node's share: sending sockets away"
        );
        let oldest = oldest(app.live(), step.count);
        app.send_away(oldest, STEP, Departure::Rebalance, |_| {}).await;
    }
}

/// What all nodes say; nothing while this node or Redis is not well.
async fn loads(app: &App, health: &Health) -> Option<Vec<(String, Option<Load>)>> {
    if !health.is_ready() || !app.redis.is_reachable() {
        return None;
    }
    let loads = app.redis.loads().await;
    loads
        .inspect_err(|error| tracing::debug!(%error, "the loads of the nodes are not known"))
        .ok()
}

fn show(app: &App, view: Option<View>, is_futile: bool) {
    app.metrics.rebalance_futile.set(is_futile.into());
    if let Some(View { nodes, ratio }) = view {
        app.metrics.live_nodes.set([], nodes as f64);
        app.metrics.load_ratio.set([], ratio);
    }
}

/// Those that have been here longest: whoever was sent here just now is not sent on.
fn oldest(mut live: Vec<Live>, count: usize) -> Vec<Live> {
    live.retain(|live| !live.session.is_cut());
    live.sort_unstable_by_key(|live| live.session.connected_at);
    live.truncate(count);
    live
}
