//! From a crowd to machines: arithmetic with what `growth` has measured, every step of it shown.

mod costs;
mod need;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

pub use costs::Costs;
pub use need::{Crowd, Machine, Need, need};

use crate::growth::Growth;
use crate::harness::HarnessError;

/// What was measured last, for whoever has not measured.
const MEASURED: &str = include_str!("../measured/growth.json");

/// Says how many nodes, Redis primaries and workers a crowd needs, and why.
///
/// Exit code: 0 here it is, 2 the figures are of no use.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Sockets connected at once; several for a table
    #[arg(long, value_delimiter = ',', default_values_t = [10_000.0, 100_000.0, 1_000_000.0])]
    pub users: Vec<f64>,
    /// Rooms that each user has joined
    #[arg(long, default_value_t = 3.0)]
    pub rooms_of_user: f64,
    /// Members of a room that are connected
    #[arg(long, default_value_t = 20.0)]
    pub members: f64,
    /// Messages of each connected user in an hour, at the peak
    #[arg(long, default_value_t = 60.0)]
    pub messages_per_hour: f64,
    /// Share of messages that ask the model
    #[arg(long, default_value_t = 0.01)]
    pub asked: f64,
    /// How long a reply takes, s
    #[arg(long, default_value_t = 10.0)]
    pub reply_seconds: f64,
    /// Cores of a node
    #[arg(long, default_value_t = 4.0)]
    pub cores: f64,
    /// Memory of a node, GiB
    #[arg(long, default_value_t = 4.0)]
    pub gib: f64,
    /// How much of its cores the peak may use
    #[arg(long, default_value_t = 0.6)]
    pub busy: f64,
    /// Within what time the sockets of a lost node come back, s
    #[arg(long, default_value_t = 30.0)]
    pub back_within: f64,
    /// Replies that a worker writes at once (`GPT_PARALLEL`)
    #[arg(long, default_value_t = 32.0)]
    pub replies: f64,
    /// What an event takes in a room's log, bytes
    #[arg(long, default_value_t = 500.0)]
    pub event_bytes: f64,
    /// What `growth --json` wrote on your machine [default: as in docs/capacity.md]
    #[arg(long, value_name = "FILE")]
    pub measured: Option<PathBuf>,
}

/// Prints prices, formulas and needs.
pub fn run(options: &Options) -> Result<bool, HarnessError> {
    let machine = Machine {
        cores: options.cores,
        gib: options.gib,
        busy: options.busy,
        back_within: options.back_within,
        replies: options.replies,
        event_bytes: options.event_bytes,
    };
    let crowds = options.users.iter().map(|sockets| Crowd {
        sockets: *sockets,
        rooms_of_user: options.rooms_of_user,
        members: options.members,
        messages_per_hour: options.messages_per_hour,
        asked: options.asked,
        reply_seconds: options.reply_seconds,
    });
    let crowds: Vec<Crowd> = crowds.collect();
    check(&crowds, &machine)?;
    let text = match &options.measured {
        Some(file) => std::fs::read_to_string(file)?,
        None => MEASURED.to_owned(),
    };
    let growth: Growth = serde_json::from_str(&text)
        .map_err(|error| HarnessError::Setup(format!("--measured is not what `growth --json` writes: {error}")))?;
    let costs = Costs::of(&growth).map_err(|lack| HarnessError::Setup(format!("--measured is not enough: {lack}")))?;
    println!("Measured on {}.\n\n{}", growth.machine, prices(&costs, options.members));
    let mut needs = Vec::new();
    for crowd in &crowds {
        needs.push(need(&costs, crowd, &machine).ok_or_else(|| {
            HarnessError::Setup(format!("{} sockets need more nodes than anybody has", crowd.sockets))
        })?);
    }
    println!("{}", table(&crowds, &needs));
    Ok(true)
}

