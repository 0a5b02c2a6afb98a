//! Events about a reply that is being written: for whoever has the room joined, best effort.

use serde_json::value::RawValue;

use super::Deliver;
use crate::model::RoomId;
use crate::socket::frame::Packet;

/// The events that a worker may tell a room; anything else on the channel is from a newer one.
const EVENTS: [&str; 4] = [
    crate::gpt::DELTA,
    crate::gpt::RESET,
    crate::gpt::ERROR,
    crate::gpt::QUEUED,
];

impl Deliver {
    /// Hands an event to the room's members. A socket that cannot take it misses a piece; the final message comes by the
    /// log.
    pub(super) async fn tell_reply(&self, room: &RoomId, name: &str, json: String) {
        let Some(name) = EVENTS.into_iter().find(|known| *known == name) else {
            return;
        };
        let (Some(room), Ok(json)) = (
            self.rooms.get(room).map(|room| room.clone()),
            RawValue::from_string(json),
        ) else {
            return;
        };
        // Not between the events that somebody is handing out.
        let _turn = room.turn.lock().await;
        let peers: Vec<_> = room.feed().members().map(|(_, member)| member.handle.clone()).collect();
        let (packet, mut frame) = (Packet::Event(name, &*json), None);
        for peer in peers {
            let _full = self.try_send(&peer.socket, &packet, &mut frame);
        }
    }
}
