//! Valid clients that write events as fast as the connection takes them, and come again when they are cut.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tally::count;
use super::wire::{self, Opened};
use super::{Attack, User};
use crate::deployment::APP;

/// Events in one write, a third of each sort.
const BATCH: usize = 60;

/// Floods as one of the users.
pub async fn flood(attack: Arc<Attack>, number: usize) {
    let Some(user) = attack.users.get(number) else { return };
    let batch = batch(user);
    while attack.goes_on() {
        let Some(opened) = enter(&attack, user).await else {
            continue;
        };
        attack.tally.opened();
        let (mut reading, mut writing) = opened.stream.into_split();
        let write = async {
            while writing.write_all(&batch).await.is_ok() {
                attack.tally.events.fetch_add(BATCH as u64, Ordering::Relaxed);
                attack.tally.bytes.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
        };
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(reading.read(&mut buffer).await, Ok(1..)) {}
        };
        tokio::select! {
            () = write => {}
            () = read => {}
        }
        attack.tally.closed();
    }
}

/// Connects as a user and joins its room; the answer to the join is part of the flood.
pub async fn enter(attack: &Attack, user: &User) -> Option<Opened> {
    let request = wire::websocket(attack.target, None);
    let mut opened = wire::open(attack.target, attack.source(0), &request, &attack.tally).await?;
    let auth = json!({
        "accessToken": user.token, "refreshToken": "none", "userAgent": APP, "username": user.username, "proto": 2,
    });
    let hello = wire::text_frame(&format!("40{auth}"));
    let written = opened.stream.write_all(&hello).await;
    if written.is_ok() && wire::wait_for(&mut opened, "40{", "44{").await {
        return Some(opened);
    }
    count(&attack.tally.forbidden);
    None
}

fn batch(user: &User) -> Vec<u8> {
    let room = &user.room;
    let events = [
        json!(["message", { "roomID": room, "message": "a flood of words" }]),
        json!(["join", { "roomID": room }]),
        json!(["no-such-event", { "roomID": room }]),
    ];
    (0..BATCH)
        .flat_map(|number| {
            let event = &events[number % events.len()];
            wire::text_frame(&format!("42{event}"))
        })
        .collect()
}
