//! Composition root of a chat node.

mod address;
mod balance;
mod connection;
mod deletion_cost;
mod drain;
mod expiry;
mod front;
mod gate;
mod proxy;
mod pulse;
mod succession;
mod upkeep;
mod vital;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use socketioxide::handler::ConnectHandler;
use socketioxide::{SocketIo, TransportType};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::balance::Balance;
use self::connection::Connections;
use self::front::{Front, NoPage};
use self::gate::Gate;
use self::pulse::Pulse;
use self::vital::{Failure, Vital};
use crate::auth::Auth;
use crate::chat::Chat;
use crate::config::{Config, ConfigError, Rule};
use crate::guard::Guard;
use crate::ops::{self, Admin, Health};
use crate::redis::{Adapter, AdapterLink, BusMetrics, Load, Redis};
use crate::socket::{App, ConnectMiddleware, Connected, Deliver, NodeName, Transports, Waiting, follow_control};
use crate::telemetry::Metrics;
use crate::telemetry::trace::Sampler;
use crate::upstream::{Pod, Upstream};

/// Tasks that deliver: fan-out is the node's work, and a room stays on one of them.
const SHARDS_MAX: usize = 8;
/// Packets queued per socket; beyond it the room log takes over. A burst of acks and messages fits.
const SOCKET_QUEUE: usize = 256;
/// Bytes of one read from a websocket, which its buffer is kept for: most clients mostly listen, and say little.
const WS_READ_BUFFER: usize = 128;
/// How long a client may take from opening a transport to CONNECT: a round trip and what its `auth` callback does. The
/// engine keeps a session for that time even when its connection has ended.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(6);
/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address cannot be used.
    #[error(
        "cannot listen on {0}: {1}; is another process on this port? change ROOMCAST_LISTEN or ROOMCAST_OPS_LISTEN"
    )]
    Listen(SocketAddr, std::io::Error),
    /// Something that must work does not.
    #[error("cannot start: {0}")]
    Start(String),
}

/// A running node.
pub struct Node {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where health and metrics answer.
    pub ops_address: SocketAddr,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// The node's readiness.
    pub health: Health,
    front: Front,
    connections: Arc<Connections>,
    booted: Arc<std::sync::OnceLock<Booted>>,
    config: Arc<Config>,
    tracker: TaskTracker,
    /// Ends the tasks of the running node; the ops listener outlives it.
    stop: CancellationToken,
    stop_ops: CancellationToken,
    failed: tokio::sync::watch::Receiver<Option<String>>,
}

/// What exists once Redis is there.
struct Booted {
    app: Arc<App>,
    io: SocketIo<Adapter>,
    link: AdapterLink,
}

impl Node {
    /// Binds both listeners and starts to serve as soon as Redis is there; until then the node is unready and refuses
    /// handshakes with a retry hint.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        config.validate()?;
        let metrics = Arc::new(Metrics::new().map_err(|error| NodeError::Start(error.to_string()))?);
        let redis = Redis::start_measured(&config, &metrics)?;
        let upstream = Upstream::new(&config).map_err(|error| NodeError::Start(error.to_string()))?;
        let upstream = Arc::new(upstream.with_metrics(metrics.clone()));
        let auth = Auth::new(&config, upstream.clone())?;
        let pod = Pod::new(&config).map_err(|error| NodeError::Start(error.to_string()))?;
        let (listener, address) = listen(config.listen).await?;
        let (ops_listener, ops_address) = listen(config.ops_listen).await?;

        let health = Health::new(&["redis"]);
        let (stop, stop_ops, tracker) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let admin = Admin::new(&config, &redis);
        let ops_stopped = stop_ops.clone().cancelled_owned();
        tracker.spawn(log_end(
            "ops listener",
            ops::serve(ops_listener, health.clone(), metrics.clone(), admin, ops_stopped),
        ));

