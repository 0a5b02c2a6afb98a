//! Honest people who come while the flood lasts: each must get in.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::innocent::{builder, enter};
use super::ledger::Ledger;
use super::meter::Wait;

/// Between two newcomers.
const PERIOD: Duration = Duration::from_millis(500);
/// Whoever waits longer goes away.
const ENTRY_MAX: Duration = Duration::from_secs(10);
/// Between two tries: what official clients wait at first, less their jitter.
const RETRY: Duration = Duration::from_millis(500);

/// Where newcomers go and who they are.
pub struct Newcomers {
    /// The record.
    pub ledger: Arc<Ledger>,
    /// The node.
    pub url: String,
    /// A room of their own.
    pub room: String,
    /// Its users: index and token.
    pub users: Vec<(usize, String)>,
}

impl Newcomers {
    /// Sends one after the other until it is dropped.
    pub async fn run(self) {
        let start = Instant::now();
        let this = Arc::new(self);
        let mut coming = JoinSet::new();
        for number in 0_u32.. {
            let meant = start + PERIOD * number;
            sleep_until(meant.into()).await;
            coming.spawn(come(this.clone(), number, meant));
            while coming.try_join_next().is_some() {}
        }
    }
}

async fn come(all: Arc<Newcomers>, number: u32, meant: Instant) {
    let Some((user, token)) = all.users.get(number as usize % all.users.len().max(1)) else {
        return;
    };
    // A new address each time: nobody has counted anything against it.
    let from = Ipv4Addr::new(127, 78, (number / 250) as u8, (number % 250) as u8 + 1);
    let mut last = String::new();
    let entering = async {
        loop {
            match enter(builder(&all.url, *user, token, from), &all.room).await {
                Ok(_) => break,
                Err(error) => {
                    last = error;
                    all.ledger.refused_entries.fetch_add(1, Ordering::Relaxed);
                    sleep(RETRY).await;
                }
            }
        }
    };
    if timeout(ENTRY_MAX, entering).await.is_ok() {
        all.ledger.entered.fetch_add(1, Ordering::Relaxed);
        all.ledger.meter.record(Wait::Entry, meant, Instant::now());
    } else {
        all.ledger.find(format!(
            "a newcomer did not get in within {ENTRY_MAX:?}{}",
            if last.is_empty() {
                String::new()
            } else {
                format!(": {last}")
            }
        ));
    }
}
