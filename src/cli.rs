//! The command line: arguments to one role, and its end to an exit code.

mod backend;
mod ban;
mod chat;
mod operator;
mod queue;
mod sessions;
mod settings;
mod token;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError, Source};
use crate::demo::{self, DemoArgs};
use crate::guard::operate::BadOrder;
use crate::lifecycle::{Signals, raise_file_limit};
use crate::node::{Node, NodeError};
use crate::redis::RedisError;
use crate::telemetry::{Traces, logging};
use crate::worker::Worker;

/// A horizontally scalable Socket.IO chat node.
///
/// Settings come from flags, else from the environment or .env, else from the file given by --config; `roomcast config`
/// lists them. Try it all on one machine with `roomcast demo`.
#[derive(Parser)]
#[command(name = "roomcast", version, arg_required_else_help = true)]
struct Cli {
    /// TOML file with settings, `name = "value"`
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one chat node: clients connect here; state is in Redis
    Node(NodeArgs),
    /// Run a worker: saves messages to the message service behind the chat
    Worker(WorkerArgs),
    /// Run the reference auth, room and message services
    Backend(backend::BackendArgs),
    /// Run everything on this machine, with a private Redis: nodes, worker and services
    Demo(DemoArgs),
    /// Chat from this terminal, or from a script
    Chat(chat::ChatArgs),
    /// Print access tokens for load tests, one a line, signed with JWT_SECRET
    Token(token::TokenArgs),
    /// See who is banned and why; ban and unban addresses, users and sessions on every node
    Ban(ban::BanArgs),
    /// See who is connected to which node; close connections
    Sessions(sessions::SessionsArgs),
    /// See what waits for the model and what was given up; pause it, and try again
    Queue(queue::QueueArgs),
    /// List every setting with its default
    Config(settings::ConfigArgs),
    /// Print the metrics there are, as a page of the documentation
    #[command(hide = true)]
    Metrics,
    /// Check the settings, and that Redis can be used, without starting anything
    CheckConfig,
}

#[derive(Args)]
struct NodeArgs {
    /// Where clients connect [ROOMCAST_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Where health and metrics answer [ROOMCAST_OPS_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

#[derive(Args)]
struct WorkerArgs {
    /// Where health and metrics answer [ROOMCAST_OPS_LISTEN]
    #[arg(long, value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

/// Why a command ended, as an exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Exit code 1: what was to be changed is not there.
    #[error("{0}")]
    NotFound(String),
    /// Exit code 64.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// Exit code 64: an argument that clap cannot judge.
    #[error("{0}")]
    Usage(#[from] BadOrder),
    /// Exit code 69: a needed service stayed away.
    #[error("{0}")]
    Unavailable(String),
    /// Exit code 70.
    #[error("{0}")]
    Internal(String),
}

impl From<NodeError> for CliError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::Config(error) => Self::Config(error),
            error @ (NodeError::Listen(..) | NodeError::Start(_)) => Self::Internal(error.to_string()),
        }
    }
}

impl From<RedisError> for CliError {
    fn from(error: RedisError) -> Self {
        match error {
            RedisError::Unavailable | RedisError::Uncertain(_) => {
                Self::Unavailable(format!("{error}; it is safe to run this again"))
            }
            RedisError::Refused(_) | RedisError::Unexpected(_) => Self::Internal(error.to_string()),
        }
    }
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound(_) => 1,
            Self::Config(_) | Self::Usage(_) => 64,
            Self::Unavailable(_) => 69,
            Self::Internal(_) => 70,
        }
    }
}

/// Runs the command line to its end.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _broken_pipe = error.print();
            // Asked-for help is no error; a wrong argument is a bad configuration.
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("roomcast: cannot start the runtime: {error}");
            return ExitCode::from(70);
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roomcast: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let mut flags = Vec::new();
    match &cli.command {
        Command::Node(args) => {
            flags.extend(args.listen.clone().map(|listen| ("ROOMCAST_LISTEN", listen)));
            flags.extend(args.ops_listen.clone().map(|listen| ("ROOMCAST_OPS_LISTEN", listen)));
        }
        Command::Worker(args) => flags.extend(args.ops_listen.clone().map(|listen| ("ROOMCAST_OPS_LISTEN", listen))),
        _ => {}
    }
    let source = Source::load(flags, cli.config.as_deref())?;
    match cli.command {
        Command::Node(_) => {
            let (config, traces) = read(&source)?;
            run_node(config, traces).await
        }
        Command::Worker(_) => {
            let (config, traces) = read(&source)?;
            run_worker(config, traces).await
        }
        Command::Backend(args) => backend::run(args, &source).await,
        Command::Demo(args) => demo::run(args, &source).await,
        Command::Chat(args) => chat::run(args, &source).await,
        Command::Token(args) => token::run(&args, &source),
        Command::Ban(args) => ban::run(args, &source).await,
        Command::Sessions(args) => sessions::run(args, &source).await,
        Command::Queue(args) => queue::run(args, &source).await,
        Command::Config(args) => settings::print(&args),
        Command::Metrics => {
            print!("{}", crate::telemetry::metrics::page());
            Ok(())
        }
        Command::CheckConfig => settings::check(&source).await,
    }
}

fn read(source: &Source) -> Result<(Config, Option<Traces>), CliError> {
    let config = Config::read(source)?;
    config.validate()?;
    let traces = logging::init(&config)?;
    Ok((config, traces))
}

fn signals() -> Result<Signals, CliError> {
    Signals::listen().map_err(|error| CliError::Internal(format!("cannot listen for signals: {error}")))
}

/// Sends the last spans, where there are traces.
async fn flush(traces: Option<Traces>) {
    if let Some(traces) = traces {
        traces.flush().await;
    }
}

async fn run_node(config: Config, traces: Option<Traces>) -> Result<(), CliError> {
    raise_file_limit();
    let mut signals = signals()?;
    let node = Node::start(config).await?;
    let failure = tokio::select! {
        () = signals.next() => None,
        reason = node.failure() => Some(reason),
    };
    match failure {
        None => {
            tracing::info!("stopping");
            let stop = async {
                node.stop().await;
                flush(traces).await;
            };
            signals.finish(stop).await;
            Ok(())
        }
        Some(reason) => {
            // What led to it may be among them.
            flush(traces).await;
            Err(CliError::Internal(reason))
        }
    }
}

async fn run_worker(config: Config, traces: Option<Traces>) -> Result<(), CliError> {
    let mut signals = signals()?;
    let worker = Worker::start(config).await?;
    signals.next().await;
    tracing::info!("stopping");
    let stop = async {
        worker.stop().await;
        flush(traces).await;
    };
    signals.finish(stop).await;
    Ok(())
}
