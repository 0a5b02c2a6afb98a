//! The queue of questions: what may happen to it, in any order, and what every script must answer then.

mod late;
mod letters;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestCaseError;
use roomcast::model::{EventKind, RoomId, UserId};
use roomcast::redis::{
    Answers, Asked, Authority, Budgets, Claim, Draft, Ended, Ender, Enqueued, Found, Hold, Part, PostLimits, Posted,
    Question, Running,
};
use std::time::Duration;

use super::op::USERS;
use super::queue_acts::Act;
use super::queue_model::{Model, ROOMS, State};
use super::server::{PARTITIONS, Server};

pub const WORKERS: [&str; 3] = ["w0", "w1", "w2"];
/// Older than any lease.
const HOUR_MS: u64 = 3_600_000;
/// No question's time is over by itself during a case.
const LONG: Duration = Duration::from_secs(600);
const LIMITS: PostLimits = PostLimits {
    log_max_len: 1000,
    archive_max_bytes: usize::MAX >> 1,
};

/// The queue on the server next to the model of it.
struct Run<'a> {
    server: &'a mut Server,
    model: Model,
    /// What each worker has ever had: place and question.
    read: Vec<Vec<(String, usize)>>,
    /// Every claim there ever was: worker, place, question, generation.
    claims: Vec<(usize, Claim, usize)>,
}

pub async fn run(server: &mut Server, acts: &[Act]) -> Result<(), TestCaseError> {
    server.wire.call(&["FLUSHALL"]).await;
    let subscribe = if server.redis.is_clustered() {
        "SSUBSCRIBE"
    } else {
        "SUBSCRIBE"
    };
    for room in 0..ROOMS {
        let channel = server.redis.keys.live(&room_id(room));
        server.live.call(&[subscribe, &channel]).await;
    }
    server.live.published().await;
    server.redis.prepare_questions().await.unwrap();
    let mut run = Run {
        server,
        model: Model::new(USERS.len()),
        read: vec![Vec::new(); WORKERS.len()],
        claims: Vec::new(),
    };
    for (number, act) in acts.iter().enumerate() {
        let done = match run.one(act).await {
            Ok(()) => run.matches().await,
            failed => failed,
        };
        let done = match done {
            Ok(()) => run.server.watch_slots().await,
            failed => failed,
        };
        done.map_err(|error| TestCaseError::fail(format!("act {number}, {act:?}: {error}")))?;
    }
    run.drain().await
}

fn room_id(room: usize) -> RoomId {
    RoomId::new(&format!("q {room}:%-")).unwrap()
}

/// A draft of a message of `user`, or of the model.
fn draft(user: &str, answers: Option<Answers>) -> Draft {
    Draft {
        prefix: r#"{"message":"why""#.to_owned(),
        kind: if answers.is_some() {
            EventKind::Gpt
        } else {
            EventKind::Message
        },
        user: UserId::new(user).unwrap(),
        target: None,
        authority: Authority::Author,
        cid: None,
        hash: 0,
        trace: String::new(),
        asks: answers.is_none().then(String::new),
        answers,
    }
}

/// Generation, attempt and stalls of a claim, and whether it was cancelled before.
fn told(claim: &Claim) -> (u64, u64, u32, bool) {
    (claim.generation, claim.attempt, claim.stalls, claim.is_cancelled)
}

