//! Everything on one machine: a private Redis, the reference services, nodes and a worker.

use std::cell::OnceCell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::backend::{Backend, BackendConfig};
use crate::cli::CliError;
use crate::config::{Config, ConfigError, Source};
use crate::gpt::scripted::ScriptedModel;
use crate::lifecycle::Signals;
use crate::node::Node;
use crate::telemetry::{Traces, logging};
use crate::worker::Worker;

/// How long the parts may take to be there.
const START_MAX: Duration = Duration::from_secs(20);

/// The scripted model's pause before each word: slow enough to watch.
const MODEL_PACE: Duration = Duration::from_millis(150);

/// Rooms for everybody: who comes under any name finds company.
const WELCOME_ROOMS: [&str; 2] = ["lounge", "kitchen"];

/// What the demo takes from outside: what is logged, and where traces go.
const TAKEN: [&str; 10] = [
    "ROOMCAST_LOG",
    "ROOMCAST_LOG_FORMAT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
];

/// Arguments of `roomcast demo`.
#[derive(Args)]
#[command(
    after_help = "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 sends traces to a collector there; ROOMCAST_LOG=info logs more."
)]
pub struct DemoArgs {
    /// How many nodes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Nodes on this port and the next ones, the backend on +10, operations on +20, a scripted model on +30
    #[arg(long, default_value_t = 8080)]
    port_base: u16,
    /// The address everything listens on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Make users user0.. (platformid p0..)
    #[arg(long, value_name = "N", default_value_t = 10)]
    seed_users: u32,
    /// Make rooms room-0..; user i is in room-(i mod R)
    #[arg(long, value_name = "R", default_value_t = 2)]
    seed_rooms: u32,
}

/// Runs the demo until a signal; nothing stays behind.
pub async fn run(args: DemoArgs, source: &Source) -> Result<(), CliError> {
    let mut signals = Signals::listen().map_err(|error| CliError::Internal(error.to_string()))?;
    let folder = Folder::create()?;
    let traces = OnceCell::new();
    let mut serving = pin!(serve(&args, source, folder.path(), &traces));
    let ended = tokio::select! {
        result = &mut serving => result,
        () = signals.next() => {
            println!("\nStopping.");
            Ok(())
        }
    };
    // Before what is served, and Redis with it, is dropped.
    if let Some(traces) = traces.get() {
        traces.clone().flush().await;
    }
    ended
}

async fn serve(args: &DemoArgs, outside: &Source, folder: &Path, traces: &OnceCell<Traces>) -> Result<(), CliError> {
    let address = |offset: u16| {
        args.port_base
            .checked_add(offset)
            .map(|port| SocketAddr::new(args.host, port))
            .ok_or_else(|| {
                CliError::Config(ConfigError::new(
                    "--port-base",
                    "leaves no room for the other ports",
                    "use at most 65000",
                ))
            })
    };
    let (mut redis, redis_url) = start_redis(folder).await?;

    // A secret of this run: nobody else can sign tokens for it.
    let secret = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
    let (backend_address, model_address) = (address(10)?, address(30)?);
    let base = format!("http://{backend_address}");
    let nodes = (0..args.nodes)
        .map(|number| Ok(format!("http://{}", address(number)?)))
        .collect::<Result<Vec<_>, CliError>>()?
        .join(",");
    let settings = |listen: SocketAddr, ops: SocketAddr| {
        let source = Source::from_pairs([
            ("REDIS_URL", redis_url.clone()),
            ("JWT_SECRET", secret.clone()),
            ("AUTH_URL", base.clone()),
            ("API_URL", base.clone()),
            // Browsers and the snippet below both say Mozilla.
            ("VISION_APP_INFO", "Mozilla".to_owned()),
            ("CORS_ORIGINS", "*".to_owned()),
            ("ROOMCAST_DEMO_PAGE", base.clone()),
            ("ROOMCAST_DEMO_NODES", nodes.clone()),
            ("ROOMCAST_LISTEN", listen.to_string()),
            ("ROOMCAST_OPS_LISTEN", ops.to_string()),
            ("ROOMCAST_DRAIN_SPREAD", "0s".to_owned()),
            ("GPT_BASE_URL", format!("http://{model_address}/v1")),
            ("ROOMCAST_LOG", "warn".to_owned()),
        ]);
        let taken = TAKEN.into_iter().filter_map(|name| Some((name, outside.text(name)?)));
        Config::read(&source.with(taken))
    };
    let first = settings(address(0)?, address(20)?)?;
    if let Some(started) = logging::init(&first)? {
        let _only_here = traces.set(started);
    }

    let listener = bind(backend_address).await?;
    let backend = Backend::open(BackendConfig {
        database_url: format!("sqlite://{}", folder.join("demo.db").display()),
        jwt_secret: secret.clone(),
        open_login: true,
        seed_users: args.seed_users,
        seed_rooms: args.seed_rooms,
        welcome_rooms: WELCOME_ROOMS.map(str::to_owned).to_vec(),
        ..BackendConfig::default()
    })
    .await
    .map_err(|error| CliError::Internal(format!("backend: {error}")))?;
    let backend = tokio::spawn(backend.serve(listener, std::future::pending()));

    let listener = bind(model_address).await?;
    let model = tokio::spawn(async move { axum::serve(listener, ScriptedModel::new(MODEL_PACE).router()).await });

    let mut nodes = Vec::new();
    for number in 0..args.nodes {
        nodes.push(Node::start(settings(address(number)?, address(20 + number)?)?).await?);
    }
    let worker = Worker::start(settings(address(0)?, address(20 + args.nodes)?)?).await?;
    for node in &nodes {
        tokio::time::timeout(START_MAX, node.ready())
            .await
            .map_err(|_| CliError::Unavailable("the private Redis did not come up".into()))??;
    }
    print_welcome(args, &nodes, &worker, backend_address, &redis_url);
    if let Some(collector) = &first.otlp_endpoint {
        println!("\nTraces go to {}", collector.as_str());
    }
    println!("\nCtrl-C ends everything and leaves nothing behind.");

    // Ends only when a part does; a signal drops all of this.
    tokio::select! {
        status = redis.wait() => Err(CliError::Unavailable(format!("redis-server ended: {status:?}"))),
        ended = model => Err(CliError::Internal(format!("the scripted model ended: {ended:?}"))),
        ended = backend => Err(CliError::Internal(format!("the backend ended: {ended:?}"))),
        reason = nodes[0].failure() => Err(CliError::Internal(reason)),
    }
}

