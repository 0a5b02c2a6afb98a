//! The server of a test, and the connections that look at it from outside.

use std::collections::HashSet;
use std::time::Duration;

use proptest::test_runner::TestCaseError;
use roomcast::config::{Config, Source};
use roomcast::model::RoomId;
use roomcast::redis::{After, PageLimit, Redis, Take};

use super::op::ROOMS;
use super::wire::Wire;
use crate::support::{SECRET, TestRedis, Topology, until, within};

/// Fewer than rooms, so that some share an archive.
pub const PARTITIONS: u16 = 2;

/// A private server with everything that is connected to it.
pub struct Server {
    process: TestRedis,
    pub redis: Redis,
    pub rooms: Vec<RoomId>,
    /// For commands.
    pub wire: Wire,
    /// Subscribed to every room's channel.
    pub live: Wire,
    /// Sees every command, on a cluster.
    monitor: Option<Wire>,
    /// How many commands of scripts were seen.
    pub script_commands: usize,
    /// The server's `master_replid`.
    pub boot: String,
}

impl Server {
    pub async fn start() -> Self {
        Self::of(TestRedis::start_as(Topology::Standalone).await, false).await
    }

    /// A cluster of one, where slots count, with an eye on what scripts touch.
    pub async fn start_cluster() -> Self {
        Self::of(TestRedis::start_as(Topology::ClusterOfOne).await, true).await
    }

    /// A server of the other implementation.
    pub async fn start_valkey() -> Self {
        Self::of(TestRedis::start_as(Topology::Valkey).await, false).await
    }

    async fn of(process: TestRedis, watched: bool) -> Self {
        let source = Source::from_pairs([
            ("ROOMCAST_PARTITIONS", PARTITIONS.to_string()),
            ("JWT_SECRET", SECRET.to_owned()),
            ("AUTH_URL", "http://127.0.0.1:1".to_owned()),
            ("API_URL", "http://127.0.0.1:1".to_owned()),
            ("VISION_APP_INFO", "VisionApp".to_owned()),
        ])
        .with(process.settings());
        let redis = Redis::start(&Config::read(&source).unwrap()).unwrap();
        within("Redis is connected", redis.wait_connected()).await;
        let port = process.port();
        let mut monitor = None;
        if watched {
            let mut wire = Wire::connect(port).await;
            wire.call(&["MONITOR"]).await;
            monitor = Some(wire);
        }
        let mut server = Self {
            process,
            redis,
            rooms: ROOMS.iter().map(|room| RoomId::new(room).unwrap()).collect(),
            wire: Wire::connect(port).await,
            live: Wire::connect(port).await,
            monitor,
            script_commands: 0,
            boot: String::new(),
        };
        server.look().await;
        server
    }

    pub fn room(&self, room: usize) -> RoomId {
        self.rooms[room].clone()
    }

    pub fn partition(&self, room: usize) -> usize {
        usize::from(self.redis.keys.partition(ROOMS[room]))
    }

    /// Becomes another primary, as far as the scripts can see.
    pub async fn elect(&mut self) {
        self.wire.call(&["DEBUG", "CHANGE-REPL-ID"]).await;
        self.read_boot().await;
    }

    /// Ends the process and starts it with what it has on disk, which is everything.
    pub async fn restart(&mut self) {
        self.process.kill().await;
        self.process.resume().await;
        let (redis, rooms) = (&self.redis, &self.rooms);
        until("the connections stand again", Duration::from_secs(10), || async {
            // Until its end has been noticed, a connection seems to stand: only an answer proves it.
            for room in rooms {
                let limit = PageLimit::events(1);
                if redis
                    .read_log(room, After::Start, Take::Newest, limit, false)
                    .await
                    .is_err()
                {
                    return false;
                }
            }
            redis.is_connected() && redis.archive_backlog().await.is_ok()
        })
        .await;
        self.wire = Wire::connect(self.process.port()).await;
        self.live = Wire::connect(self.process.port()).await;
        self.look().await;
    }

