//! Thousands of questions to a scripted model, asked in many rooms while workers are killed, stopped and drained: each
//! must have one end. Without faults it measures what a question costs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

mod ledger;
pub(crate) mod model;
mod report;

pub use ledger::{Ledger, Violation};
use model::{Model, Pace};
use report::{Cost, Report};

use crate::chaos::Rng;
use crate::client::{Client, Event};
use crate::deployment::{APP, Deployment, Durability, Plan, Topology, Worker};
use crate::harness::{HarnessError, Say, find_binary, run_in_folder};

/// A question lives for 180 s, and is ended by whoever finds it 20 s later.
const END_MAX: Duration = Duration::from_secs(220);
/// Events of a client that wait.
const EVENTS_MAX: usize = 4096;
/// How often it says how it stands.
const STATUS_PERIOD: Duration = Duration::from_secs(10);

/// Asks many questions and proves that each has exactly one end: a reply or an error, in the order of its room, and the
/// reply is what was written before everybody's eyes.
///
/// Exit code: 0 all is well, 1 violations, 2 it could not run.
#[derive(Clone, Debug, Parser)]
#[command(name = "roomcast-questions", version)]
pub struct Options {
    /// Questions in all
    #[arg(long, default_value_t = 10_000)]
    pub questions: u64,
    /// Rooms, with one member each who asks
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=5000))]
    pub rooms: u16,
    /// Questions of one room that are open at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=4))]
    pub ahead: u64,
    /// Workers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=32))]
    pub workers: u16,
    /// Words of a reply
    #[arg(long, default_value_t = 8)]
    pub words: u32,
    /// The model's pause before each word, ms
    #[arg(long, default_value_t = 20)]
    pub pause: u64,
    /// Time between two faults of workers on average, ms; 0 = none
    #[arg(long, default_value_t = 4000)]
    pub fault_every: u64,
    /// Give the workers no model: every question is refused once it is taken, and what is left is what the queue costs
    #[arg(long, conflicts_with_all = ["words", "pause"])]
    pub no_model: bool,
    /// Hold the workers until all questions are asked, and measure how fast they are answered then
    #[arg(long)]
    pub backlog: bool,
    /// Repeat the faults of an earlier run [default: drawn and printed]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How Redis is set up
    #[arg(long, value_enum, default_value_t = Topology::Standalone)]
    pub topology: Topology,
    /// The program under test [default: `roomcast` beside this program]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// Print the result as JSON on the standard output; the progress goes to the standard error
    #[arg(long)]
    pub json: bool,
    /// Keep the folder with all logs also after a clean run
    #[arg(long)]
    pub keep: bool,
}

/// Runs to the end and prints the verdict; true when nothing is to be complained of.
pub async fn run(options: Options) -> Result<bool, HarnessError> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()));
    let say = Say {
        to_stderr: options.json,
    };
    let binary = find_binary(options.binary.as_deref())?;
    say.line(&format!(
        "seed {seed}: {} questions, {} workers",
        options.questions, options.workers
    ));
    let work = async |dir: &Path| drive(&options, seed, &binary, dir, say).await;
    run_in_folder(None, &format!("roomcast-questions-{seed}"), options.keep, say, work).await
}