impl Run<'_> {
    async fn one(&mut self, act: &Act) -> Result<(), TestCaseError> {
        match act {
            Act::Ask(room, user) => self.ask(*room, *user).await,
            Act::AskEverywhere(user) => {
                for room in 0..ROOMS {
                    self.ask(room, *user).await?;
                }
                for partition in 0..PARTITIONS {
                    while !self.model.outboxes[usize::from(partition)].is_empty() {
                        self.take_in(partition, false).await?;
                    }
                }
                Ok(())
            }
            Act::TakeIn(partition, dies) => self.take_in(*partition, *dies).await,
            Act::TakeInLate(pick) => match self.pick(*pick) {
                Some(number) => {
                    let generation = *pick.get(&self.model.asked[number].lives);
                    self.enqueue(number, generation).await
                }
                None => Ok(()),
            },
            Act::Take(worker, count) => self.take(*worker, *count).await,
            Act::Claim(worker, pick) => {
                let known = &self.read[*worker];
                if known.is_empty() {
                    return Ok(());
                }
                let (entry, number) = pick.get(known).clone();
                self.claim(*worker, &entry, number, false).await
            }
            Act::TakeOver(worker, count) => self.take_over(*worker, *count).await,
            Act::Beat(worker) => self.beat(*worker).await,
            Act::Cancel(pick) => match self.pick(*pick) {
                Some(number) => self.fail(number, self.finder(number)).await.map(drop),
                None => Ok(()),
            },
            Act::CancelRunning(pick) => self.cancel_running(*pick).await,
            Act::Finish(pick) => match self.pick(*pick) {
                Some(number) if self.model.asked[number].ended.is_some() => {
                    self.finish(number, self.finder(number)).await
                }
                _ => Ok(()),
            },
            Act::FinishLate(pick, buries) => self.finish_late(*pick, *buries).await,
            Act::Wake => self.wake(None).await,
            Act::Overdue(pick) => {
                let overdue = self.pick(*pick).filter(|number| self.model.jobs.contains_key(number));
                self.wake(overdue).await
            }
            Act::WakeLate(pick, stores) => self.wake_late(*pick, *stores).await,
            Act::Again(pick, dies) => self.ask_again(*pick, *dies).await,
            Act::AgainAndAgain(pick) => self.ask_again_and_again(*pick).await,
            Act::Pause => self.pause().await,
            Act::Resume => self.resume().await,
            Act::FlushScripts => {
                self.server.wire.call(&["SCRIPT", "FLUSH"]).await;
                Ok(())
            }
            Act::Write(pick, _) | Act::Store(pick) | Act::GiveUp(pick, _) | Act::PutOff(pick, _) => {
                if self.claims.is_empty() {
                    return Ok(());
                }
                let (_, claim, number) = pick.get(&self.claims).clone();
                match act {
                    Act::Write(_, anew) => self.write(&claim, number, *anew).await,
                    Act::Store(_) => self.store(&claim, number).await,
                    Act::GiveUp(_, dies) => self.give_up(number, claim.ender(), *dies).await,
                    Act::PutOff(_, at_once) => self.put_off(&claim, number, *at_once).await,
                    other => panic!("{other:?} has no claim"),
                }
            }
        }
    }

    /// One of all questions.
    fn pick(&self, pick: Index) -> Option<usize> {
        let count = self.model.asked.len();
        (count > 0).then(|| pick.index(count))
    }

    fn question(&self, number: usize) -> Question {
        self.model.asked[number].question.clone()
    }

    async fn ask(&mut self, room: usize, user: usize) -> Result<(), TestCaseError> {
        let (name, draft) = (room_id(room), draft(USERS[user], None));
        let posted = self.server.redis.post(&name, &[draft], LIMITS).await.unwrap();
        let Posted::Stored(receipt) = &posted[0] else {
            return Err(TestCaseError::fail(format!("{posted:?}")));
        };
        let question = Question {
            room: name.clone(),
            id: receipt.id.clone(),
            user: UserId::new(USERS[user]).unwrap(),
            trace: String::new(),
        };
        let partition = usize::from(self.server.redis.keys.partition(name.as_str()));
        self.model.ask(question, room, user, partition);
        Ok(())
    }

    async fn take_in(&mut self, partition: u16, dies: bool) -> Result<(), TestCaseError> {
        let asked = self.server.redis.asked(partition, 1).await.unwrap();
        let outbox = &self.model.outboxes[usize::from(partition)];
        let first = outbox.front().copied();
        let found = asked.first().map(|(_, asked)| asked.clone().unwrap());
        let expected = first.map(|(number, generation)| Asked {
            question: self.question(number),
            generation,
        });
        prop_assert_eq!(found, expected);
        let (Some((number, generation)), Some((entry, _))) = (first, asked.first()) else {
            return Ok(());
        };
        let ended = self.server.redis.has_ended(&self.question(number)).await.unwrap();
        prop_assert_eq!(ended, self.model.asked[number].ended.is_some());
        if !ended {
            self.enqueue(number, generation).await?;
        }
        if !dies {
            self.server
                .redis
                .forget_asked(partition, vec![entry.clone()])
                .await
                .unwrap();
            self.model.outboxes[usize::from(partition)].pop_front();
        }
        Ok(())
    }

    async fn enqueue(&mut self, number: usize, generation: u64) -> Result<(), TestCaseError> {
        let asked = Asked {
            question: self.question(number),
            generation,
        };
        let found = self.server.redis.enqueue_question(&asked, LONG).await.unwrap();
        prop_assert_eq!(found, self.model.enqueue(number, generation));
        if matches!(found, Enqueued::RoomBusy | Enqueued::UserBusy) {
            self.fail(number, asked.ender()).await?;
            self.finish(number, asked.ender()).await?;
        }
        Ok(())
    }

    async fn take(&mut self, worker: usize, count: u64) -> Result<(), TestCaseError> {
        let redis = &self.server.redis;
        let taken = redis
            .take_questions(WORKERS[worker], count, Budgets::default())
            .await
            .unwrap();
        prop_assert_eq!(taken.holds.pause.is_some(), self.model.paused);
        let entries: Vec<String> = taken.claims.iter().map(|claim| claim.entry.clone()).collect();
        let (read, expected) = self.model.take(worker, count as usize, &entries);
        let found: Vec<_> = taken.claims.iter().map(told).collect();
        prop_assert_eq!(
            (taken.read, found),
            (read, expected.iter().map(|(_, claim)| *claim).collect())
        );
        for (claim, (number, _)) in taken.claims.into_iter().zip(expected) {
            self.read[worker].push((claim.entry.clone(), number));
            self.note(worker, claim, number)?;
        }
        Ok(())
    }

    /// A claim was made.
    fn note(&mut self, worker: usize, claim: Claim, number: usize) -> Result<(), TestCaseError> {
        prop_assert_eq!(&claim.question, &self.model.asked[number].question);
        prop_assert_eq!(claim.spent, None);
        prop_assert!(claim.left <= LONG && claim.left > LONG / 2, "{:?}", claim.left);
        self.claims.push((worker, claim, number));
        Ok(())
    }

    async fn take_over(&mut self, worker: usize, count: u64) -> Result<(), TestCaseError> {
        let silent = Duration::ZERO;
        let entries = self.server.redis.read_stalled(WORKERS[worker], silent, count).await;
        let taken = self.model.take_over(worker, count as usize);
        let expected: Vec<(String, String)> = taken
            .iter()
            .map(|(entry, number)| (entry.clone(), self.question(*number).job()))
            .collect();
        prop_assert_eq!(entries.unwrap(), expected);
        for (entry, number) in taken {
            self.claim(worker, &entry, number, true).await?;
            self.read[worker].push((entry, number));
        }
        Ok(())
    }

    async fn claim(&mut self, worker: usize, entry: &str, number: usize, stalled: bool) -> Result<(), TestCaseError> {
        let question = self.question(number);
        let claim = self
            .server
            .redis
            .claim_question(WORKERS[worker], entry, &question.job(), stalled, Budgets::default())
            .await
            .unwrap();
        let expected = self.model.claim(worker, entry, number, stalled);
        prop_assert_eq!(claim.as_ref().map(told), expected);
        claim.map_or(Ok(()), |claim| self.note(worker, claim, number))
    }

    async fn beat(&mut self, worker: usize) -> Result<(), TestCaseError> {
        let own = self.claims.iter().filter(|(holder, ..)| *holder == worker);
        let own: Vec<_> = own.cloned().collect();
        let running: Vec<Running> = own
            .iter()
            .map(|(_, claim, _)| Running {
                job: claim.question.job(),
                entry: claim.entry.clone(),
                generation: claim.generation,
            })
            .collect();
        // Every hold is an hour old.
        for (entry, holder) in self.model.holders() {
            let (holder, idle) = (WORKERS[holder], HOUR_MS.to_string());
            let command = ["XCLAIM", "rc:{gpt}:ready", "workers", holder, "0", &entry];
            let age = [&command[..], &["IDLE", &idle, "JUSTID"]].concat();
            self.server.wire.call(&age).await;
        }
        let held = self.server.redis.beat_questions(WORKERS[worker], &running).await;
        let expected: Vec<Hold> = own
            .iter()
            .map(|(_, claim, number)| self.model.beat(worker, &claim.entry, *number, claim.generation))
            .collect();
        prop_assert_eq!(&held.unwrap(), &expected);
        for (entry, holder) in self.model.holders() {
            let ask = ["XPENDING", "rc:{gpt}:ready", "workers", &entry, &entry, "1"];
            let found = self.server.wire.call(&ask).await.list().remove(0).list();
            prop_assert_eq!(found[1].text(), WORKERS[holder], "who holds {}", entry);
            let renewed = own
                .iter()
                .zip(&expected)
                .any(|((_, claim, _), hold)| *hold != Hold::Lost && claim.entry == entry);
            let idle: u64 = found[2].text().parse().unwrap();
            prop_assert_eq!(idle < HOUR_MS / 2, renewed, "{} was idle for {} ms", entry, idle);
        }
        Ok(())
    }

    async fn write(&mut self, claim: &Claim, number: usize, anew: bool) -> Result<(), TestCaseError> {
        let text = if anew { "" } else { "a|\n%1 b" };
        let index = (!anew).then(|| self.model.next_index(number, claim.generation));
        let part = Part {
            generation: claim.generation,
            index,
            text,
            event: ("gpt:delta", "{}"),
        };
        let told = self.server.redis.write_part(&claim.question, part).await.unwrap();
        prop_assert_eq!(told, self.model.write(number, claim.generation, index, text));
        let mut found = self.server.redis.parts(&claim.question.room).await.unwrap();
        found.sort();
        prop_assert_eq!(found, self.model.parts_of(self.model.asked[number].room));
        Ok(())
    }

    async fn store(&mut self, claim: &Claim, number: usize) -> Result<(), TestCaseError> {
        let question = &claim.question;
        let answers = Answers {
            question: question.id.clone(),
            generation: claim.generation,
        };
        let reply = draft("gpt", Some(answers));
        let posted = self.server.redis.post(&question.room, &[reply], LIMITS).await.unwrap();
        let (what, id) = match &posted[0] {
            Posted::Stored(receipt) if receipt.dup => ("dup", Some(receipt.id.clone())),
            Posted::Stored(receipt) => ("stored", Some(receipt.id.clone())),
            Posted::Conflict => ("conflict", None),
            Posted::Superseded => ("superseded", None),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(what, self.model.store(number, claim.generation));
        prop_assert!(id.is_none_or(|id| id == question.reply()));
        Ok(())
    }

    /// Ends a question with an error, by whoever has this generation, or by somebody else.
    async fn fail(&mut self, number: usize, ender: Ender) -> Result<Ended, TestCaseError> {
        let question = self.question(number);
        let json = serde_json::json!({ "id": question.reply() }).to_string();
        let ended = self
            .server
            .redis
            .fail_question(&question, ender, ("gpt:error", &json))
            .await
            .unwrap();
        let what = match ended {
            Ended::Now => "now",
            Ended::Before => "before",
            Ended::Superseded => "superseded",
        };
        prop_assert_eq!(what, self.model.fail(number, ender));
        Ok(ended)
    }

    async fn finish(&mut self, number: usize, ender: Ender) -> Result<(), TestCaseError> {
        let question = self.question(number);
        self.server.redis.finish_question(&question, ender).await.unwrap();
        self.model.finish(number, ender);
        Ok(())
    }

    /// Somebody without a claim, who knows of a question's newest life.
    fn finder(&self, number: usize) -> Ender {
        Ender::Finder(self.model.base_of(number) + 1)
    }

    async fn put_off(&mut self, claim: &Claim, number: usize, at_once: bool) -> Result<(), TestCaseError> {
        let delay = if at_once { Duration::ZERO } else { LONG };
        let done = self.server.redis.put_off_question(claim, delay).await.unwrap();
        let expected = self.model.put_off(number, &claim.entry, claim.generation, at_once);
        prop_assert_eq!(done, expected);
        Ok(())
    }

    /// All delays are over, and the deadline of this question.
    async fn wake(&mut self, overdue: Option<usize>) -> Result<(), TestCaseError> {
        let delayed = self.model.in_state(State::Delayed);
        for (order, number) in delayed.iter().enumerate() {
            let (score, job) = (order.to_string(), self.question(*number).job());
            self.server
                .wire
                .call(&["ZADD", "rc:{gpt}:delayed", "XX", &score, &job])
                .await;
        }
        if let Some(number) = overdue {
            let job = self.question(number).job();
            self.server.wire.call(&["ZADD", "rc:{gpt}:open", "XX", "1", &job]).await;
        }
        let found = self.server.redis.due_questions().await.unwrap();
        let expected = overdue.map(|number| Found {
            question: self.question(number),
            is_running: self.model.is_running_at_all(number),
            first: self.model.base_of(number) + 1,
        });
        prop_assert_eq!(found, Vec::from_iter(expected));
        self.model.wake(&delayed);
        if let Some(number) = overdue {
            self.give_up(number, self.finder(number), false).await?;
        }
        Ok(())
    }

    /// What is in Redis is what the model has, and what was told is told once.
    async fn matches(&mut self) -> Result<(), TestCaseError> {
        for (channel, payload) in self.server.live.published().await {
            let json = payload.rsplit_once(" {").map(|(_, rest)| format!("{{{rest}"));
            let value: serde_json::Value = serde_json::from_str(&json.unwrap()).unwrap();
            if payload.starts_with("~ gpt:error") || payload.contains(" gpt ") {
                let room = channel
                    .split_once(":room:")
                    .and_then(|(_, rest)| rest.strip_suffix(":live"));
                self.model.told(room.unwrap(), value["id"].as_str().unwrap());
            }
        }
        self.model.check_told()?;
        let found = super::queue_found::Found::read(&mut self.server.wire).await;
        self.model.check(&found)?;
        self.letters_match().await
    }

    /// Lets everything come to its end: each question has exactly one, and nothing is left.
    async fn drain(&mut self) -> Result<(), TestCaseError> {
        self.resume().await?;
        for _round in 0..200 {
            for partition in 0..PARTITIONS {
                while !self.model.outboxes[usize::from(partition)].is_empty() {
                    self.take_in(partition, false).await?;
                }
            }
            self.wake(None).await?;
            let before = self.claims.len();
            self.take_over(0, 1000).await?;
            self.take(0, 1000).await?;
            let new = self.claims.split_off(before);
            for (_, claim, number) in &new {
                let number = *number;
                if self.model.asked[number].ended.is_none() {
                    self.store(claim, number).await?;
                }
                if self.model.asked[number].ended.is_some() {
                    self.finish(number, claim.ender()).await?;
                }
            }
            self.matches().await?;
            if self.model.is_over() {
                return self.model.check_all_ended();
            }
        }
        Err(TestCaseError::fail(format!("it never ends: {:?}", self.model)))
    }
}
