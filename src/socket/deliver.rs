//! The delivery of room events to the sockets of this node; the only place that emits.

mod late;
mod positions;
mod reply;
mod update;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::Serialize;
use serde_json::value::RawValue;
use socketioxide::SendError;
use socketioxide::socket::Sid;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::Span;

use super::protocol::{SyncLost, event};
use super::reply::is_full;
use super::transport::Transports;
use super::{Session, Socket};
use crate::chat::feed::{Feed, Member, Offer};
use crate::chat::{Chat, ChatError};
use crate::model::{Epoch, Position, RoomEvent, RoomId};
use crate::redis::{Bus, BusItem, LogPage};
use crate::telemetry::Metrics;
use crate::telemetry::trace::{self, Step};

/// How long a room's subscription outlives its last member: people come back, and SUBSCRIBE costs a round trip.
const LINGER: Duration = Duration::from_secs(30);
/// How long a slow member may take to catch up before its transport is closed.
const LAG_MAX: Duration = Duration::from_secs(15);
/// How often a full queue is tried again: its socket's writer empties it in one turn.
const FULL_RETRY: Duration = Duration::from_millis(5);

/// A member's socket.
#[derive(Clone)]
struct Peer {
    socket: Socket,
    proto2: bool,
}

type RoomFeed = Feed<Sid, Peer>;

/// A membership that has to be brought up from the log.
pub struct Late {
    socket: Socket,
    generation: u64,
    /// Up to where it has the room's events.
    at: Position,
    /// The epoch of that place.
    epoch: Epoch,
}

/// One room on this node.
struct Room {
    id: RoomId,
    subscribed: tokio::sync::OnceCell<()>,
    feed: Mutex<RoomFeed>,
    /// Joins under way; with the members they keep the room here.
    interest: std::sync::atomic::AtomicUsize,
    idle_since: Mutex<Option<Instant>>,
}

impl Room {
    fn feed(&self) -> MutexGuard<'_, RoomFeed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a room here while somebody joins it.
pub struct Interest(Arc<Room>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.interest.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        *self.0.idle() = Some(Instant::now());
    }
}

/// The rooms of this node and their members.
pub struct Deliver {
    bus: Bus,
    transports: Arc<Transports>,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    rooms: DashMap<RoomId, Arc<Room>>,
    /// Sockets by the rooms they belong to, joined or not.
    belonging: DashMap<RoomId, HashMap<Sid, Socket>>,
    updates: DashMap<RoomId, update::Updates>,
}

impl Deliver {
    /// A delivery without rooms.
    pub fn new(bus: Bus, transports: Arc<Transports>, metrics: Arc<Metrics>, tracker: TaskTracker) -> Self {
        Self {
            bus,
            transports,
            metrics,
            tracker,
            rooms: DashMap::new(),
            belonging: DashMap::new(),
            updates: DashMap::new(),
        }
    }

    /// Emits one event to one socket, waiting for room in its queue: only the task of this socket waits.
    pub async fn emit<T: Serialize + ?Sized>(&self, socket: &Socket, name: &str, data: &T) {
        self.patiently(socket, || socket.emit(name, data)).await;
    }

    /// Emits one event to one socket at once. A socket that cannot take it has its transport closed: it comes back and
    /// is brought up to date.
    pub fn emit_now<T: Serialize + ?Sized>(&self, socket: &Socket, name: &str, data: &T) {
        self.at_once(socket, || socket.emit(name, data));
    }

    /// Tries a send once; a socket whose queue is full has its transport closed.
    pub fn at_once(&self, socket: &Socket, send: impl FnOnce() -> Result<(), SendError>) {
        if is_full(&send()) {
            self.cut(socket.id, "slow");
        }
    }

    /// Repeats a send while the socket's queue is full; a socket that does not read for too long has its transport closed.
    pub async fn patiently(&self, socket: &Socket, send: impl Fn() -> Result<(), SendError>) {
        let started = Instant::now();
        while is_full(&send()) {
            if started.elapsed() > LAG_MAX {
                return self.cut(socket.id, "slow");
            }
            tokio::time::sleep(FULL_RETRY).await;
        }
    }

    fn cut(&self, sid: Sid, reason: &'static str) {
        self.metrics.cuts_total.inc([reason]);
        self.transports.kill(sid);
    }

    /// Subscribes to the room, if nobody did before, and keeps it here until the interest is dropped.
    pub async fn enter(&self, room: &RoomId) -> Result<Interest, ChatError> {
        let interest = {
            let room = self.rooms.entry(room.clone()).or_insert_with(|| {
                Arc::new(Room {
                    id: room.clone(),
                    subscribed: tokio::sync::OnceCell::new(),
                    feed: Mutex::default(),
                    interest: std::sync::atomic::AtomicUsize::new(0),
                    idle_since: Mutex::default(),
                })
            });
            room.interest.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
            Interest(room.clone())
        };
        interest
            .0
            .subscribed
            .get_or_try_init(|| self.bus.subscribe(room))
            .await?;
        Ok(interest)
    }

    /// Makes the socket a member that has everything up to `at`; it gets what follows once [`Self::catch_up`] ends.
    pub fn add_member(
        &self,
        interest: &Interest,
        session: &Session,
        socket: &Socket,
        at: Position,
        page: &LogPage,
    ) -> Late {
        let peer = Peer {
            socket: socket.clone(),
            proto2: session.proto2,
        };
        let generation = interest.0.feed().add_member(socket.id, peer, at, page);
        Late {
            socket: socket.clone(),
            generation,
            at,
            epoch: page.epoch.clone(),
        }
    }