async fn drive(options: &Options, seed: u64, binary: &Path, dir: &Path, say: Say) -> Result<bool, HarnessError> {
    let pace = Pace {
        words: options.words,
        pause: Duration::from_millis(options.pause),
    };
    let model = if options.no_model {
        None
    } else {
        Some(Model::start(pace).await?)
    };
    // One of them may have all questions for a while.
    let mut settings = vec![("GUARD_ALLOW", "127.0.0.0/8"), ("GPT_PARALLEL", "32")];
    settings.extend(model.as_ref().map(|model| ("GPT_BASE_URL", model.url.as_str())));
    let plan = Plan {
        topology: options.topology,
        durability: Durability::Memory,
        nodes: 2,
        rooms: options.rooms.into(),
        users: options.rooms.into(),
        workers: options.workers,
        proxied: false,
        settings: &settings,
    };
    let mut deployment = Deployment::start(&plan, binary, dir).await?;
    // The first is left alone.
    let mut workers = deployment.workers.split_off(1);
    let held = options.backlog;
    if held {
        signal_all(&deployment, &workers, "STOP").await?;
    }
    let progress = Arc::new(Progress::new(options.questions));
    let mut askers = JoinSet::new();
    for (index, token) in deployment.tokens.iter().enumerate() {
        let url = deployment.nodes[index % deployment.nodes.len()].url.clone();
        let asker = Asker {
            index,
            url,
            token: token.clone(),
            ahead: options.ahead,
            progress: progress.clone(),
        };
        askers.spawn(asker.run());
    }
    if held {
        while progress.acked.load(Ordering::Relaxed) < options.questions && askers.try_join_next().is_none() {
            sleep(Duration::from_millis(50)).await;
        }
    }
    let (began, cost) = (Instant::now(), Cost::now(&deployment, &workers));
    if held {
        signal_all(&deployment, &workers, "CONT").await?;
    }
    let mut ledgers = Vec::new();
    let gathering = async {
        while let Some(done) = askers.join_next().await {
            ledgers.push(done.map_err(io::Error::other)??);
        }
        Ok::<(), HarnessError>(())
    };
    let over = progress.clone();
    let faults = tokio::select! {
        done = gathering => { done?; 0 }
        faults = suffer(&mut deployment, &mut workers, options, seed, &over, say) => faults?,
    };
    let took = began.elapsed();
    while let Some(done) = askers.join_next().await {
        ledgers.push(done.map_err(io::Error::other)??);
    }
    let cost = Cost::now(&deployment, &workers).since(&cost);
    let report = Report::new(&ledgers, model.as_ref(), took, cost, faults);
    if options.json {
        println!("{}", report.json(seed));
    } else {
        report.print(seed);
    }
    for worker in &mut workers {
        worker.process.terminate(Duration::from_secs(10)).await?;
    }
    deployment.stop().await?;
    Ok(report.is_clean())
}

/// How far all members have come.
struct Progress {
    to_ask: AtomicU64,
    acked: AtomicU64,
    ended: AtomicU64,
    total: u64,
    is_over: AtomicBool,
}

impl Progress {
    fn new(total: u64) -> Self {
        Self {
            to_ask: AtomicU64::new(total),
            acked: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            total,
            is_over: AtomicBool::new(false),
        }
    }

    /// The number of the next question, while there is one.
    fn next(&self) -> Option<u64> {
        let taken = self
            .to_ask
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        taken.ok()
    }

    fn end(&self) {
        if self.ended.fetch_add(1, Ordering::Relaxed) + 1 == self.total {
            self.is_over.store(true, Ordering::Relaxed);
        }
    }
}

async fn signal_all(deployment: &Deployment, workers: &[Worker], name: &str) -> io::Result<()> {
    for worker in workers.iter().chain(&deployment.workers) {
        worker.process.signal(name).await?;
    }
    Ok(())
}

/// Kills, stops and drains workers until all questions have their end; one of them is always left alone.
async fn suffer(
    deployment: &mut Deployment,
    workers: &mut [Worker],
    options: &Options,
    seed: u64,
    progress: &Progress,
    say: Say,
) -> Result<u32, HarnessError> {
    let (mut rng, mut faults, mut said) = (Rng::new(seed), 0, Instant::now());
    let mut asleep: Vec<(usize, Instant)> = Vec::new();
    let mut next = Instant::now() + Duration::from_millis(options.fault_every);
    while !progress.is_over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(100)).await;
        if said.elapsed() > STATUS_PERIOD {
            said = Instant::now();
            say.line(&format!(
                "{} ended, {faults} faults",
                progress.ended.load(Ordering::Relaxed)
            ));
        }
        for (index, _) in asleep.extract_if(.., |(_, until)| *until < Instant::now()) {
            workers[index].process.signal("CONT").await?;
        }
        if options.fault_every == 0 || workers.is_empty() || next > Instant::now() {
            continue;
        }
        next = Instant::now() + rng.millis(options.fault_every / 2, options.fault_every * 3 / 2);
        let victim = rng.below(workers.len());
        if asleep.iter().any(|(index, _)| *index == victim) {
            continue;
        }
        faults += 1;
        match rng.below(4) {
            0 | 1 => {
                workers[victim].process.kill().await?;
                workers[victim].process.start()?;
            }
            2 => {
                workers[victim].process.terminate(Duration::from_secs(10)).await?;
                workers[victim].process.start()?;
            }
            _ => {
                workers[victim].process.signal("STOP").await?;
                // Sometimes shorter than a lease, sometimes longer.
                asleep.push((victim, Instant::now() + rng.millis(1000, 45_000)));
            }
        }
    }
    for (index, _) in asleep {
        workers[index].process.signal("CONT").await?;
    }
    match deployment.unexpected_ends().await?.into_iter().next() {
        Some(end) => Err(HarnessError::Setup(end)),
        None => Ok(faults),
    }
}

