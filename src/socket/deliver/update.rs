//! `roomUpdate`: who is in a room, for everybody who belongs to it, and that there is news, for those who have not joined.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::Deliver;
use crate::model::{RoomId, Seq};
use crate::socket::frame::Packet;
use crate::socket::protocol::{Activity, event};

/// `roomUpdate` reaches a room at most this often.
const PERIOD: Duration = Duration::from_secs(1);

/// The updates of a room that wait for their turn; only the newest of each kind is worth sending.
#[derive(Default)]
pub(super) struct Updates {
    sent: Option<Instant>,
    /// A payload for everybody who belongs to the room.
    members: Option<String>,
    /// The newest number, for those who have not joined.
    activity: Option<Seq>,
}

impl Updates {
    fn is_due(&self) -> bool {
        self.sent.is_none_or(|sent| sent.elapsed() >= PERIOD)
    }
}

impl Deliver {
    /// Emits a `roomUpdate` to everybody here who belongs to the room, now or when its turn has come.
    pub(super) fn update(&self, room: &RoomId, json: String) {
        self.note_update(room, |updates| updates.members = Some(json));
    }

    /// Tells those who belong to the room and have not joined it that there is news.
    pub(super) fn tell_activity(&self, room: &RoomId, top: Seq) {
        self.note_update(room, |updates| updates.activity = Some(top));
    }

    fn note_update(&self, room: &RoomId, note: impl FnOnce(&mut Updates)) {
        let mut updates = self.updates.entry(room.clone()).or_default();
        note(&mut updates);
        let due = updates.is_due();
        drop(updates);
        if due {
            self.send_updates(room);
        }
    }

    /// Sends what has waited for its turn, and forgets rooms without news.
    pub(super) fn sweep_updates(&self) {
        let due: Vec<RoomId> = self
            .updates
            .iter()
            .filter(|updates| updates.is_due())
            .map(|updates| updates.key().clone())
            .collect();
        for room in due {
            self.send_updates(&room);
        }
    }

    fn send_updates(&self, room: &RoomId) {
        let (members, activity) = match self.updates.get_mut(room) {
            Some(mut updates) => {
                let taken = (updates.members.take(), updates.activity.take());
                if taken != (None, None) {
                    updates.sent = Some(Instant::now());
                }
                taken
            }
            None => return,
        };
        if (&members, &activity) == (&None, &None) {
            self.updates.remove_if(room, |_, updates| {
                updates.members.is_none() && updates.activity.is_none()
            });
            return;
        }
        let Some(belonging) = self.belonging.get(room) else {
            return;
        };
        // Best effort: a slow socket learns the next one.
        if let Some(json) = members.and_then(|json| RawValue::from_string(json).ok()) {
            let (packet, mut frame) = (Packet::Event(event::ROOM_UPDATE, &*json), None);
            for socket in belonging.values() {
                let _full = self.try_send(socket, &packet, &mut frame);
            }
        }
        if let Some(top_seq) = activity {
            let update = Activity { room_id: room, top_seq };
            let (packet, mut frame) = (Packet::Event(event::ROOM_UPDATE, &update), None);
            let joined = self.rooms.get(room).map(|room| room.value().clone());
            let joined = joined.as_ref().map(|room| room.feed());
            for (sid, socket) in belonging.iter() {
                if joined.as_ref().is_none_or(|feed| !feed.contains(sid)) {
                    let _full = self.try_send(socket, &packet, &mut frame);
                }
            }
        }
    }
}