fn print_welcome(args: &DemoArgs, nodes: &[Node], worker: &Worker, backend: SocketAddr, redis_url: &str) {
    println!("roomcast demo\n");
    if let Some(node) = nodes.first() {
        println!(
            "  Open this in two tabs, as two users:  http://{}/\n",
            reachable(node.address)
        );
    }
    for (number, node) in nodes.iter().enumerate() {
        println!(
            "  node {number}    http://{}    operations http://{}",
            node.address, node.ops_address
        );
    }
    println!(
        "  worker                               operations http://{}",
        worker.ops_address
    );
    println!("  backend   http://{backend}    POST /login {{\"username\":\"user0\"}}");
    println!(
        "  model     scripted, repeats what begins with @gpt; `src/gpt/scripted.rs` tells what else it understands"
    );
    println!("  Redis     {redis_url}");
    println!(
        "\n{} users (user0..), {} rooms (room-0..); user i is in room-(i mod {}), and whoever logs in, under any name, in {}.",
        args.seed_users,
        args.seed_rooms,
        args.seed_rooms,
        WELCOME_ROOMS.join(" and ")
    );
    println!("\nChat from a terminal, each in its own:\n");
    // As this was started: the line works from where one is, on the path or not.
    let program = std::env::args().next().unwrap_or_else(|| "roomcast".to_owned());
    for (number, node) in nodes.iter().take(2).enumerate() {
        let user = number as u32 * args.seed_rooms.max(1);
        println!(
            "  {program} chat --url http://{} --backend http://{backend} --user user{user}",
            node.address
        );
    }
}

/// An address that a browser on this machine can open.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from(([127, 0, 0, 1], address.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), address.port()),
        _ => address,
    }
}

async fn start_redis(folder: &Path) -> Result<(Child, String), CliError> {
    // Asking the system for a free port and giving it back is a race that only another local process could win.
    let port = bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .await?
        .local_addr()
        .map_err(|error| CliError::Internal(error.to_string()))?
        .port();
    let child = Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // In a group of its own: Ctrl-C reaches it through us, after the nodes.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| {
            CliError::Unavailable(format!(
                "redis-server cannot be started ({error}); install it, for example with `apt-get install redis-server`"
            ))
        })?;
    let until = tokio::time::Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if tokio::time::Instant::now() > until {
            return Err(CliError::Unavailable("redis-server did not come up".into()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((child, format!("redis://127.0.0.1:{port}")))
}

async fn bind(address: SocketAddr) -> Result<TcpListener, CliError> {
    TcpListener::bind(address).await.map_err(|error| {
        CliError::Config(ConfigError::new(
            "--port-base",
            format!("cannot use {address}: {error}"),
            "choose other ports with --port-base",
        ))
    })
}

/// A folder that goes when the demo does.
struct Folder(std::path::PathBuf);

impl Folder {
    fn create() -> Result<Self, CliError> {
        let path = std::env::temp_dir().join(format!("roomcast-demo-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&path)
            .map_err(|error| CliError::Internal(format!("cannot make {}: {error}", path.display())))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}
