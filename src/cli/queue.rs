//! `roomcast queue`: what waits for the model, what was given up, and how to stop it for a while.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::CliError;
use super::operator::{By, ago, date, lines, operate, print, print_json, span, table};
use crate::config::Source;
use crate::guard::operate::{DeadList, Letters, Next, Open, QueueError, QueueStats};

/// Arguments of `roomcast queue`.
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A question that was given up has told its room so (gpt:error) and is kept as a dead letter, the newest 10 000. `retry` gives it
a second life: its end is taken back, the room gets gpt:reset and then a reply, or one more error and a new dead letter.
No command shows what a question says.
These commands need REDIS_URL, and REDIS_TLS_… where Redis has TLS; retry also ROOMCAST_PARTITIONS where workers have it set.

Examples:
  roomcast queue stats                        is anything stuck, and where?
  roomcast queue pause --reason 'the model is down'
  roomcast queue dead                         what was given up, and why?
  roomcast queue retry --all                  the model is back: try all of it again
  roomcast queue resume"
)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Subcommand)]
enum QueueCommand {
    /// Show how much waits, for whom, since when, and what each worker does
    Stats(ListArgs),
    /// List the questions that workers take next, in their order
    Peek(ListArgs),
    /// List the questions that were given up, the newest first
    Dead(ListArgs),
    /// Have a question that was given up tried again, or all of them; exit code 1 where there is none of that name
    Retry(LettersArgs),
    /// Forget a question that was given up, or all of them; exit code 1 where there is none of that name
    Drop(LettersArgs),
    /// Make all workers take no more questions; what they are at is finished, new questions wait
    Pause(PauseArgs),
    /// Let workers take questions again; exit code 1 where the queue was not paused
    Resume(ResumeArgs),
}

#[derive(Args)]
struct ListArgs {
    /// How many lines at most; of stats, how many rooms and users
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// As JSON, times in Unix ms
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(group = clap::ArgGroup::new("letters").required(true).args(["id", "all"]))]
struct LettersArgs {
    /// The dead letter, as `queue dead` lists it
    id: Option<String>,
    /// All that there are
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    by: By,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PauseArgs {
    /// Why, for other operators
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    by: By,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ResumeArgs {
    #[command(flatten)]
    by: By,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl From<QueueError> for CliError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Bad(error) => error.into(),
            QueueError::Redis(error) => error.into(),
        }
    }
}

/// Runs one of the commands.
pub async fn run(args: QueueArgs, source: &Source) -> Result<(), CliError> {
    match args.command {
        QueueCommand::Stats(args) => {
            let stats = operate(source).await?.queue_stats(args.limit as usize).await?;
            show(args.json, &stats, stood)
        }
        QueueCommand::Peek(args) => {
            let next = operate(source).await?.queue_next(args.limit as usize).await?;
            show(args.json, &next, listed)
        }
        QueueCommand::Dead(args) => {
            let list = operate(source).await?.queue_dead(args.limit as usize).await?;
            show(args.json, &list, buried)
        }
        QueueCommand::Retry(args) => retry(&args, source).await,
        QueueCommand::Drop(args) => drop_letters(&args, source).await,
        QueueCommand::Pause(args) => pause(&args, source).await,
        QueueCommand::Resume(args) => resume(&args, source).await,
    }
}

fn show<T: serde::Serialize>(json: bool, value: &T, text: impl Fn(&T) -> String) -> Result<(), CliError> {
    if json {
        return print_json(value);
    }
    print(&text(value));
    Ok(())
}

async fn retry(args: &LettersArgs, source: &Source) -> Result<(), CliError> {
    let (letters, by) = (Letters::new(args.id.as_deref(), args.all)?, args.by.name(source)?);
    let done = operate(source).await?.queue_retry(&letters, &by).await?;
    let done = done.ok_or_else(|| missing(&letters))?;
    show(args.json, &done, |done| {
        let mut text = format!("{} asked again.", questions(done.retried));
        if done.answered > 0 {
            text += &format!(" {} had a reply.", questions(done.answered));
        }
        text
    })
}

async fn drop_letters(args: &LettersArgs, source: &Source) -> Result<(), CliError> {
    let (letters, by) = (Letters::new(args.id.as_deref(), args.all)?, args.by.name(source)?);
    let dropped = operate(source).await?.queue_drop(&letters, &by).await?;
    let dropped = dropped.ok_or_else(|| missing(&letters))?;
    show(args.json, &json!({"dropped": dropped}), |_| {
        format!("{} forgotten.", questions(dropped))
    })
}

async fn pause(args: &PauseArgs, source: &Source) -> Result<(), CliError> {
    let by = args.by.name(source)?;
    let new = operate(source).await?.queue_pause(args.reason.as_deref(), &by).await?;
    show(args.json, &json!({"paused": true, "was": !new}), |_| {
        if new {
            "The queue is paused: workers take no more questions, new ones wait.".to_owned()
        } else {
            "The queue was paused before; `roomcast queue stats` says by whom.".to_owned()
        }
    })
}