fn check(crowds: &[Crowd], machine: &Machine) -> Result<(), HarnessError> {
    let positive = [
        ("--cores", machine.cores),
        ("--gib", machine.gib),
        ("--busy", machine.busy),
        ("--back-within", machine.back_within),
        ("--replies", machine.replies),
        ("--event-bytes", machine.event_bytes),
    ];
    let of_crowds = crowds.iter().flat_map(|crowd| {
        [
            ("--users", crowd.sockets),
            ("--rooms-of-user", crowd.rooms_of_user),
            ("--members", crowd.members),
        ]
    });
    for (option, value) in positive.into_iter().chain(of_crowds) {
        if !(value.is_finite() && value > 0.0) {
            return Err(HarnessError::Setup(format!("{option} must be above 0, not {value}")));
        }
    }
    let from_zero = crowds.iter().flat_map(|crowd| {
        [
            ("--messages-per-hour", crowd.messages_per_hour),
            ("--asked", crowd.asked),
            ("--reply-seconds", crowd.reply_seconds),
        ]
    });
    for (option, value) in from_zero {
        if !(value.is_finite() && value >= 0.0) {
            return Err(HarnessError::Setup(format!("{option} must be 0 or above, not {value}")));
        }
    }
    Ok(())
}

fn prices(costs: &Costs, members: f64) -> String {
    let message = (costs.message(members), costs.redis_message);
    let line =
        |what: &str, (node, redis): (f64, f64), unit: &str| format!("| {what} | {node:.1} | {redis:.1} | {unit} |\n");
    [
        "| price | of a node | of Redis | |\n|---|---|---|---|\n".to_owned(),
        line(&format!("a message to {members} members on its node"), message, "µs"),
        line("each further node with members of the room, a message", costs.hop, "µs"),
        line("a node with nobody, a second", costs.node_second, "µs"),
        format!(
            "| one node and one worker with nothing to do, a second | | {:.1} | µs |\n",
            costs.redis_second
        ),
        line("a connect with its join", costs.connect, "µs"),
        line("an idle socket, a second", costs.socket_second, "µs"),
        line("an idle socket", costs.socket_kib, "KiB"),
        format!("| a node by itself | {:.0} | | MiB |\n", costs.node_kib / 1024.0),
        format!(
            "| a message in the archive, of a worker | {:.1} | | µs |\n",
            costs.archive
        ),
    ]
    .concat()
}

/// A column for each crowd, the arithmetic in the order in which it is done.
fn table(crowds: &[Crowd], needs: &[Need]) -> String {
    let mut text = String::from("| |");
    for crowd in crowds {
        // Writing to a string cannot fail.
        let _written = write!(text, " {} |", crowd.sockets);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(crowds.len()));
    let mut row = |name: &str, show: &dyn Fn(&Need) -> String| {
        let _written = write!(text, "\n| {name} |");
        for need in needs {
            let _written = write!(text, " {} |", show(need));
        }
    };
    row("events a second (messages, replies)", &|need| {
        format!("{:.0}", need.messages)
    });
    row("deliveries a second", &|need| format!("{:.0}", need.deliveries));
    row("nodes on which a room has members", &|need| {
        format!("{:.1}", need.nodes_of_room)
    });
    row("cores of all nodes at the peak", &|need| {
        format!("{:.1}", need.node_cores)
    });
    row("the same while a lost node's sockets return", &|need| {
        format!("{:.1}", need.cores_without_one)
    });
    row("memory of a node when one is lost, GiB", &|need| {
        format!("{:.2}", need.node_gib)
    });
    row("**nodes**", &|need| format!("**{}**", need.nodes));
    row("their number follows from", &|need| need.bound.to_owned());
    row("cores of Redis while a lost node's sockets return", &|need| {
        format!("{:.2}", need.redis_cores)
    });
    row("**Redis primaries**", &|need| format!("**{}**", need.primaries));
    row("memory of Redis at most, GiB", &|need| format!("{:.1}", need.redis_gib));
    row("cores of archiving", &|need| format!("{:.2}", need.archive_cores));
    row("**workers**", &|need| format!("**{}**", need.workers));
    text
}