    async fn look(&mut self) {
        let clustered = self.redis.is_clustered();
        for room in &self.rooms {
            let channel = self.redis.keys.live(room);
            self.live
                .call(&[if clustered { "SSUBSCRIBE" } else { "SUBSCRIBE" }, &channel])
                .await;
        }
        self.read_boot().await;
    }

    async fn read_boot(&mut self) {
        let info = self.wire.call(&["INFO", "replication"]).await.text();
        let boot = info.lines().find_map(|line| line.strip_prefix("master_replid:"));
        self.boot = boot.unwrap().trim().to_owned();
    }

    /// Every script since the last call named keys of one slot and touched no others.
    pub async fn watch_slots(&mut self) -> Result<(), TestCaseError> {
        let Some(monitor) = &mut self.monitor else {
            return Ok(());
        };
        self.wire.call(&["ECHO", "so far"]).await;
        let mut keys: HashSet<Vec<u8>> = HashSet::new();
        // Read to the end in any case: the next input of a test that fails must not find the rest.
        let mut fault = None;
        loop {
            let line = monitor.read().await.text();
            let in_script = line.contains(" lua] ");
            let words = words_of(&line);
            let name = String::from_utf8_lossy(&words[0]).to_uppercase();
            match name.as_str() {
                "ECHO" => return fault.map_or(Ok(()), |fault| Err(TestCaseError::fail(fault))),
                "EVALSHA" | "EVAL" => {
                    let count: usize = String::from_utf8_lossy(&words[2]).parse().unwrap();
                    keys = words[3..3 + count].iter().cloned().collect();
                    let slots: HashSet<u16> = keys.iter().map(|key| slot(key)).collect();
                    if slots.len() != 1 {
                        fault.get_or_insert(format!("keys of several slots: {line}"));
                    }
                }
                "INFO" | "TIME" => {}
                // Its channel is no key, and belongs to no slot: workers hear of questions on every server.
                "PUBLISH" if words[1].starts_with(b"rc:{gpt}:") => {}
                _ if in_script => {
                    self.script_commands += 1;
                    let key = match name.as_str() {
                        "XINFO" => &words[2],
                        // Before the place from which it reads.
                        "XREADGROUP" => &words[words.len() - 2],
                        _ => &words[1],
                    };
                    // The queue's scripts make names out of what they find; all of them share a tag.
                    let of_queue = |key: &[u8]| key.starts_with(b"rc:{gpt}:");
                    let is_named = keys.contains(key) || (of_queue(key) && keys.iter().all(|key| of_queue(key)));
                    if !is_named {
                        fault.get_or_insert(format!("a script touched a key that it did not name: {line}"));
                    }
                }
                _ => {}
            }
        }
    }
}

/// The quoted words of a line of MONITOR.
fn words_of(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.split_once("] ").unwrap().1.bytes();
    while let Some(quote) = rest.next() {
        if quote != b'"' {
            continue;
        }
        let mut word = Vec::new();
        loop {
            match rest.next().unwrap() {
                b'"' => break,
                b'\\' => match rest.next().unwrap() {
                    b'x' => {
                        let digits = [rest.next().unwrap(), rest.next().unwrap()];
                        word.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    }
                    b'n' => word.push(b'\n'),
                    b'r' => word.push(b'\r'),
                    b't' => word.push(b'\t'),
                    other => word.push(other),
                },
                byte => word.push(byte),
            }
        }
        words.push(word);
    }
    words
}

/// The cluster slot of a key: CRC16 (XMODEM) of its tag.
fn slot(key: &[u8]) -> u16 {
    let open = key.iter().position(|byte| *byte == b'{');
    let tag = open.and_then(|open| {
        let length = key[open + 1..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open + 1..open + 1 + length])
    });
    let mut crc = 0_u16;
    for byte in tag.unwrap_or(key) {
        crc ^= u16::from(*byte) << 8;
        for _ in 0..8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
        }
    }
    crc % 16384
}

#[test]
fn slots_are_those_of_redis() {
    // CLUSTER KEYSLOT of these
    assert_eq!(slot(b"123456789"), 12739);
    assert_eq!(slot(b"rc:{123456789}:active"), 12739);
}
