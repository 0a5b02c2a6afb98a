//! Whoever is late is brought up from the log: a member that joins or lags, and a room with a hole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;

use super::burst::{Burst, take_shares};
use super::{Deliver, LAG_MAX, Late, Room};
use crate::chat::Chat;
use crate::chat::feed::{Fill, Offer};
use crate::socket::frame::Packet;
use crate::socket::line::NotSent;

/// How far behind a slow member may be before its transport is closed, events.
const LAG_MAX_EVENTS: u64 = 500;
/// How long to wait before a slow socket is tried again, or a log that could not be read.
const RETRY: Duration = Duration::from_millis(50);
/// Pages without what was seen on the bus before the hole is given up: a log that lost events will not find them.
const FRUITLESS_MAX: u32 = 100;
/// A room whose log cannot be read for so long lets its members go: they may be missing something.
const UNREAD_MAX: Duration = Duration::from_secs(9);
/// Rooms of one primary refilled at once after a reconnect.
const REFILLS_PARALLEL: usize = 32;

/// How long the refill of so many rooms waits at most: a log is read in well below this.
const JITTER_PER_ROOM: Duration = Duration::from_millis(1);
/// However many there are: members wait.
const JITTER_MAX: Duration = Duration::from_secs(1);

fn jitter(rooms: usize) -> Duration {
    let most = JITTER_PER_ROOM.saturating_mul(u32::try_from(rooms).unwrap_or(u32::MAX));
    most.min(JITTER_MAX).mul_f64(rand::random())
}

impl Deliver {
    /// Brings members that lag up from the log, each by a task of its own.
    pub(super) fn bring_up_all(self: &Arc<Self>, chat: &Arc<Chat>, room: &Arc<Room>, lagging: Vec<Late>) {
        for member in lagging {
            let (deliver, chat, room) = (self.clone(), chat.clone(), room.clone());
            self.tracker
                .spawn(async move { deliver.bring_up(&chat, &room, member, LAG_MAX_EVENTS).await });
        }
    }

    /// Brings one member up from the log until it stands where the feed stands, or closes its transport.
    pub(super) async fn bring_up(&self, chat: &Chat, room: &Room, member: Late, max_behind: u64) {
        let Late {
            peer,
            generation,
            mut at,
            epoch,
        } = member;
        let socket = &peer.socket;
        if room.feed().go_live(&socket.id, generation, at) {
            return;
        }
        self.metrics.lagging_sockets.inc();
        let started = Instant::now();
        let reason = loop {
            if !socket.connected() || !room.feed().has_member(&socket.id, generation) {
                break None;
            }
            if started.elapsed() > LAG_MAX {
                break Some("lagging");
            }
            let Ok(page) = chat.events_after(&room.id, at).await else {
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let behind = page.top.seq.saturating_sub(at.seq);
            if page.epoch != epoch || page.floor.seq > at.seq || behind > max_behind {
                break Some("lagging");
            }
            let mut full = false;
            for event in &page.events {
                let packet = Packet::Event(event.kind.event_name(), &*event.json);
                match self.try_send(socket, &packet, &mut None) {
                    Ok(()) => at = event.position,
                    Err(NotSent::Full) => {
                        full = true;
                        break;
                    }
                    Err(NotSent::Gone) => break,
                }
            }
            if full {
                tokio::time::sleep(RETRY).await;
            } else if room.feed().go_live(&socket.id, generation, at) {
                break None;
            } else if page.events.is_empty() {
                // The feed has yet to come to where this member stands.
                tokio::time::sleep(RETRY).await;
            }
        };
        self.metrics.lagging_sockets.dec();
        if let Some(reason) = reason {
            self.cut(socket.id, reason);
        }
    }

    /// Fills a hole of the room from its log, up to everything that was seen.
    pub(super) async fn fill(self: Arc<Self>, chat: Arc<Chat>, room: Arc<Room>) {
        let mut fruitless = 0;
        let mut read = Instant::now();
        loop {
            let from = room.feed().top();
            let Ok(page) = chat.events_after(&room.id, from).await else {
                if self.rooms.get(&room.id).is_none_or(|known| !Arc::ptr_eq(&known, &room)) {
                    return;
                }
                if read.elapsed() >= UNREAD_MAX {
                    // Nothing is delivered meanwhile: who is here must not wait in silence.
                    read = Instant::now();
                    tracing::error!(room = %room.id, "the log cannot be read: letting the members go");
                    self.cut_members(&room, "unreadable");
                }
                tokio::time::sleep(RETRY).await;
                continue;
            };
            read = Instant::now();
            if self.take_page(&chat, &room, &page, fruitless >= FRUITLESS_MAX).await {
                return;
            }
            if room.feed().top() == from {
                fruitless += 1;
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Delivers what a page brings; `true` when the hole is filled, or given up.
    async fn take_page(
        self: &Arc<Self>,
        chat: &Arc<Chat>,
        room: &Arc<Room>,
        page: &crate::redis::LogPage,
        give_up: bool,
    ) -> bool {
        let _turn = room.turn.lock().await;
        let (next, shares, done) = {
            let mut feed = room.feed();
            match feed.check_page(page) {
                Fill::Continues => {}
                Fill::Strays => self.tell_broken(feed.stray_members(), &room.id, page),
                broken => {
                    tracing::warn!(room = %room.id, ?broken, "continuity lost");
                    self.tell_broken(feed.displaced_members(), &room.id, page);
                    if matches!(broken, Fill::LostTail(_)) {
                        // The page was read after a place that no longer exists.
                        return false;
                    }
                }
            }
            let next: Vec<_> = page.events.iter().filter(|event| feed.advance(event)).collect();
            let shares = next.last().map(|last| take_shares(&mut feed, last.position));
            (next, shares, feed.finish_fill(page.more))
        };
        if let Some(shares) = shares {
            self.metrics.holes_repaired_total.inc_by(next.len() as u64);
            let delivered = self.hand_out(chat, room, &Burst::new(next), shares).await;
            self.metrics.deliveries_repaired_total.inc_by(delivered);
        }
        if done {
            return true;
        }
        if give_up {
            tracing::error!(room = %room.id, "the log does not hold what was seen on the bus");
            let mut feed = room.feed();
            feed.abandon_hole(page);
            self.tell_broken(feed.displaced_members(), &room.id, page);
            return feed.finish_fill(false);
        }
        false
    }

    /// After a reconnect of the bus: every room is compared with its log, a few of each primary at a time, so that one that
    /// hangs holds up its own rooms only.
    pub(super) async fn refill_all(self: Arc<Self>, chat: Arc<Chat>) {
        let mut rooms: HashMap<Option<usize>, Vec<Arc<Room>>> = HashMap::new();
        for room in &self.rooms {
            let primary = self.bus.primary_of(&room.id);
            rooms.entry(primary).or_default().push(room.value().clone());
        }
        // Every node refills at this moment, and each reads as much as it has rooms.
        tokio::time::sleep(jitter(self.rooms.len())).await;
        for rooms in rooms.into_values() {
            self.tracker.spawn(self.clone().refill_some(chat.clone(), rooms));
        }
    }

    async fn refill_some(self: Arc<Self>, chat: Arc<Chat>, rooms: Vec<Arc<Room>>) {
        futures::stream::iter(rooms)
            .for_each_concurrent(REFILLS_PARALLEL, |room| async {
                let offer = room.feed().suspect_gap();
                if offer == Offer::Fill {
                    self.clone().fill(chat.clone(), room).await;
                }
            })
            .await;
    }
}
