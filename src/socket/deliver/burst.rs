//! Events of a room that are handed out together: one buffer of frames for all members, one write for each.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;
use tracing::Span;

use super::send::Peer;
use super::{Deliver, Late, Room, RoomFeed};
use crate::chat::Chat;
use crate::chat::feed::Offer;
use crate::model::{Position, RoomEvent, Seq};
use crate::socket::frame::{self, Packet};
use crate::socket::line::NotSent;
use crate::socket::reply;
use crate::telemetry::trace::{self, Step};

/// Members written to before other tasks have their turn: about a millisecond.
const TURN: usize = 128;

/// How long after a burst the next events of the same room are gathered: nobody notices, and at a rate at which it matters
/// it saves writes. An event that comes later than that goes at once.
const GATHER: Duration = Duration::from_millis(5);
/// Events of a room that are gathered at most: a burst is one allocation, and fits into a peer's socket buffer.
const GATHER_MAX: usize = 64;

/// Events as they came from the bus, by room.
#[derive(Default)]
pub(super) struct Bursts(Vec<Waiting>);

/// The events of a room that wait to be handed out.
pub(super) struct Waiting {
    pub(super) room: Arc<Room>,
    events: Vec<(RoomEvent, Span)>,
    due: Instant,
}

impl Waiting {
    /// Whether they have waited enough.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due <= now || self.events.len() >= GATHER_MAX
    }
}

impl Bursts {
    /// Adds an event behind the others of its room.
    pub(super) fn add(&mut self, room: &Arc<Room>, event: RoomEvent, span: Span) {
        if let Some(waiting) = self.0.iter_mut().find(|waiting| Arc::ptr_eq(&waiting.room, room)) {
            return waiting.events.push((event, span));
        }
        let due = room.handed_at().map_or_else(Instant::now, |handed| handed + GATHER);
        self.0.push(Waiting {
            room: room.clone(),
            events: vec![(event, span)],
            due,
        });
    }

    /// Takes those that fulfil a condition.
    pub(super) fn take(&mut self, condition: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        self.0.extract_if(.., |waiting| condition(waiting)).collect()
    }