/// A member who asks and watches.
struct Asker {
    index: usize,
    url: String,
    token: String,
    ahead: u64,
    progress: Arc<Progress>,
}

impl Asker {
    async fn run(self) -> Result<Ledger, HarnessError> {
        let room = format!("room-{}", self.index);
        let auth = json!({
            "accessToken": self.token, "refreshToken": "none", "userAgent": APP, "proto": 2,
            "username": format!("user{}", self.index),
        });
        let (sender, mut events) = mpsc::channel(EVENTS_MAX);
        let builder = Client::builder(&self.url).auth(auth).stream(sender);
        let client = builder.timeout(Duration::from_secs(60)).connect().await;
        let client = client.map_err(io::Error::other)?;
        let join = client.emit_ack("join", &json!({ "roomID": room })).await;
        join.map_err(io::Error::other)?;
        let mut ledger = Ledger::new(&room);
        loop {
            while (ledger.open() as u64) < self.ahead {
                let Some(number) = self.progress.next() else { break };
                let key = format!("key:{number}");
                let payload = json!({ "roomID": room, "message": format!("@gpt {key} what is it") });
                let ack = client.emit_ack("message", &payload).await.map_err(io::Error::other)?;
                let Some(id) = ack[0]["id"].as_str() else {
                    return Err(HarnessError::Setup(format!("{room}: not asked: {ack:?}")));
                };
                ledger.asked(format!("{id}-r"), key, Instant::now());
                self.progress.acked.fetch_add(1, Ordering::Relaxed);
            }
            if ledger.open() == 0 {
                // Whatever would come twice has come when the others are done as well.
                if self.progress.is_over.load(Ordering::Relaxed) && events.is_empty() {
                    return Ok(ledger);
                }
                if let Ok(Some(event)) = timeout(Duration::from_millis(500), events.recv()).await {
                    note(&mut ledger, &event);
                }
                continue;
            }
            match timeout(END_MAX, events.recv()).await {
                Ok(Some(event)) => {
                    let before = ledger.open();
                    note(&mut ledger, &event);
                    for _ in ledger.open()..before {
                        self.progress.end();
                    }
                }
                Ok(None) => return Err(HarnessError::Setup(format!("{room}: the connection broke"))),
                // The judgement names what is missing.
                Err(_) => {
                    for _ in 0..ledger.open() {
                        self.progress.end();
                    }
                    return Ok(ledger);
                }
            }
        }
    }
}

fn note(ledger: &mut Ledger, event: &Event) {
    let value: Value = event.arg(0).unwrap_or_default();
    let (id, at) = (value["id"].as_str().unwrap_or_default(), event.at);
    let generation = value["gen"].as_u64().unwrap_or_default();
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    match event.name.as_str() {
        "gpt:delta" => ledger.piece(id, generation, text("text"), at),
        "gpt:reset" => ledger.reset(id, generation, at),
        "gpt:error" => ledger.error(id, text("code"), at),
        "message" if value["kind"] == "gpt" => ledger.reply(id, text("message"), at),
        _ => {}
    }
}
