//! `roomcast ban`: who is kept out, and why.

use std::fmt::Write;
use std::net::IpAddr;

use clap::{Args, Subcommand};

use super::CliError;
use super::operator::{By, ago, date, lines, operate, print, print_json, table, until, warn};
use crate::config::Source;
use crate::guard::operate::{BanList, BanOrder, Kind, Report, is_forever, read_scope};
use crate::model::{Ban, Scope, UnixMs};

/// Arguments of `roomcast ban`.
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A SCOPE is an address (192.0.2.7; of IPv6 its /64), a network (192.0.2.0/24), user:<platformid> or session:<sid>.
These commands need REDIS_URL, and REDIS_TLS_… where Redis has TLS; no other setting.

Examples:
  roomcast ban list --ip 192.0.2.7           is it kept out, and why?
  roomcast ban add 192.0.2.0/24 --for 2h     keep a network out for two hours
  roomcast ban add user:p7 --for forever --reason spam
  roomcast ban remove user:p7"
)]
pub struct BanArgs {
    #[command(subcommand)]
    command: BanCommand,
}

#[derive(Subcommand)]
enum BanCommand {
    /// List the bans in force, the newest first
    List(ListArgs),
    /// Ban a scope; its sockets are cut on every node, and a ban in force is replaced
    Add(AddArgs),
    /// Lift a ban, and forget its ladder and strikes; exit code 1 where there was none
    Remove(RemoveArgs),
    /// Show all about a scope: ban, ladder, strikes, sockets and the newest acts, also where it is not banned
    Show(ShowArgs),
}

#[derive(Args)]
struct ListArgs {
    /// Only those of this kind
    #[arg(long)]
    kind: Option<Kind>,
    /// Only those that keep this address out, of networks too
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<IpAddr>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// As JSON, times in Unix ms
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct AddArgs {
    /// 192.0.2.7, 192.0.2.0/24, user:<platformid> or session:<sid>
    scope: String,
    /// For how long: 30m, 2h, 7d, forever
    #[arg(long = "for", value_name = "LENGTH", default_value = "24h")]
    length: String,
    /// Why, for operators: clients only learn that they were banned
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    by: By,
    /// As JSON, times in Unix ms
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RemoveArgs {
    /// 192.0.2.7, 192.0.2.0/24, user:<platformid> or session:<sid>
    scope: String,
    #[command(flatten)]
    by: By,
}

#[derive(Args)]
struct ShowArgs {
    /// 192.0.2.7, 192.0.2.0/24, user:<platformid> or session:<sid>
    scope: String,
    /// As JSON, times in Unix ms
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub async fn run(args: BanArgs, source: &Source) -> Result<(), CliError> {
    match args.command {
        BanCommand::List(args) => list(&args, source).await,
        BanCommand::Add(args) => add(&args, source).await,
        BanCommand::Remove(args) => remove(&args, source).await,
        BanCommand::Show(args) => show(&args, source).await,
    }
}

async fn list(args: &ListArgs, source: &Source) -> Result<(), CliError> {
    let list = operate(source)
        .await?
        .bans(args.kind, args.ip, args.limit as usize)
        .await?;
    if args.json {
        return print_json(&list);
    }
    warn(&list.warnings);
    print(&listed(&list, args));
    Ok(())
}

async fn add(args: &AddArgs, source: &Source) -> Result<(), CliError> {
    let by = args.by.name(source)?;
    let order = BanOrder::new(&args.scope, Some(&args.length), args.reason.as_deref(), &by)?;
    let set = operate(source).await?.ban(&order).await?;
    if args.json {
        return print_json(&set);
    }
    warn(&set.warnings);
    print(&format!(
        "{} is banned {}.",
        set.ban.scope,
        end(&set.ban, set.ban.since)
    ));
    Ok(())
}

async fn remove(args: &RemoveArgs, source: &Source) -> Result<(), CliError> {
    let (scope, by) = (read_scope(&args.scope)?, args.by.name(source)?);
    if operate(source).await?.unban(&scope, &by).await? {
        print(&format!("{scope} is no longer banned."));
        return Ok(());
    }
    Err(CliError::NotFound(format!("{scope} was not banned")))
}

async fn show(args: &ShowArgs, source: &Source) -> Result<(), CliError> {
    let scope = read_scope(&args.scope)?;
    let report = operate(source).await?.report(&scope).await?;
    if args.json {
        return print_json(&report);
    }
    print(&shown(&report));
    Ok(())
}

fn listed(list: &BanList, args: &ListArgs) -> String {
    let BanList { bans, total, now, .. } = list;
    if bans.is_empty() {
        return match (args.ip, args.kind) {
            (Some(ip), _) => format!("{ip} is not banned."),
            (None, Some(_)) => "Nobody of this kind is banned.".to_owned(),
            (None, None) => "Nobody is banned.".to_owned(),
        };
    }
    let mut text = args.ip.map(|ip| format!("{ip} is banned:\n\n")).unwrap_or_default();
    let mut table = table(["SCOPE", "ENDS", "REASON", "BY", "SINCE", "LEVEL"]);
    for ban in bans {
        let ends = if is_forever(ban) {
            "never".to_owned()
        } else {
            until(ban.until, *now)
        };
        let (scope, level) = (ban.scope.to_string(), level(ban.level));
        table.add_row([&scope, &ends, &ban.reason, &ban.actor, &ago(ban.since, *now), &level]);
    }
    let _infallible = write!(text, "{}", lines(&table));
    if *total > bans.len() {
        let _infallible = write!(text, "\n\nThe newest {} of {total}; --limit shows more.", bans.len());
    }
    text
}

fn shown(report: &Report) -> String {
    let (scope, now) = (&report.scope, report.now);
    let mut shown = match &report.ban {
        Some(ban) => vec![
            format!("{scope} is banned {}.", end(ban, now)),
            String::new(),
            format!("  Reason    {}", ban.reason),
            format!("  By        {} ({})", ban.actor, ban.origin.as_str()),
            format!("  Since     {} ({})", date(ban.since), ago(ban.since, now)),
        ],
        None => vec![format!("{scope} is not banned."), String::new()],
    };
    for ban in &report.networks {
        shown.push(format!(
            "  Within    {}, banned {}: {}",
            ban.scope,
            end(ban, now),
            ban.reason
        ));
    }
    // Networks and login sessions have no limit of sockets.
    let counted = match scope {
        Scope::Address(_) | Scope::User(_) => format!(", {} count against its limit", report.counted),
        Scope::Range(_) | Scope::Session(_) => String::new(),
    };
    shown.extend([
        format!(
            "  Ladder    {}",
            match report.level {
                0 => "not banned by a rule of late".to_owned(),
                level => format!("step {level}; the next block by a rule takes the step after it"),
            }
        ),
        format!("  Strikes   {}", report.strikes),
        format!("  Sockets   {} connected{counted}", report.sockets),
    ]);
    if !report.audit.is_empty() {
        let mut table = table(["WHEN", "ACT", "BY", "REASON"]);
        for audit in &report.audit {
            table.add_row([&ago(audit.at, now), &audit.act, &audit.actor, &audit.reason]);
        }
        shown.extend([String::new(), lines(&table)]);
    }
    shown.join("\n")
}

/// `until 2026-11-26 15:34 UTC, in 24 h`.
fn end(ban: &Ban, now: UnixMs) -> String {
    if is_forever(ban) {
        "forever".to_owned()
    } else {
        format!("until {}, {}", date(ban.until), until(ban.until, now))
    }
}

fn level(level: u32) -> String {
    if level == 0 { "-".to_owned() } else { level.to_string() }
}
