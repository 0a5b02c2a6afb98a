//! The delivery of room events to the sockets of this node; the only place that emits.

mod burst;
mod late;
mod positions;
mod reply;
mod send;
mod update;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use socketioxide::socket::Sid;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::burst::Bursts;
use self::send::Peer;
use super::protocol::{SyncLost, event};
use super::transport::Transports;
use super::{Session, Socket};
use crate::chat::feed::{Feed, Member};
use crate::chat::{Chat, ChatError};
use crate::model::{Epoch, Position, RoomId};
use crate::redis::{Bus, BusItem, LogPage};
use crate::telemetry::Metrics;

/// How long a room's subscription outlives its last member: people come back, and SUBSCRIBE costs a round trip.
const LINGER: Duration = Duration::from_secs(30);
/// How long a slow member may take to catch up before its transport is closed.
const LAG_MAX: Duration = Duration::from_secs(15);
/// Items of the bus taken together: what has come while earlier ones were handed out.
const ITEMS_MAX: usize = 64;

type RoomFeed = Feed<Sid, Arc<Peer>>;

/// A membership that has to be brought up from the log.
pub struct Late {
    peer: Arc<Peer>,
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
    /// Held by whoever takes events from the feed until every member was sent them, so that nobody overtakes.
    turn: tokio::sync::Mutex<()>,
    /// When the last burst was handed out.
    handed_at: Mutex<Option<Instant>>,
    /// Joins under way; with the members they keep the room here.
    interest: std::sync::atomic::AtomicUsize,
    idle_since: Mutex<Option<Instant>>,
}

impl Room {
    fn new(id: RoomId) -> Self {
        Self {
            id,
            subscribed: tokio::sync::OnceCell::new(),
            feed: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            handed_at: Mutex::default(),
            interest: std::sync::atomic::AtomicUsize::new(0),
            idle_since: Mutex::default(),
        }
    }

    fn feed(&self) -> MutexGuard<'_, RoomFeed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handed_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.handed_at.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn cut(&self, sid: Sid, reason: &'static str) {
        self.metrics.cuts_total.inc([reason]);
        self.transports.kill(sid);
    }

    /// Subscribes to the room, if nobody did before, and keeps it here until the interest is dropped.
    pub async fn enter(&self, room: &RoomId) -> Result<Interest, ChatError> {
        let interest = {
            let entry = self.rooms.entry(room.clone());
            let room = entry.or_insert_with(|| Arc::new(Room::new(room.clone())));
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
        let peer = Arc::new(Peer::new(socket.clone(), session.proto2));
        let generation = interest.0.feed().add_member(socket.id, peer.clone(), at, page);
        Late {
            peer,
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
        let (mut taken, mut bursts) = (Vec::with_capacity(ITEMS_MAX), Bursts::default());
        loop {
            tokio::select! {
                count = items.recv_many(&mut taken, ITEMS_MAX) => if count == 0 { break },
                () = bursts.wait() => {}
            }
            for item in taken.drain(..) {
                match item {
                    BusItem::Event(id, event, span) => {
                        // Who joins later reads the log.
                        if let Some(room) = self.rooms.get(&id) {
                            bursts.add(&room, event, span);
                        }
                    }
                    BusItem::Update(room, json) => self.update(&room, json),
                    BusItem::Reply(room, name, json) => {
                        // Behind the events that came before it.
                        self.deliver_all(&chat, bursts.take(|waiting| waiting.room.id == room))
                            .await;
                        self.tell_reply(&room, &name, json).await;
                    }
                    // Every shard hears of a gap; one of them acts for all rooms.
                    BusItem::Gap if first => {
                        self.tracker.spawn(self.clone().refill_all(chat.clone()));
                    }
                    BusItem::Gap => {}
                }
            }
            let now = Instant::now();
            self.deliver_all(&chat, bursts.take(|waiting| waiting.is_due(now)))
                .await;
        }
        self.deliver_all(&chat, bursts.take(|_| true)).await;
    }

    /// Tells members whose continuity is broken: protocol 2 by `sync:lost`, the others by closing their transport.
    fn tell_broken<'a>(
        &self,
        members: impl Iterator<Item = (&'a Sid, &'a mut Member<Arc<Peer>>)>,
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
