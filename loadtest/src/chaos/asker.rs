//! Members who ask a model, in a room of their own: whatever fails, each question has one end.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::rng::Rng;
use crate::client::{Client, Event};
use crate::deployment::logs::{LogEntry, Logs};
use crate::deployment::{APP, Deployment, Topology};

/// Members who ask; they begin on different nodes.
pub const ASKERS: u32 = 2;
/// Where they ask.
pub const ROOM: &str = "asked";
/// What the id of a reply has behind that of its question.
const REPLY: &str = "-r";
/// Limit of a connect and of each ack: above the 1.5 s that a node waits for Redis.
const ANSWER_MAX: Duration = Duration::from_secs(4);
/// Events of a client that wait.
const EVENTS_AHEAD: usize = 256;
/// A dead worker's question is taken over within a lease, 30 s, and a few seconds more; one that is lost ends 20 s after its
/// deadline.
const END_MAX: Duration = Duration::from_secs(75);
/// How often it is looked whether all have ended.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// What the askers were told; questions by their id.
#[derive(Debug, Default)]
struct Told {
    /// Acked as asked.
    asked: BTreeSet<String>,
    /// How often each asker was told of an error.
    errors: BTreeMap<(u32, String), usize>,
}

/// The askers; dropping it ends them.
#[derive(Debug)]
pub struct Askers {
    told: Arc<Mutex<Told>>,
    closing: Arc<AtomicBool>,
    present: Present,
    /// The room's log, gathered along the way: a long run trims what it began with.
    logs: Logs,
    /// Ended without a reply, as Redis says: it forgets after a while.
    failed: BTreeSet<String>,
    _tasks: JoinSet<()>,
}

/// The present sockets of the askers.
#[derive(Clone, Debug, Default)]
pub struct Present(Arc<Mutex<BTreeMap<u32, String>>>);

impl Present {
    /// Whether this socket is one of theirs.
    pub fn has(&self, sid: &str) -> bool {
        self.lock().values().any(|own| own == sid)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Questions in the log.
    pub asked: usize,
    /// Those with a reply.
    pub replies: usize,
    /// Those with an error.
    pub errors: usize,
    /// What must not be.
    pub findings: Vec<String>,
}

impl Askers {
    /// Lets them connect; they are the last of the deployment's users.
    pub async fn start(deployment: &Deployment, seed: u64) -> io::Result<Self> {
        let first = deployment.tokens.len() - ASKERS as usize;
        let users: Vec<usize> = (first..deployment.tokens.len()).collect();
        deployment.create_room(ROOM, &users).await?;
        let (told, closing, present): (Arc<Mutex<Told>>, Arc<AtomicBool>, Present) = Default::default();
        let mut tasks = JoinSet::new();
        for (number, user) in (0..ASKERS).zip(users) {
            let asker = Asker {
                number,
                auth: json!({
                    "accessToken": deployment.tokens[user], "refreshToken": "none", "userAgent": APP, "proto": 2,
                    "username": format!("user{user}"),
                }),
                urls: deployment.nodes.iter().map(|node| node.url.clone()).collect(),
                told: told.clone(),
                closing: closing.clone(),
                present: present.clone(),
                rng: Rng::new(seed ^ u64::from(number)),
            };
            tasks.spawn(asker.run());
        }
        Ok(Self {
            told,
            closing,
            present,
            logs: Logs::default(),
            failed: BTreeSet::new(),
            _tasks: tasks,
        })
    }

    /// Their sockets, now and later.
    pub fn present(&self) -> Present {
        self.present.clone()
    }

    /// Notes what Redis says of their questions.
    pub async fn gather(&mut self, deployment: &Deployment) -> io::Result<()> {
        self.logs.gather(&deployment.redis, |room| room == ROOM).await?;
        self.failed.extend(deployment.redis.failed_questions(ROOM).await?);
        Ok(())
    }

