//! What a node does when another server has become a primary, or one has been restarted.
//!
//! A failed server may take the last writes with it. What was written about this node's sockets is held against what is
//! true, and the new server's settings against what is promised.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::model::RoomId;
use crate::ops::Health;
use crate::redis::{OwnedSocket, RedisError, Replid};
use crate::socket::{App, Inbox, Job, Live};

/// The condition of readiness.
const SETTINGS: &str = "redis settings";

/// Watches for servers that were not there before.
#[derive(Default)]
pub struct Succession {
    /// Of the primaries that this node has seen to; empty before the first look.
    known: HashSet<Replid>,
    /// Whether their settings are still to be looked at.
    unchecked: bool,
}

impl Succession {
    /// Looks once, and does what a new server asks for; what fails is done at the next look.
    pub async fn look(&mut self, app: &Arc<App>, health: &Health) {
        let Ok(now) = app.redis.histories().await else { return };
        let is_first = self.known.is_empty();
        let is_new = !now.is_subset(&self.known);
        if is_new || self.unchecked {
            self.unchecked = true;
            match app.redis.check_server().await {
                Ok(true) => {
                    self.unchecked = false;
                    health.set(SETTINGS, Ok(()));
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "messages are refused: a primary is not set up as it must be");
                    health.set(SETTINGS, Err(&error.to_string()));
                }
            }
        }
        if is_new && !is_first {
            tracing::warn!("a server has begun a new history: writing this node's sockets anew");
            if let Err(error) = reconcile(app).await {
                tracing::warn!(%error, "this node's sockets are not written anew yet");
                return;
            }
        }
        self.known = now;
    }
}

/// Removes what came back, and writes what may be missing.
async fn reconcile(app: &Arc<App>) -> Result<(), RedisError> {
    let live: HashMap<String, Live> = app
        .live()
        .into_iter()
        .map(|live| (live.session.sid.to_string(), live))
        .collect();
    let mut returned = Vec::new();
    for written in app.redis.owned_sockets(&app.node.get()).await? {
        match live.get(&written.socket) {
            Some(live) => returned.extend(no_longer(written, &live.session.owned())),
            // It has gone, but that is lost. One that has only just connected is a moment away from being written.
            None if !is_connected(app, &written) => drop(app.orphans.insert(written.socket.clone(), written)),
            None => {}
        }
    }
    app.redis.remove_traces(&returned).await?;
    write_anew(app);
    Ok(())
}

fn is_connected(app: &App, written: &OwnedSocket) -> bool {
    written.socket.parse().is_ok_and(|sid| app.sockets.contains_key(&sid))
}

/// What a socket is written to have and has not.
fn no_longer(mut written: OwnedSocket, owned: &OwnedSocket) -> Option<OwnedSocket> {
    let without = |rooms: Vec<RoomId>, owned: &[RoomId]| -> Vec<RoomId> {
        rooms.into_iter().filter(|room| !owned.contains(room)).collect()
    };
    let stale = OwnedSocket {
        rooms: without(std::mem::take(&mut written.rooms), &owned.rooms),
        joined: without(std::mem::take(&mut written.joined), &owned.joined),
        // Those of a socket that lives are its own.
        leases: Vec::new(),
        ..written
    };
    (!stale.rooms.is_empty() || !stale.joined.is_empty()).then_some(stale)
}

/// Writes every socket of the node anew, each in the order of its own events, so that a leave or an end is not overwritten.
pub fn write_anew(app: &App) {
    for Live { session, socket } in app.live() {
        session.set_unregistered(true);
        let _queued = Inbox::push(&session, &socket, Job::Register);
    }
}
