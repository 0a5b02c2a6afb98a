//! `roomcast chat`: talks in a room from a terminal or a script.
//!
//! The Socket.IO client is the one of the tests (`roomcast-load`): it adds no crate to the node, and a second one in the
//! node's own code would be a second place for the same mistakes.

mod input;
mod login;
mod session;
mod talk;
mod view;
mod words;

use clap::Args;

use super::{CliError, signals};
use crate::config::{AppMatch, ConfigError, Secret, Source};
use login::Login;
use session::Chat;

/// Arguments of `roomcast chat`.
#[derive(Args)]
pub struct ChatArgs {
    /// A node, such as `http://127.0.0.1:8080`
    #[arg(long, value_name = "URL")]
    url: String,
    /// Who you are
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The room to join; the first of yours if absent
    #[arg(long, value_name = "ID")]
    room: Option<String>,
    /// Where to log in; if absent `AUTH_URL`, else the node's host with its port + 10, as in the demo
    #[arg(long, value_name = "URL")]
    backend: Option<String>,
    /// Seen by other users of this machine: `ROOMCAST_CHAT_PASSWORD` (or `_FILE`) is better
    #[arg(long, value_name = "TEXT")]
    password: Option<String>,
    /// What to call this client; if absent, a text with `VISION_APP_INFO` in it
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
}

/// Chats until the input ends, `/quit` or a signal.
pub async fn run(args: ChatArgs, source: &Source) -> Result<(), CliError> {
    let password: Option<Secret> = source.setting("ROOMCAST_CHAT_PASSWORD", None)?;
    let password = args
        .password
        .or_else(|| password.map(|password| password.expose().to_owned()));
    let url = checked_url(&args.url)?;
    let (backend, assumed) = match args.backend.as_deref().or_else(|| source.text("AUTH_URL")) {
        Some(backend) => (backend.trim_end_matches('/').to_owned(), false),
        None => (beside(&url)?, true),
    };
    let user_agent = match args.user_agent {
        Some(user_agent) => user_agent,
        None => user_agent(source)?,
    };
    // Before anything that takes time: Ctrl-C must always end this with its farewell.
    let signals = signals()?;
    let login = Login::new(&backend, assumed)?;
    let credentials = login.log_in(&args.user, password.as_deref()).await?;
    let rooms = login.rooms(&credentials).await;
    let room = match args.room {
        Some(room) => room,
        None => rooms.first().cloned().ok_or_else(|| {
            ConfigError::new(
                "--room",
                "is absent and your rooms are not known",
                "name the room to join",
            )
        })?,
    };
    let lines = input::lines();
    Chat::new(&url, user_agent, credentials, rooms, &room, lines, signals)
        .run()
        .await
}

/// The client speaks no TLS: it is for nodes that one can reach directly.
fn checked_url(url: &str) -> Result<reqwest::Url, CliError> {
    let bad = |problem: String| ConfigError::new("--url", problem, "use an address such as http://127.0.0.1:8080");
    let url = reqwest::Url::parse(url).map_err(|error| bad(format!("`{url}` is no address: {error}")))?;
    if url.scheme() != "http" {
        return Err(bad(format!("`{}` is not spoken here", url.scheme())).into());
    }
    Ok(url)
}

/// The demo's backend: ten ports above its first node.
fn beside(url: &reqwest::Url) -> Result<String, CliError> {
    let host = url.host_str().unwrap_or("127.0.0.1");
    let port = url.port_or_known_default().and_then(|port| port.checked_add(10));
    let port =
        port.ok_or_else(|| ConfigError::new("--backend", "cannot be guessed from --url", "name where to log in"))?;
    Ok(format!("http://{host}:{port}"))
}

/// A name that every node accepts as genuine which has the settings of this environment, and the demo's nodes.
fn user_agent(source: &Source) -> Result<String, CliError> {
    let app = match source.text("VISION_APP_INFO") {
        Some(text) if !text.starts_with("re:") => format!(" {text}"),
        _ => String::new(),
    };
    let name = format!("Mozilla/5.0 (terminal) roomcast/{}{app}", env!("CARGO_PKG_VERSION"));
    let expected: Option<AppMatch> = source.setting("VISION_APP_INFO", None)?;
    if expected.is_some_and(|expected| !expected.matches(&name)) {
        // Connecting with a wrong name blocks the address, so it is better refused here.
        return Err(ConfigError::new(
            "--user-agent",
            "is absent and VISION_APP_INFO is a pattern",
            "name one that matches the pattern",
        )
        .into());
    }
    Ok(name)
}
