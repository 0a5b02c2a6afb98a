//! `roomcast sessions`: who is connected, where; and how to close connections.

use std::fmt::Write;

use clap::{Args, Subcommand};

use super::CliError;
use super::operator::{By, ago, lines, operate, print, print_json, table, warn};
use crate::config::Source;
use crate::guard::operate::{SessionFilter, SessionList, Target};

/// Rooms of a socket that a table names.
const ROOMS_SHOWN: usize = 3;

/// Arguments of `roomcast sessions`.
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
These commands need REDIS_URL, and REDIS_TLS_… where Redis has TLS; no other setting.

Examples:
  roomcast sessions list --user p7            where is this user connected?
  roomcast sessions list --ip 192.0.2.0/24 --limit 1000
  roomcast sessions kick --user p7            close the user's connections; `roomcast ban add` keeps them out"
)]
pub struct SessionsArgs {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Subcommand)]
enum SessionsCommand {
    /// List the connected sockets of all nodes, by user
    List(ListArgs),
    /// Close connections, with a notice; clients may come back at once
    Kick(KickArgs),
}

#[derive(Args)]
struct ListArgs {
    /// Only this user's
    #[arg(long, value_name = "PLATFORMID")]
    user: Option<String>,
    /// Only those of this address, or network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Only those of this login session
    #[arg(long, value_name = "SID")]
    login: Option<String>,
    /// Only those of this node; the beginning of its id is enough
    #[arg(long, value_name = "ID")]
    node: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// As JSON, times in Unix ms
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("target").required(true).args(["socket", "user", "login", "ip"]))]
struct KickArgs {
    /// This socket
    #[arg(long, value_name = "ID")]
    socket: Option<String>,
    /// All sockets of this user
    #[arg(long, value_name = "PLATFORMID")]
    user: Option<String>,
    /// All sockets of this login session
    #[arg(long, value_name = "SID")]
    login: Option<String>,
    /// All sockets of this address, or network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    #[command(flatten)]
    by: By,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub async fn run(args: SessionsArgs, source: &Source) -> Result<(), CliError> {
    match args.command {
        SessionsCommand::List(args) => list(args, source).await,
        SessionsCommand::Kick(args) => kick(&args, source).await,
    }
}

async fn list(args: ListArgs, source: &Source) -> Result<(), CliError> {
    let (user, login, ip) = (args.user.as_deref(), args.login.as_deref(), args.ip.as_deref());
    let filter = SessionFilter::new(user, login, ip, args.node)?;
    let list = operate(source).await?.sessions(&filter, args.limit as usize).await?;
    if args.json {
        return print_json(&list);
    }
    print(&listed(&list));
    Ok(())
}

async fn kick(args: &KickArgs, source: &Source) -> Result<(), CliError> {
    let (user, login, ip) = (args.user.as_deref(), args.login.as_deref(), args.ip.as_deref());
    let target = Target::new(args.socket.as_deref(), user, login, ip)?;
    let by = args.by.name(source)?;
    let kicked = operate(source).await?.kick(&target, &by).await?;
    if args.json {
        return print_json(&kicked);
    }
    warn(&kicked.warnings);
    print(&match kicked.sockets {
        0 => format!("{target}: no socket is known; every node was told all the same."),
        1 => format!("{target}: closing 1 socket."),
        more => format!("{target}: closing {more} sockets."),
    });
    Ok(())
}

fn listed(list: &SessionList) -> String {
    let SessionList { sessions, total, now } = list;
    if sessions.is_empty() {
        return "Nobody is connected who fits.".to_owned();
    }
    let mut table = table(["USER", "LOGIN", "ADDRESS", "NODE", "SINCE", "SOCKET", "ROOMS"]);
    for session in sessions {
        let mut rooms: Vec<&str> = session.rooms.iter().map(crate::model::RoomId::as_str).collect();
        rooms.sort_unstable();
        let more = rooms.len().saturating_sub(ROOMS_SHOWN);
        rooms.truncate(ROOMS_SHOWN);
        let rooms = match more {
            0 => rooms.join(", "),
            more => format!("{}, {more} more", rooms.join(", ")),
        };
        table.add_row([
            session.user.as_str(),
            session.login.as_deref().unwrap_or("-"),
            &session.ip.map_or_else(|| "-".to_owned(), |ip| ip.to_string()),
            &session.node,
            &ago(session.since, *now),
            &session.socket,
            if rooms.is_empty() { "-" } else { &rooms },
        ]);
    }
    let mut text = lines(&table);
    if *total > sessions.len() {
        let _infallible = write!(text, "\n\n{} of {total}; --limit shows more.", sessions.len());
    }
    text
}
