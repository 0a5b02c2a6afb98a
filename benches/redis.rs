//! How long the scripts take on a Redis of their own: a trip there and back, and posts per second with some under way.
#![expect(clippy::unwrap_used, reason = "a call that cannot be prepared must stop the run")]

use std::cell::Cell;
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use rand::Rng as _;
use roomcast::chat::compose_message;
use roomcast::chat::payload::Payload;
use roomcast::config::{Rate, RedisConfig, Source};
use roomcast::model::{Identity, RoomId, Scope, UserId};
use roomcast::redis::{Admission, AdmitLimits, After, Draft, PageLimit, PostLimits, Posted, Redis, Take};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

/// Rooms, or addresses, where there are many.
const MANY: u64 = 1000;
/// Posts under way at once.
const FLIGHT: u64 = 50;
/// Events of a page.
const PAGE: usize = 100;
/// How long the server may take to answer at first.
const START_MAX: Duration = Duration::from_secs(10);
/// The log as by default; whatever is posted waits for an archive that never comes.
const LIMITS: PostLimits = PostLimits {
    log_max_len: 20_000,
    archive_max_bytes: 1 << 30,
};
/// Nothing is refused.
const RATE: Rate = Rate {
    interval: Duration::from_micros(1),
    burst: 1_000_000,
};

/// A server that keeps nothing, and ends with the run.
struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            _folder: folder,
        }
    }

    async fn connect(&self) -> Redis {
        let url = format!("redis://127.0.0.1:{}", self.port);
        let config = RedisConfig::read(&Source::from_pairs([("REDIS_URL", url.as_str())])).unwrap();
        let redis = Redis::start(config).unwrap();
        tokio::time::timeout(START_MAX, redis.wait_connected()).await.unwrap();
        redis
    }

    /// Forgets everything but the scripts, so that what one case stored slows no other.
    fn wipe(&self) {
        let mut wipe = Command::new("redis-cli");
        wipe.args(["-p", &self.port.to_string(), "FLUSHALL"])
            .stdout(Stdio::null());
        assert!(wipe.status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// Below the ports that connections get.
fn free_port() -> u16 {
    loop {
        let port = rand::rng().random_range(11_000..22_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The connection, and what tells one call from the next.
struct Caller {
    redis: Redis,
    draft: Draft,
    number: Cell<u64>,
}

impl Caller {
    fn new(redis: Redis) -> Self {
        let identity = Identity {
            user: UserId::new("u1").unwrap(),
            username: "Ann".to_owned(),
            session: None,
            issued_at: None,
            expires_at: None,
        };
        let sent = r#"{"roomID":"r1","message":"hello, everybody here","cid":"c-1","color":"red"}"#;
        let raw = RawValue::from_string(sent.to_owned()).unwrap();
        let payload = Payload::parse(&raw).unwrap();
        let room = RoomId::new("r1").unwrap();
        Self {
            redis,
            draft: compose_message(&payload, &identity, &room, 4000, "@gpt").unwrap(),
            number: Cell::new(0),
        }
    }

    fn next(&self) -> u64 {
        self.number.replace(self.number.get() + 1)
    }

    /// One of them, in turn.
    fn next_of<'a, T>(&self, all: &'a [T]) -> &'a T {
        &all[self.number.get() as usize % all.len()]
    }

    /// Stores a plain message under a `cid` of its own.
    async fn post(&self, room: &RoomId) {
        let draft = Draft {
            cid: Some(format!("c-{}", self.next())),
            ..self.draft.clone()
        };
        let posted = self.redis.post(room, &[draft], LIMITS).await.unwrap();
        assert!(matches!(posted[..], [Posted::Stored(_)]));
    }

    /// Takes from a rate as a costly event does.
    async fn take(&self, scope: &Scope) {
        self.next();
        assert_eq!(self.redis.take(scope, "costly", RATE, 1).await.unwrap(), None);
    }

    /// Lets a socket in, which has its lease already from the second time on.
    async fn admit(&self, scope: &Scope) {
        self.next();
        let limits = AdmitLimits {
            sockets: Some(100),
            handshakes: Some(RATE),
            ..AdmitLimits::default()
        };
        let admission = self.redis.admit(scope, "socket", limits).await.unwrap();
        assert!(matches!(admission, Admission::Admitted { .. }));
    }

    /// Reads the newest page of a log.
    async fn read(&self, room: &RoomId) {
        let limit = PageLimit::events(PAGE);
        let page = self.redis.read_log(room, After::Start, Take::Newest, limit, true).await;
        assert_eq!(page.unwrap().events.len(), PAGE);
    }
}

fn post(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, caller: &Caller, name: &str, rooms: &[RoomId]) {
    group.throughput(Throughput::Elements(1));
    group.bench_function(name, |bencher| {
        bencher.to_async(runtime).iter(|| caller.post(caller.next_of(rooms)));
    });
    group.throughput(Throughput::Elements(FLIGHT));
    group.bench_function(format!("{name}, {FLIGHT} under way"), |bencher| {
        bencher.to_async(runtime).iter(|| {
            // Each future takes its number when it is first polled, its room now.
            let first = caller.number.get();
            let posts = (first..first + FLIGHT).map(|number| caller.post(&rooms[number as usize % rooms.len()]));
            futures::future::join_all(posts)
        });
    });
}

fn main() {
    // One thread, so that of two cores the other is for Redis.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = Server::start();
    let caller = Caller::new(runtime.block_on(server.connect()));
    let rooms: Vec<RoomId> = (0..MANY).map(|n| RoomId::new(&format!("r{n}")).unwrap()).collect();
    let addresses = (0..1000).map(|n| Scope::address(Ipv4Addr::from(0x0a00_0000 + n).into()));
    let addresses: Vec<Scope> = addresses.collect();

    let mut criterion = Criterion::default()
        .without_plots()
        .sample_size(50)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();

    let mut group = criterion.benchmark_group("post");
    post(&mut group, &runtime, &caller, "one room", &rooms[..1]);
    server.wipe();
    post(&mut group, &runtime, &caller, "1000 rooms", &rooms);
    group.finish();
    server.wipe();

    let mut group = criterion.benchmark_group("guard");
    group.bench_function("take", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| caller.take(caller.next_of(&addresses)));
    });
    group.bench_function("admit", |bencher| {
        bencher
            .to_async(&runtime)
            .iter(|| caller.admit(caller.next_of(&addresses)));
    });
    group.finish();
    server.wipe();

    runtime.block_on(async {
        for _ in 0..MANY {
            caller.post(&rooms[0]).await;
        }
    });
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(PAGE as u64));
    group.bench_function("page of 100", |bencher| {
        bencher.to_async(&runtime).iter(|| caller.read(&rooms[0]));
    });
    group.finish();

    runtime.block_on(caller.redis.close());
}