        let connections = Arc::new(Connections::default());
        let waiting = Arc::new(Waiting::new(
            // Only watched, the rule closes nobody; a flood is still held by the total.
            if config.guard_shadow.contains(&Rule::Unauthenticated) {
                u32::MAX
            } else {
                config.guard_unauthenticated_per_address
            },
            config.guard_unauthenticated,
            metrics.unauthenticated.clone(),
        ));
        let front = Front::new(&config, waiting.clone());
        let start = |error: std::io::Error| NodeError::Start(error.to_string());
        let (gate, arrivals) = Gate::new(&config, front.clone(), connections.clone(), waiting);
        let accepting = gate
            .open(listener.into_std().map_err(start)?, stop.clone())
            .map_err(start)?;
        tracker.spawn(log_end("gate", accepting));
        let timeout = *config.header_timeout;
        tracker.spawn(connection::serve(arrivals, timeout, front.clone(), tracker.clone()));
        tracker.spawn(connections.clone().watch(*config.write_stall, stop.clone()));

        let (failure, failed) = tokio::sync::watch::channel(None);
        let failure: Failure = Arc::new(failure);
        let booted = Arc::new(std::sync::OnceLock::new());
        let config = Arc::new(config);
        let boot = Boot {
            config: config.clone(),
            redis,
            upstream,
            auth,
            pod,
            metrics: metrics.clone(),
            health: health.clone(),
            front: front.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
            failure: failure.clone(),
        };
        let slot = booted.clone();
        tracker.spawn(async move {
            let stopped = boot.stop.clone();
            tokio::select! {
                result = boot.run(&slot) => if let Err(error) = result {
                    // The role's owner ends the process; a node that cannot serve must not look alive.
                    failure.send_replace(Some(error.to_string()));
                },
                () = stopped.cancelled() => {}
            }
        });
        tracing::info!(%address, %ops_address, "node listens");
        Ok(Self {
            address,
            ops_address,
            metrics,
            health,
            front,
            connections,
            booted,
            config,
            tracker,
            stop,
            stop_ops,
            failed,
        })
    }

    /// Waits until the node serves.
    pub async fn ready(&self) -> Result<(), NodeError> {
        let mut failed = self.failed.clone();
        loop {
            if let Some(reason) = failed.borrow_and_update().clone() {
                return Err(NodeError::Start(reason));
            }
            if self.booted.get().is_some() && self.health.is_ready() {
                return Ok(());
            }
            let _poll = tokio::time::timeout(Duration::from_millis(20), failed.changed()).await;
        }
    }

    /// Resolves with the reason when the node cannot go on.
    pub async fn failure(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Ends without a word, as a crash would: nothing is removed from Redis. For tests of what a crash leaves behind.
    pub fn crash(self) {
        if let Some(Booted { app, .. }) = self.booted.get() {
            app.crashed.store(true, std::sync::atomic::Ordering::Release);
        }
        self.stop.cancel();
        self.stop_ops.cancel();
        for conn in self.connections.all() {
            conn.kill();
        }
    }
}

/// What the start needs after Redis is there.
struct Boot {
    config: Arc<Config>,
    redis: Redis,
    upstream: Arc<Upstream>,
    auth: Auth,
    pod: Option<Pod>,
    metrics: Arc<Metrics>,
    health: Health,
    front: Front,
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Failure,
}

