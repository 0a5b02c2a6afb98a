//! `roomcast backend`: the reference services.

use std::net::SocketAddr;

use clap::Args;
use tokio::net::TcpListener;

use super::{CliError, signals};
use crate::backend::{Backend, BackendConfig, BackendError};
use crate::config::{ConfigError, LogFormat, Secret, Source};
use crate::telemetry::logging;

/// Arguments of `roomcast backend`.
#[derive(Args)]
pub struct BackendArgs {
    /// Where the services answer
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// sqlite://file or postgres://user@host/database
    #[arg(long, value_name = "URL", default_value = "sqlite://roomcast.db")]
    database: String,
    /// Let /login work without a password, and make users it does not know: for trials only
    #[arg(long)]
    open_login: bool,
    /// Make users user0.. (platformid p0..)
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed_users: u32,
    /// Make rooms room-0..; user i is in room-(i mod R)
    #[arg(long, value_name = "R", default_value_t = 0)]
    seed_rooms: u32,
    /// Add this user, or set their password, and end; the password is the first line of the standard input
    #[arg(long, value_name = "NAME")]
    add_user: Option<String>,
}

/// Adds a user, or sets the password of one there is; also beside services that run on the same database.
async fn add_user(name: &str, database: String) -> Result<(), CliError> {
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .map_err(|error| CliError::Internal(format!("cannot read the password: {error}")))?;
    let password = password.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        let cure = "write the password to the standard input, such as with `read -rs P; echo \"$P\" | roomcast …`";
        return Err(ConfigError::new("--add-user", "got no password", cure).into());
    }
    let config = BackendConfig {
        database_url: database,
        // Nothing is signed here, so the real one need not be at hand.
        jwt_secret: format!("{:064x}", rand::random::<u128>()),
        ..BackendConfig::default()
    };
    let backend = Backend::open(config).await.map_err(from_backend)?;
    let added = backend.add_user(name, password).await;
    backend.close().await;
    let platformid = added.map_err(from_backend)?;
    println!("{name} has platformid {platformid}");
    Ok(())
}

/// Runs the services until a signal.
pub async fn run(args: BackendArgs, source: &Source) -> Result<(), CliError> {
    let filter: String = source.setting("ROOMCAST_LOG", Some("info"))?;
    let format: LogFormat = source.setting("ROOMCAST_LOG_FORMAT", Some("text"))?;
    logging::init_with(&filter, format)?;
    if let Some(name) = &args.add_user {
        return add_user(name, args.database).await;
    }
    let secret: Secret = source.setting("JWT_SECRET", None)?;
    let service_token: Option<Secret> = source.setting("UPSTREAM_TOKEN", None)?;
    let config = BackendConfig {
        database_url: args.database,
        jwt_secret: secret.expose().to_owned(),
        open_login: args.open_login,
        seed_users: args.seed_users,
        seed_rooms: args.seed_rooms,
        service_token: service_token.map(|token| token.expose().to_owned()),
        ..BackendConfig::default()
    };
    let mut signals = signals()?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        ConfigError::new(
            "--listen",
            format!("cannot use {}: {error}", args.listen),
            "choose a free address",
        )
    })?;
    let backend = Backend::open(config).await.map_err(from_backend)?;
    tracing::info!(address = %args.listen, "backend listens");
    backend
        .serve(listener, async move { signals.next().await })
        .await
        .map_err(from_backend)
}

fn from_backend(error: BackendError) -> CliError {
    match error {
        BackendError::Config { setting, reason } => {
            CliError::Config(ConfigError::new(setting, reason, "see `roomcast backend --help`"))
        }
        BackendError::BadRequest { field, reason } => {
            CliError::Config(ConfigError::new(field, reason, "choose another"))
        }
        error @ (BackendError::Database(_) | BackendError::Migrate(_)) => CliError::Unavailable(error.to_string()),
        error => CliError::Internal(error.to_string()),
    }
}
