//! Takes messages off the bus connection.

use std::sync::Arc;

use fred::prelude::*;
use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;

use super::{BusItem, Tasks};
use crate::model::RoomId;
use crate::redis::keys::room_of_channel;
use crate::redis::log::codec::read_live;
use crate::telemetry::trace::{self, Step};

pub(super) async fn receive(tasks: Arc<Tasks>) {
    let mut messages = tasks.client.message_rx();
    loop {
        match messages.recv().await {
            Ok(message) => dispatch(&tasks, message).await,
            Err(RecvError::Lagged(missed)) => {
                tasks.metrics.lagged.inc_by(missed);
                tracing::warn!(missed, "bus overflow: refilling every joined room");
                tasks.announce_gap().await;
                tasks.news.tell_all();
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn dispatch(tasks: &Tasks, message: Message) {
    let Some(room) = room_of_channel(&message.channel) else {
        if !tasks.news.tell(&message.channel) {
            tasks.canaries.hear(&message.channel);
        }
        return;
    };
    let Ok(room) = RoomId::new(room) else { return };
    let Some(payload) = message.value.as_str() else { return };
    let shard = tasks.shard(room.as_str());
    let item = match payload.split_at_checked(2) {
        Some(("! ", update)) => BusItem::Update(room, update.to_owned()),
        Some(("~ ", told)) => match told.split_once(' ') {
            Some((name, json)) => BusItem::Reply(room, name.to_owned(), json.to_owned()),
            None => return,
        },
        _ => match read_live(&payload) {
            Some((event, context)) => {
                tasks.metrics.received.inc();
                BusItem::Event(room, event, trace::continued(context, Step::Deliver))
            }
            None => {
                tracing::error!(%room, "unreadable message on a live channel");
                return;
            }
        },
    };
    // Waiting here only delays: fred's buffer takes the burst, and its overflow is repaired from the logs.
    let _closed = shard.send(item).await;
}