    /// Waits until the first of them are due; for ever when there are none.
    pub(super) async fn wait(&self) {
        match self.0.iter().map(|waiting| waiting.due).min() {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// Events that follow each other, and their frames in one buffer.
pub(super) struct Burst<'a> {
    events: Vec<&'a RoomEvent>,
    frames: Bytes,
    /// Where the frame of each event begins.
    starts: Vec<usize>,
}

/// A member that gets a burst, and up to where it had the room's events before.
pub(super) struct Share {
    peer: Arc<Peer>,
    generation: u64,
    at: Position,
}

impl<'a> Burst<'a> {
    /// Encodes events that follow each other.
    pub(super) fn new(events: Vec<&'a RoomEvent>) -> Self {
        let mut frames = Vec::new();
        let starts = events
            .iter()
            .map(|event| {
                let start = frames.len();
                frame::push_event(&mut frames, event.kind.event_name(), &event.json);
                start
            })
            .collect();
        Self {
            events,
            frames: frames.into(),
            starts,
        }
    }

    /// How many of its events a member that stands there has already.
    fn known_at(&self, seq: Seq) -> usize {
        self.events.partition_point(|event| event.position.seq <= seq)
    }
}

/// Takes the members that get these events, and puts them behind the last.
pub(super) fn take_shares(feed: &mut RoomFeed, last: Position) -> Vec<Share> {
    let members = feed.live_members().map(|(_, member)| Share {
        peer: member.handle.clone(),
        generation: member.generation(),
        at: std::mem::replace(&mut member.at, last),
    });
    members.collect()
}

impl Deliver {
    /// Hands out what was taken, room by room.
    pub(super) async fn deliver_all(self: &Arc<Self>, chat: &Arc<Chat>, taken: Vec<Waiting>) {
        for Waiting { room, events, .. } in taken {
            self.deliver(chat, &room, &events).await;
            *room.handed_at() = Some(Instant::now());
        }
    }

    async fn deliver(self: &Arc<Self>, chat: &Arc<Chat>, room: &Arc<Room>, events: &[(RoomEvent, Span)]) {
        let _turn = room.turn.lock().await;
        let (mut next, mut spans, mut fill) = (Vec::new(), Vec::new(), false);
        let shares = {
            let mut feed = room.feed();
            for (event, span) in events {
                match feed.offer(event) {
                    Offer::Deliver => {
                        next.push(event);
                        spans.push(trace::child(span, Step::Emit));
                    }
                    Offer::Skip => {}
                    Offer::Fill => fill = true,
                }
            }
            next.last().map(|last| take_shares(&mut feed, last.position))
        };
        if let Some(shares) = shares {
            let delivered = self.hand_out(chat, room, &Burst::new(next), shares).await;
            for span in spans {
                trace::note(&span, "roomcast.sockets", i64::try_from(delivered).unwrap_or(i64::MAX));
            }
        }
        if fill {
            self.tracker.spawn(self.clone().fill(chat.clone(), room.clone()));
        }
    }

    /// Sends a burst to the members that get it, in the room's turn; returns how many events were delivered to how many, in
    /// sum. Whose queue is full is brought up from the log.
    pub(super) async fn hand_out(
        self: &Arc<Self>,
        chat: &Arc<Chat>,
        room: &Arc<Room>,
        burst: &Burst<'_>,
        shares: Vec<Share>,
    ) -> u64 {
        let (mut delivered, mut lagging) = (0, Vec::new());
        for (number, share) in (1..).zip(shares) {
            let known = burst.known_at(share.at.seq);
            let (sent, full) = self.send_burst(&share.peer, burst, known);
            delivered += sent as u64;
            if full {
                let at = burst.events[..known + sent]
                    .last()
                    .map_or(share.at, |event| event.position);
                lagging.push(Share {
                    at: at.max(share.at),
                    ..share
                });
            }
            if number % TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.metrics.deliveries_total.inc_by(delivered);
        if let Some(epoch) = burst.events.last().map(|event| &event.epoch)
            && !lagging.is_empty()
        {
            let mut feed = room.feed();
            let late = lagging.into_iter().filter_map(|Share { peer, generation, at }| {
                feed.fall_behind(&peer.socket.id, generation, at).then(|| Late {
                    peer,
                    generation,
                    at,
                    epoch: epoch.clone(),
                })
            });
            let late: Vec<Late> = late.collect();
            drop(feed);
            self.bring_up_all(chat, room, late);
        }
        delivered
    }

    /// Sends what follows the first `known` events to one member: how many events went, and whether its queue was full.
    fn send_burst(&self, peer: &Peer, burst: &Burst<'_>, known: usize) -> (usize, bool) {
        let Some(start) = burst.starts.get(known) else {
            return (0, false);
        };
        let events = &burst.events[known..];
        let sent = if *start == 0 {
            self.send_direct(peer, &burst.frames)
        } else {
            self.send_direct(peer, &burst.frames.slice(start..))
        };
        match sent {
            Some(Ok(())) => return (events.len(), false),
            Some(Err(NotSent::Full)) => return (0, true),
            // It is going; its disconnect removes it.
            Some(Err(NotSent::Gone)) => return (0, false),
            None => {}
        }
        for (sent, event) in events.iter().enumerate() {
            let json: &RawValue = &event.json;
            match reply::by_engine(&peer.socket, &Packet::Event(event.kind.event_name(), json)) {
                Ok(()) => {}
                Err(NotSent::Full) => return (sent, true),
                Err(NotSent::Gone) => return (sent, false),
            }
        }
        (events.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Epoch, EventKind, RoomId};

    fn event(seq: Seq, kind: EventKind) -> RoomEvent {
        RoomEvent {
            position: Position { ts: seq * 10, seq },
            epoch: Epoch::from("a"),
            kind,
            json: RawValue::from_string(format!("{{\"seq\":{seq}}}")).unwrap(),
        }
    }

    #[test]
    fn a_member_gets_the_frames_that_follow_what_it_has() {
        let events = [event(5, EventKind::Message), event(6, EventKind::Edit)];
        let burst = Burst::new(events.iter().collect());
        assert_eq!([3, 4, 5, 6, 7].map(|at| burst.known_at(at)), [0, 0, 1, 2, 2]);
        assert_eq!(burst.starts[0], 0);
        assert!(
            burst
                .frames
                .slice(burst.starts[1]..)
                .ends_with(b"42[\"editMessage\",{\"seq\":6}]")
        );
    }

    #[test]
    fn the_first_event_goes_at_once_and_those_right_behind_it_go_together() {
        let room = Arc::new(Room::new(RoomId::new("room").unwrap()));
        let mut bursts = Bursts::default();
        bursts.add(&room, event(5, EventKind::Message), Span::none());
        let first = bursts.take(|waiting| waiting.is_due(Instant::now()));
        assert_eq!(first.len(), 1);
        let handed = Instant::now();
        *room.handed_at() = Some(handed);
        for seq in 6..9 {
            bursts.add(&room, event(seq, EventKind::Message), Span::none());
        }
        assert!(bursts.take(|waiting| waiting.is_due(handed)).is_empty());
        let second = bursts.take(|waiting| waiting.is_due(handed + GATHER));
        assert_eq!(second.iter().map(|waiting| waiting.events.len()).sum::<usize>(), 3);
    }
}
