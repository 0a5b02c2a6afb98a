//! The rooms' logs as they stand in Redis, gathered along the way: a long run trims what it began with.

use std::collections::BTreeMap;
use std::io;

use serde::Deserialize;

use super::redis::Redis;
use super::resp::Reply;
use crate::checker::Entry;

/// One event of a log.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Server time in Unix ms.
    pub ts: u64,
    /// Its place.
    pub seq: u64,
    /// Its epoch.
    pub epoch: String,
    /// Id of the message.
    pub id: String,
    /// The first word of its text.
    pub key: String,
}

#[derive(Deserialize)]
struct Json {
    id: String,
    message: String,
}

impl LogEntry {
    /// As the checker wants it.
    pub fn entry(&self) -> Entry<'_> {
        Entry {
            epoch: &self.epoch,
            seq: self.seq,
            id: &self.id,
            key: Some(&self.key),
        }
    }

    fn parse(reply: &Reply) -> Option<Self> {
        let [position, fields] = reply.list() else { return None };
        let (ts, seq) = position.text().split_once('-')?;
        let fields = fields.list();
        let field = |name: &str| {
            let pair = fields.chunks_exact(2).find(|pair| pair[0].text() == name)?;
            Some(pair[1].text())
        };
        let json: Json = serde_json::from_str(field("e")?).ok()?;
        Some(Self {
            ts: ts.parse().ok()?,
            seq: seq.parse().ok()?,
            epoch: field("p")?.to_owned(),
            id: json.id,
            key: json.message.split(' ').next()?.to_owned(),
        })
    }

    fn position(&self) -> String {
        format!("{}-{}", self.ts, self.seq)
    }
}

/// Every room's log.
#[derive(Debug, Default)]
pub struct Logs {
    /// By room.
    pub rooms: BTreeMap<String, Vec<LogEntry>>,
}

impl Logs {
    /// Reads what is new in the wanted rooms, and again what a failover changed.
    pub async fn gather(&mut self, redis: &Redis, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
        for (room, key, port) in redis.room_logs().await? {
            if !wanted(&room) {
                continue;
            }
            let known = self.rooms.entry(room).or_default();
            let news = match known.last() {
                None => read(redis, port, &key, "-".to_owned()).await?,
                Some(last) => {
                    let from_last = read(redis, port, &key, last.position()).await?;
                    let is_there = |first: &LogEntry| first.position() == last.position() && first.epoch == last.epoch;
                    if from_last.first().is_some_and(is_there) {
                        from_last
                    } else {
                        read(redis, port, &key, "-".to_owned()).await?
                    }
                }
            };
            if let Some(first) = news.first() {
                let begins = (first.ts, first.seq);
                known.truncate(known.partition_point(|entry| (entry.ts, entry.seq) < begins));
                known.extend(news);
            }
        }
        Ok(())
    }

    /// The newest place of each room.
    pub fn tops(&self) -> Vec<(String, u64)> {
        let tops = self
            .rooms
            .iter()
            .map(|(room, log)| (room.clone(), log.last().map_or(0, |last| last.seq)));
        tops.collect()
    }

    /// About when a place was written.
    pub fn time_of(&self, room: &str, seq: u64) -> Option<u64> {
        let log = self.rooms.get(room)?;
        let at = log.partition_point(|entry| entry.seq < seq);
        log.get(at).or(log.last()).map(|entry| entry.ts)
    }
}

async fn read(redis: &Redis, port: u16, key: &str, from: String) -> io::Result<Vec<LogEntry>> {
    let (mut all, mut from) = (Vec::new(), from);
    loop {
        let page = redis.range(port, key, &from).await?;
        for entry in &page {
            let parsed = LogEntry::parse(entry);
            all.push(parsed.ok_or_else(|| io::Error::other(format!("an entry of {key} is not readable: {entry:?}")))?);
        }
        match all.last() {
            Some(last) if !page.is_empty() => from = format!("({}", last.position()),
            _ => return Ok(all),
        }
    }
}
