//! News that is no message of a room: it only says where to look.

use fred::prelude::*;
use tokio::sync::watch;

use crate::redis::keys::{CONTROL, GPT_ASKED, GPT_READY};

/// What a node listens to beside rooms.
pub(in crate::redis) const OF_NODES: &[&str] = &[CONTROL];
/// What a worker listens to.
pub(in crate::redis) const OF_WORKERS: &[&str] = &[CONTROL, GPT_ASKED, GPT_READY];

/// Counts the news of each channel, for whoever waits for a change.
pub(super) struct News {
    channels: &'static [&'static str],
    counts: Vec<watch::Sender<u64>>,
}

/// Where the changes are seen.
#[derive(Clone)]
pub(super) struct Heard {
    channels: &'static [&'static str],
    counts: Vec<watch::Receiver<u64>>,
}

impl News {
    pub fn new(channels: &'static [&'static str]) -> (Self, Heard) {
        let (senders, receivers) = channels.iter().map(|_| watch::channel(0)).unzip();
        let news = Self {
            channels,
            counts: senders,
        };
        let heard = Heard {
            channels,
            counts: receivers,
        };
        (news, heard)
    }

    pub async fn subscribe(&self, client: &Client) -> Result<(), Error> {
        client.subscribe(self.channels.to_vec()).await
    }

    /// Tells that there is news; `false` where the channel is none of these.
    pub fn tell(&self, channel: &str) -> bool {
        let place = self.channels.iter().position(|known| *known == channel);
        place.is_some_and(|place| {
            self.counts[place].send_modify(|count| *count += 1);
            true
        })
    }

    /// Tells that there may be news of every kind: some may have been missed.
    pub fn tell_all(&self) {
        for count in &self.counts {
            count.send_modify(|count| *count += 1);
        }
    }
}

impl Heard {
    /// Changes whenever there may be news; has ended where nobody listens to the channel.
    pub fn of(&self, channel: &str) -> watch::Receiver<u64> {
        let place = self.channels.iter().position(|known| *known == channel);
        place.map_or_else(|| watch::channel(0).1, |place| self.counts[place].clone())
    }
}