async fn resume(args: &ResumeArgs, source: &Source) -> Result<(), CliError> {
    let by = args.by.name(source)?;
    let Some(paused) = operate(source).await?.queue_resume(&by).await? else {
        return Err(CliError::NotFound("the queue was not paused".to_owned()));
    };
    let ms = u64::try_from(paused.as_millis()).unwrap_or(u64::MAX);
    show(args.json, &json!({"paused": false, "paused_for_ms": ms}), |_| {
        format!("Workers take questions again, after {}.", span(paused))
    })
}

fn missing(letters: &Letters) -> CliError {
    CliError::NotFound(match letters {
        Letters::One(id) => format!("there is no dead letter {id}"),
        Letters::All => "there are no dead letters".to_owned(),
    })
}

fn questions(count: u64) -> String {
    match count {
        1 => "1 question".to_owned(),
        more => format!("{more} questions"),
    }
}

fn stood(stats: &QueueStats) -> String {
    let now = stats.now;
    let mut text = vec![match &stats.paused {
        None => "The queue runs.".to_owned(),
        Some(pause) => format!(
            "The queue is paused since {} ({}) by {}{}.",
            date(pause.since),
            ago(pause.since, now),
            pause.by,
            if pause.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", pause.reason)
            }
        ),
    }];
    let runnable = stats
        .runnable
        .map_or_else(|| "not known now".to_owned(), |lag| lag.to_string());
    text.extend([
        String::new(),
        format!("  Runnable  {runnable}"),
        format!("  Running   {}", stats.running),
        format!("  Waiting   {} behind others of their room or user", stats.waiting),
        format!("  Delayed   {} until another attempt", stats.delayed),
        format!("  Asked     {} not queued yet", stats.asked),
        format!("  Dead      {}", stats.dead),
        format!(
            "  Oldest    {}",
            stats
                .oldest_wait_ms
                .map_or_else(|| "none waits".to_owned(), |ms| format!("waits for {}", length(ms)))
        ),
        format!(
            "  Brake     {}",
            stats.braked_for_ms.map_or_else(
                || "off".to_owned(),
                |ms| format!("the provider wants no calls for {}", length(ms))
            )
        ),
        String::new(),
    ]);
    if !stats.rooms.is_empty() {
        let mut rooms = table(["ROOM", "WAITING", "RUNNING"]);
        for load in &stats.rooms {
            rooms.add_row([load.room.as_str(), &load.waiting.to_string(), &load.running.to_string()]);
        }
        let mut users = table(["USER", "WAITING", "RUNNING"]);
        for load in &stats.users {
            users.add_row([load.user.as_str(), &load.waiting.to_string(), &load.running.to_string()]);
        }
        for (table, shown, total) in [
            (rooms, stats.rooms.len(), stats.rooms_total),
            (users, stats.users.len(), stats.users_total),
        ] {
            text.push(lines(&table));
            if total > shown {
                text.push(format!("{shown} of {total}; --limit shows more."));
            }
            text.push(String::new());
        }
    }
    if stats.workers.is_empty() {
        text.push("No worker was seen within the hour.".to_owned());
        return text.join("\n");
    }
    let mut workers = table(["WORKER", "SEEN", "RUNS SINCE", "SLOTS", "RUNNING"]);
    for worker in &stats.workers {
        let running: Vec<String> = worker
            .running
            .iter()
            .map(|open| format!("{} {}", open.room, open.question))
            .collect();
        workers.add_row([
            worker.worker.as_str(),
            &format!(
                "{}{}",
                ago(worker.seen, now),
                if worker.silent { ", silent" } else { "" }
            ),
            &ago(worker.since, now),
            &worker.slots.to_string(),
            &if running.is_empty() {
                "-".to_owned()
            } else {
                running.join(", ")
            },
        ]);
    }
    text.push(lines(&workers));
    text.join("\n")
}

fn listed(next: &Next) -> String {
    if next.questions.is_empty() {
        return "No question could be taken now.".to_owned();
    }
    let mut table = table(["ROOM", "USER", "QUESTION", "AGE", "ATTEMPT"]);
    for Open {
        room,
        question,
        user,
        attempt,
        age_ms,
    } in &next.questions
    {
        let age = (*age_ms).map_or_else(|| "-".to_owned(), length);
        table.add_row([room.as_str(), user.as_str(), question, &age, &attempt.to_string()]);
    }
    lines(&table)
}

fn buried(list: &DeadList) -> String {
    if list.letters.is_empty() {
        return "No question was given up.".to_owned();
    }
    let mut table = table(["ID", "WHEN", "REASON", "ATTEMPTS", "ROOM", "USER", "QUESTION"]);
    for letter in &list.letters {
        table.add_row([
            letter.id.as_str(),
            &ago(letter.at, list.now),
            &letter.reason,
            &letter.attempts.to_string(),
            letter.room.as_str(),
            letter.user.as_str(),
            &letter.question,
        ]);
    }
    let mut text = lines(&table);
    if list.total > list.letters.len() as u64 {
        text += &format!(
            "\n\nThe newest {} of {}; --limit shows more.",
            list.letters.len(),
            list.total
        );
    }
    text
}

fn length(ms: u64) -> String {
    span(Duration::from_millis(ms))
}