    /// Brings a new member from where its page ended to the live delivery.
    pub async fn catch_up(&self, chat: &Chat, interest: &Interest, member: Late) {
        // However much it has missed: it has only just come.
        self.bring_up(chat, &interest.0, member, u64::MAX).await;
    }

    /// Ends the membership of a socket.
    pub fn remove_member(&self, room: &RoomId, sid: Sid) {
        if let Some(room) = self.rooms.get(room) {
            let mut feed = room.feed();
            feed.remove_member(&sid);
            if feed.is_empty() {
                *room.idle() = Some(Instant::now());
            }
        }
    }

    /// Notes that a socket belongs to rooms, for `roomUpdate`.
    pub fn add_belonging(&self, rooms: &[RoomId], socket: &Socket) {
        for room in rooms {
            self.belonging
                .entry(room.clone())
                .or_default()
                .insert(socket.id, socket.clone());
        }
    }

    /// Notes that a socket no longer belongs to rooms.
    pub fn remove_belonging(&self, rooms: &[RoomId], sid: Sid) {
        for room in rooms {
            self.belonging.remove_if_mut(room, |_, sockets| {
                sockets.remove(&sid);
                sockets.is_empty()
            });
        }
    }

    /// Hands the items of one shard of the bus to the members, until the bus ends.
    pub async fn run(self: Arc<Self>, chat: Arc<Chat>, mut items: mpsc::Receiver<BusItem>, first: bool) {
        while let Some(item) = items.recv().await {
            match item {
                BusItem::Event(room, event, span) => self.deliver(&chat, &room, &event, &span),
                BusItem::Update(room, json) => self.update(&room, json),
                BusItem::Reply(room, name, json) => self.tell_reply(&room, &name, json),
                // Every shard hears of a gap; one of them acts for all rooms.
                BusItem::Gap if first => {
                    self.tracker.spawn(self.clone().refill_all(chat.clone()));
                }
                BusItem::Gap => {}
            }
        }
    }

    fn deliver(self: &Arc<Self>, chat: &Arc<Chat>, room: &RoomId, event: &RoomEvent, span: &Span) {
        let Some(room) = self.rooms.get(room).map(|room| room.clone()) else {
            return;
        };
        let mut feed = room.feed();
        match feed.offer(event) {
            Offer::Deliver => {
                let emit = trace::child(span, Step::Emit);
                let (delivered, lagging) = self.hand_out(&mut feed, event);
                drop(feed);
                trace::note(&emit, "roomcast.sockets", i64::try_from(delivered).unwrap_or(i64::MAX));
                self.bring_up_all(chat, &room, lagging);
            }
            Offer::Skip => {}
            Offer::Fill => {
                drop(feed);
                self.tracker.spawn(self.clone().fill(chat.clone(), room));
            }
        }
    }

    /// Emits an event to the live members; returns to how many, and those whose queue was full, which are not live any more.
    fn hand_out(&self, feed: &mut RoomFeed, event: &RoomEvent) -> (u64, Vec<Late>) {
        let mut lagging = Vec::new();
        let mut delivered = 0;
        let name = event.kind.event_name();
        let json: &RawValue = &event.json;
        for (_, member) in feed.live_members() {
            let sent = member.handle.socket.emit(name, json);
            match sent {
                Ok(()) => {
                    delivered += 1;
                    member.at = event.position;
                }
                full if is_full(&full) => {
                    member.live = false;
                    lagging.push(Late {
                        socket: member.handle.socket.clone(),
                        generation: member.generation(),
                        at: member.at,
                        epoch: event.epoch.clone(),
                    });
                }
                // It is going; its disconnect removes it.
                Err(_) => member.at = event.position,
            }
        }
        self.metrics.deliveries_total.inc_by(delivered);
        (delivered, lagging)
    }

    /// Tells members whose continuity is broken: protocol 2 by `sync:lost`, the others by closing their transport.
    fn tell_broken<'a>(
        &self,
        members: impl Iterator<Item = (&'a Sid, &'a mut Member<Peer>)>,
        room: &RoomId,
        page: &LogPage,
    ) {
        for (sid, member) in members {
            if member.handle.proto2 {
                let lost = SyncLost {
                    room_id: room,
                    epoch: page.epoch.as_str(),
                    top_seq: page.top.seq,
                };
                self.emit_now(&member.handle.socket, event::SYNC_LOST, &lost);
            } else {
                self.cut(*sid, "sync_lost");
            }
        }
    }

    /// Cuts the members of rooms whose primary has been silent for this long: they may be missing something.
    pub fn cut_silent(&self, limit: Duration) {
        for room in &self.rooms {
            if self.bus.silence_of(&room.id) >= limit {
                self.cut_members(&room, "silent");
            }
        }
    }

    fn cut_members(&self, room: &Room, reason: &'static str) {
        let members: Vec<Sid> = room.feed().members().map(|(sid, _)| *sid).collect();
        for sid in members {
            self.cut(sid, reason);
        }
    }

    /// Periodic work: updates whose turn has come, and rooms that nobody wants any more.
    pub fn sweep(&self) {
        self.sweep_updates();
        self.rooms.retain(|id, room| {
            let idle = room.idle().is_some_and(|since| since.elapsed() > LINGER);
            let wanted = room.interest.load(std::sync::atomic::Ordering::Acquire) > 0 || !room.feed().is_empty();
            if wanted || !idle {
                return true;
            }
            // Under the map's lock, so that a join that comes now subscribes after this.
            self.bus.unsubscribe(id);
            false
        });
        self.metrics
            .rooms
            .set(i64::try_from(self.rooms.len()).unwrap_or(i64::MAX));
    }
}