    /// Lets them ask no more, waits for the last ends and judges.
    pub async fn close(&mut self, deployment: &Deployment, topology: Topology) -> io::Result<Answers> {
        self.closing.store(true, Ordering::Relaxed);
        let begun = Instant::now();
        loop {
            self.gather(deployment).await?;
            let answers = self.judge(topology);
            if answers.asked == answers.replies + answers.errors || begun.elapsed() > END_MAX {
                return Ok(answers);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn judge(&self, topology: Topology) -> Answers {
        let log = self.logs.rooms.get(ROOM).map_or(&[][..], Vec::as_slice);
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = judge(log, &self.failed, &told, topology);
        if answers.asked == 0 {
            answers.find("nobody could ask anything".to_owned());
        }
        answers
    }
}

/// Holds the room's log and what was told against each other.
fn judge(log: &[LogEntry], failed: &BTreeSet<String>, told: &Told, topology: Topology) -> Answers {
    let mut replies: BTreeMap<&str, usize> = BTreeMap::new();
    let mut asked = BTreeSet::new();
    for entry in log {
        match entry.id.strip_suffix(REPLY) {
            Some(question) => *replies.entry(question).or_default() += 1,
            None => {
                asked.insert(entry.id.as_str());
            }
        }
    }
    // Elsewhere a failover may take what was told last, and it is told again.
    let keeps_all = topology == Topology::Standalone;
    let mut answers = Answers {
        asked: asked.len(),
        ..Answers::default()
    };
    for question in &asked {
        let count = replies.get(question).copied().unwrap_or_default();
        let was_told = |((_, id), _): (&(u32, String), &usize)| id.strip_suffix(REPLY) == Some(question);
        let is_failed = failed.contains(*question) || told.errors.iter().any(was_told);
        answers.replies += usize::from(count > 0);
        answers.errors += usize::from(count == 0 && is_failed);
        match count + usize::from(is_failed) {
            // The queue and its rooms are on different servers of a cluster, and one may lose what the other has.
            0 if topology != Topology::Cluster => answers.find(format!("{question} has no end")),
            2.. if keeps_all => answers.find(format!("{question} has {count} replies, and an error: {is_failed}")),
            _ => {}
        }
    }
    if keeps_all {
        for ((asker, id), times) in told.errors.iter().filter(|(_, times)| **times > 1) {
            answers.find(format!("asker {asker} was told {times} times of an error of {id}"));
        }
        for question in told.asked.iter().filter(|question| !asked.contains(question.as_str())) {
            answers.find(format!("{question} was acked and is not in the log"));
        }
    }
    answers
}

impl Answers {
    fn find(&mut self, what: String) {
        self.findings.push(format!("{ROOM}: {what}"));
    }
}

/// One of them.
struct Asker {
    number: u32,
    auth: Value,
    urls: Vec<String>,
    told: Arc<Mutex<Told>>,
    closing: Arc<AtomicBool>,
    present: Present,
    rng: Rng,
}

impl Asker {
    /// Lives until it is dropped.
    async fn run(mut self) {
        let mut at = self.number as usize;
        loop {
            let (sender, mut events) = mpsc::channel(EVENTS_AHEAD);
            let connecting = Client::builder(&self.urls[at % self.urls.len()])
                .auth(self.auth.clone())
                .timeout(ANSWER_MAX)
                .stream(sender)
                .connect();
            if let Ok(client) = connecting.await {
                self.present.lock().insert(self.number, client.sid().to_owned());
                let join = client.emit_ack("join", &json!({ "roomID": ROOM })).await;
                if join.is_ok_and(|ack| ack.first().is_some_and(|ack| ack["ok"] == json!(true))) {
                    self.talk(&client, &mut events).await;
                }
                client.kill();
                self.present.lock().remove(&self.number);
            }
            at += 1;
            sleep(self.rng.millis(100, 500)).await;
        }
    }

    /// Asks and listens until the connection ends.
    async fn talk(&mut self, client: &Client, events: &mut mpsc::Receiver<Event>) {
        loop {
            let ask_at = Instant::now() + self.rng.millis(500, 2_000);
            while let Ok(event) = timeout_at(ask_at, events.recv()).await {
                let Some(event) = event else { return };
                self.note(&event);
            }
            if self.closing.load(Ordering::Relaxed) {
                continue;
            }
            let question = json!({ "roomID": ROOM, "message": "@gpt what became of it" });
            let Ok(ack) = client.emit_ack("message", &question).await else {
                return;
            };
            // One whose ack is lost is found in the log.
            if let Some(id) = ack.first().and_then(|ack| ack["id"].as_str()) {
                self.told().asked.insert(id.to_owned());
            }
        }
    }

    fn note(&self, event: &Event) {
        if event.name == "gpt:error" {
            let error: Value = event.arg(0).unwrap_or_default();
            let id = error["id"].as_str().unwrap_or_default().to_owned();
            *self.told().errors.entry((self.number, id)).or_default() += 1;
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(ids: &[&str]) -> Vec<LogEntry> {
        let entries = ids.iter().zip(1..);
        entries
            .map(|(id, seq)| LogEntry {
                ts: seq,
                seq,
                epoch: "e".to_owned(),
                id: (*id).to_owned(),
                key: "@gpt".to_owned(),
            })
            .collect()
    }

    fn findings(ids: &[&str], failed: &[&str], told: &Told, topology: Topology) -> Vec<String> {
        let failed = failed.iter().map(|id| (*id).to_owned()).collect();
        judge(&log(ids), &failed, told, topology).findings
    }

    #[test]
    fn one_end_of_each_question_is_no_finding() {
        let told = Told {
            asked: BTreeSet::from(["1-1".to_owned(), "2-2".to_owned(), "3-3".to_owned()]),
            errors: BTreeMap::from([((0, "3-3-r".to_owned()), 1), ((1, "3-3-r".to_owned()), 1)]),
        };
        let ids = ["1-1", "1-1-r", "2-2", "3-3"];
        assert_eq!(findings(&ids, &["2-2"], &told, Topology::Standalone), [""; 0]);
        let answers = judge(
            &log(&ids),
            &BTreeSet::from(["2-2".to_owned()]),
            &told,
            Topology::Standalone,
        );
        assert_eq!((answers.asked, answers.replies, answers.errors), (3, 1, 2));
    }

    #[test]
    fn no_end_and_two_ends_and_a_lost_question_are_found() {
        let standalone = Topology::Standalone;
        let none = Told::default();
        assert_eq!(findings(&["1-1"], &[], &none, standalone).len(), 1);
        assert_eq!(findings(&["1-1"], &[], &none, Topology::Cluster).len(), 0);
        assert_eq!(findings(&["1-1", "1-1-r", "1-1-r"], &[], &none, standalone).len(), 1);
        assert_eq!(findings(&["1-1", "1-1-r"], &["1-1"], &none, standalone).len(), 1);
        let twice = Told {
            errors: BTreeMap::from([((0, "1-1-r".to_owned()), 2)]),
            ..Told::default()
        };
        assert_eq!(findings(&["1-1"], &[], &twice, standalone).len(), 1);
        let lost = Told {
            asked: BTreeSet::from(["9-9".to_owned()]),
            ..Told::default()
        };
        assert_eq!(findings(&["1-1", "1-1-r"], &[], &lost, standalone).len(), 1);
    }
}