impl Boot {
    async fn run(self, slot: &std::sync::OnceLock<Booted>) -> Result<(), NodeError> {
        let Self {
            config,
            redis,
            upstream,
            auth,
            pod,
            metrics,
            health,
            front,
            tracker,
            stop,
            failure,
        } = self;
        let vital = Vital::new(tracker.clone(), stop.clone(), failure);
        health.set("redis", Err("not connected yet"));
        redis.wait_connected().await;
        redis.wait_checked().await?;
        let bus_metrics = BusMetrics {
            received: metrics.bus_messages_received_total.clone(),
            lagged: metrics.bus_lagged_total.clone(),
            resubscribes: metrics.bus_resubscribes_total.clone(),
        };
        let shards = std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(SHARDS_MAX);
        let (bus, items) = redis.start_bus(shards, bus_metrics);
        let transports = Arc::new(Transports::default());
        let deliver = Arc::new(Deliver::new(
            bus.clone(),
            transports.clone(),
            metrics.clone(),
            tracker.clone(),
        ));
        let chat = Arc::new(Chat::new(&config, redis.clone(), upstream.clone(), metrics.clone()));
        let node = NodeName::default();
        let guard = Guard::new(&config, redis.clone(), metrics.clone(), node.get().to_string());
        let app = Arc::new(App {
            chat: chat.clone(),
            auth,
            guard,
            redis: redis.clone(),
            bus: bus.clone(),
            deliver: deliver.clone(),
            transports,
            sockets: DashMap::new(),
            node,
            metrics,
            sampler: Sampler::new(&config),
            tracker: tracker.clone(),
            app_match: config.vision_app_info.clone(),
            sync_parallel_max: config.sync_parallel_max,
            mention: config.gpt_mention.clone(),
            message_counts: DashMap::new(),
            orphans: DashMap::new(),
            crashed: std::sync::atomic::AtomicBool::new(false),
        });
        for (index, shard) in items.into_iter().enumerate() {
            vital.spawn("delivery", deliver.clone().run(chat.clone(), shard, index == 0));
        }
        let (adapter, link) = redis
            .adapter()
            .await
            .map_err(|error| NodeError::Start(format!("adapter: {error}")))?;
        let (service, io) = SocketIo::builder()
            .ping_interval(*config.ping_interval)
            .ping_timeout(*config.ping_timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .max_buffer_size(SOCKET_QUEUE)
            .max_payload(config.max_payload as u64)
            .ws_max_message_size(config.max_payload)
            .ws_max_frame_size(config.max_payload)
            .ws_read_buffer_size(WS_READ_BUFFER)
            .transports([TransportType::Polling, TransportType::Websocket])
            .with_adapter::<Adapter>(adapter)
            .build_with_inner_svc(NoPage);
        // A namespace that could not subscribe looks healthy and serves "Invalid namespace".
        io.ns("/", Connected(app.clone()).with(ConnectMiddleware(app.clone())))
            .await
            .map_err(|error| NodeError::Start(format!("namespace: {error}")))?;
        app.redis
            .announce_node(&app.node.get(), Load::default())
            .await
            .map_err(|error| NodeError::Start(error.to_string()))?;
        // The acts first, then the bans of before: one that is set in between comes by both ways, none by neither.
        let position = app
            .redis
            .control_position()
            .await
            .map_err(|error| NodeError::Start(error.to_string()))?;
        app.guard
            .resync()
            .await
            .map_err(|error| NodeError::Start(error.to_string()))?;
        vital.spawn("control", follow_control(app.clone(), position, bus.control(), stop));
        let pulse = Pulse::new(app.clone(), health.clone(), front.clone());
        vital.spawn("pulse", pulse.watch());
        vital.spawn("upkeep", upkeep::keep(app.clone(), health.clone()));
        if let Some(balance) = Balance::new(&config) {
            vital.spawn("balance", balance::keep(app.clone(), health.clone(), balance));
        }
        if let Some(pod) = pod {
            vital.spawn("deletion cost", deletion_cost::keep(app.clone(), pod));
        }
        vital.spawn("expiry", expiry::cut_expired(app.clone()));
        vital.spawn("verification", expiry::verify_again(app.clone()));
        vital.spawn("positions", deliver.clone().watch_positions(chat, redis));
        let watched = ops::watch(health.clone(), upstream, config.memory_share.into());
        vital.spawn("watch", watched);
        vital.spawn("reaper", upkeep::reap(app.clone()));
        health.set("redis", Ok(()));
        front.serve(app.clone(), service);
        health.set_started();
        let _once = slot.set(Booted { app, io, link });
        tracing::info!("node serves");
        Ok(())
    }
}

/// Binds an address and tells which port it got.
pub(crate) async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| NodeError::Listen(address, error))?;
    let bound = listener
        .local_addr()
        .map_err(|error| NodeError::Listen(address, error))?;
    Ok((listener, bound))
}

/// Runs a listener to its end, and says why it failed if it did.
pub(crate) async fn log_end(what: &'static str, task: impl Future<Output = std::io::Result<()>>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "{what} failed");
    }
}
