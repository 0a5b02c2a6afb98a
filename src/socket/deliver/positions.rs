//! The position check: what Redis says about rooms with news, compared with what this node has delivered.
//!
//! The bus alone cannot prove that nothing was missed: a message lost after the last one shows no hole. So every few
//! seconds each node asks which rooms have news. A joined room that stays behind is filled from its log, and the
//! subscriptions are made anew; members who have not joined a room learn that something happens there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Deliver;
use crate::chat::Chat;
use crate::chat::feed::Offer;
use crate::model::{RoomId, UnixMs, unix_ms};
use crate::redis::Redis;

/// Between two checks: with the grace and the wait of a `roomUpdate` for its turn, news is known within 5 s.
const PERIOD: Duration = Duration::from_millis(3500);
/// How long the bus may take to bring what Redis already counts.
const GRACE: Duration = Duration::from_millis(500);
/// Looked at again at each check: the clocks of servers that follow each other in a failover differ.
const OVERLAP_MS: UnixMs = 10_000;

/// What an earlier check has seen.
#[derive(Default)]
struct Seen {
    /// The newest time in each partition.
    newest: HashMap<u16, UnixMs>,
    /// The newest time of each room within the overlap.
    rooms: HashMap<RoomId, UnixMs>,
}

impl Seen {
    /// From when on to ask. Never later than the overlap before `now`: a hot room's time may run ahead of the clock, and
    /// would hide the others.
    fn since(&self, partition: u16, now: UnixMs) -> UnixMs {
        self.newest
            .get(&partition)
            .map_or(0, |newest| (*newest).min(now).saturating_sub(OVERLAP_MS))
    }

    /// Whether this is news; notes it.
    fn note(&mut self, partition: u16, room: &RoomId, ts: UnixMs) -> bool {
        let newest = self.newest.entry(partition).or_default();
        *newest = ts.max(*newest);
        self.rooms.insert(room.clone(), ts).is_none_or(|before| before < ts)
    }

    /// Forgets what no check will be told again.
    fn forget_old(&mut self, partition: impl Fn(&RoomId) -> u16, wanted: &HashSet<u16>, now: UnixMs) {
        let newest = &mut self.newest;
        newest.retain(|partition, _| wanted.contains(partition));
        self.rooms.retain(|room, ts| {
            newest
                .get(&partition(room))
                .is_some_and(|newest| *ts + OVERLAP_MS >= (*newest).min(now))
        });
    }
}

impl Deliver {
    /// Runs until cancelled.
    pub async fn watch_positions(self: Arc<Self>, chat: Arc<Chat>, redis: Redis) {
        let mut seen = Seen::default();
        loop {
            tokio::time::sleep(PERIOD).await;
            let news = match self.news(&redis, &mut seen).await {
                Ok(news) => news,
                Err(error) => {
                    tracing::debug!(%error, "positions not checked");
                    continue;
                }
            };
            let idle: Vec<RoomId> = news
                .iter()
                .filter(|(room, _)| self.has_unjoined(room))
                .map(|(room, _)| room.clone())
                .collect();
            match redis.top_seqs(&idle).await {
                Ok(tops) => {
                    for (room, top) in idle.iter().zip(tops) {
                        self.tell_activity(room, top);
                    }
                }
                Err(error) => tracing::debug!(%error, "activity not told"),
            }
            let behind: Vec<_> = news
                .into_iter()
                .filter(|(room, ts)| self.is_behind(room, *ts))
                .collect();
            if behind.is_empty() {
                continue;
            }
            tokio::time::sleep(GRACE).await;
            let behind: Vec<_> = behind
                .into_iter()
                .filter(|(room, ts)| self.is_behind(room, *ts))
                .collect();
            if !behind.is_empty() {
                tracing::warn!(rooms = behind.len(), "rooms are behind their logs: subscribing anew");
                self.metrics.rooms_behind_total.inc_by(behind.len() as u64);
                self.bus.renew();
            }
            for (room, _) in behind {
                self.refill(&chat, &room);
            }
        }
    }

    /// The rooms wanted here in which something has happened since the last check, with the time of the newest event.
    async fn news(&self, redis: &Redis, seen: &mut Seen) -> Result<Vec<(RoomId, UnixMs)>, crate::redis::RedisError> {
        let now = unix_ms();
        let partition = |room: &RoomId| redis.keys.partition(room.as_str());
        let joined = self.rooms.iter().map(|room| partition(room.key()));
        let wanted: HashSet<u16> = joined
            .chain(self.belonging.iter().map(|room| partition(room.key())))
            .collect();
        let asked: Vec<(u16, UnixMs)> = wanted
            .iter()
            .map(|partition| (*partition, seen.since(*partition, now)))
            .collect();
        let mut news = Vec::new();
        for (partition, room, ts) in redis.active_rooms(&asked).await? {
            let is_news = seen.note(partition, &room, ts);
            if is_news && (self.rooms.contains_key(&room) || self.belonging.contains_key(&room)) {
                news.push((room, ts));
            }
        }
        seen.forget_old(partition, &wanted, now);
        Ok(news)
    }

    fn is_behind(&self, room: &RoomId, ts: UnixMs) -> bool {
        let room = self.rooms.get(room).map(|room| room.value().clone());
        room.is_some_and(|room| room.feed().is_behind(ts))
    }

    fn has_unjoined(&self, room: &RoomId) -> bool {
        let joined = self.rooms.get(room).map(|room| room.value().clone());
        let Some(belonging) = self.belonging.get(room) else {
            return false;
        };
        match joined {
            None => true,
            Some(room) => {
                let feed = room.feed();
                belonging.keys().any(|sid| !feed.contains(sid))
            }
        }
    }

    fn refill(self: &Arc<Self>, chat: &Arc<Chat>, room: &RoomId) {
        let Some(room) = self.rooms.get(room).map(|room| room.value().clone()) else {
            return;
        };
        let offer = room.feed().suspect_gap();
        if offer == Offer::Fill {
            self.tracker.spawn(self.clone().fill(chat.clone(), room));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_is_told_once_and_forgotten_when_no_check_can_bring_it_again() {
        let mut seen = Seen::default();
        let room = |name: &str| RoomId::new(name).unwrap();
        assert!(seen.note(1, &room("a"), 100_000));
        assert!(!seen.note(1, &room("a"), 100_000));
        assert!(seen.note(1, &room("a"), 100_001));
        assert!(seen.note(1, &room("b"), 150_000));
        assert_eq!(seen.since(1, 200_000), 140_000);
        assert_eq!(
            seen.since(1, 120_000),
            110_000,
            "a time ahead of the clock hides nothing"
        );
        assert_eq!(seen.since(2, 200_000), 0);
        seen.forget_old(|_| 1, &HashSet::from([1]), 200_000);
        assert_eq!(seen.rooms.len(), 1, "only what lies within the overlap is kept");
        seen.forget_old(|_| 1, &HashSet::new(), 200_000);
        assert!(seen.rooms.is_empty() && seen.newest.is_empty());
    }
}
