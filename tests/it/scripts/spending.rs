//! What calls of the model took, against plain sums: counted once, for the day, and refused over budget.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::{UserId, unix_ms};
use roomcast::redis::{Asked, Budgets, Enqueued, Purse, Question, Spent};

use super::op::{ROOMS, USERS};
use super::server::Server;

const DAY_MS: u64 = 24 * 3600 * 1000;
const USAGE: &str = "rc:{gpt}:usage";

#[derive(Debug, Clone)]
pub enum Act {
    Settle {
        call: Call,
        tokens: (u64, u64),
        is_recorded: bool,
    },
    /// A question is claimed under these budgets.
    Claim {
        user: usize,
        room: usize,
        budgets: (u64, u64),
    },
    /// A key that somebody made into something else: nothing of a settlement may be written then.
    Spoil {
        call: Call,
        key: usize,
    },
    Midnight,
    FlushScripts,
}

#[derive(Debug, Clone)]
pub struct Call {
    user: usize,
    room: usize,
    question: usize,
    generation: u64,
}

#[derive(Default)]
struct Model {
    /// Room, question and generation of what was counted.
    settled: BTreeSet<(usize, usize, u64)>,
    users: BTreeMap<usize, u64>,
    rooms: BTreeMap<usize, u64>,
    records: u64,
    claims: usize,
}

/// Acts; `claims`: also those that touch keys which are not known before.
pub fn acts(claims: bool) -> impl Strategy<Value = Vec<Act>> {
    let (user, room) = (|| 0..USERS.len(), || 0..ROOMS.len());
    let call = move || {
        (user(), room(), 0..2_usize, 1..4_u64).prop_map(|(user, room, question, generation)| Call {
            user,
            room,
            question,
            generation,
        })
    };
    let budget = || prop_oneof![1 => Just(0_u64), 3 => 1..150_u64];
    let act = prop_oneof![
        6 => (call(), (0..50_u64, 0..50_u64), any::<bool>())
            .prop_map(|(call, tokens, is_recorded)| Act::Settle { call, tokens, is_recorded }),
        if claims { 4 } else { 0 } => (user(), room(), (budget(), budget()))
            .prop_map(|(user, room, budgets)| Act::Claim { user, room, budgets }),
        1 => (call(), 0..3_usize).prop_map(|(call, key)| Act::Spoil { call, key }),
        1 => Just(Act::Midnight),
        1 => Just(Act::FlushScripts),
    ];
    prop::collection::vec(act, 1..40)
}

pub async fn run(server: &mut Server, acts: &[Act]) -> Result<(), TestCaseError> {
    server.wire.call(&["FLUSHALL"]).await;
    server.redis.prepare_questions().await.unwrap();
    let mut model = Model::default();
    for (number, act) in acts.iter().enumerate() {
        let done = match model.one(server, act).await {
            Ok(()) => model.matches(server).await,
            failed => failed,
        };
        done.map_err(|error| TestCaseError::fail(format!("act {number}, {act:?}: {error}")))?;
        server.watch_slots().await?;
    }
    Ok(())
}

fn spent_by(user: usize) -> String {
    format!("rc:{{gpt}}:spent:user:{}", USERS[user])
}

fn spent_in(room: usize) -> String {
    format!("rc:{{gpt}}:spent:room:{}", ROOMS[room])
}

fn question(server: &Server, user: usize, room: usize, id: String) -> Question {
    Question {
        room: server.room(room),
        id,
        user: UserId::new(USERS[user]).unwrap(),
        trace: String::new(),
    }
}

impl Call {
    fn question(&self, server: &Server) -> Question {
        question(server, self.user, self.room, format!("1-{}", self.question))
    }

    fn mark(&self, server: &Server) -> String {
        format!("rc:{{gpt}}:settled:{}:{}", self.question(server).job(), self.generation)
    }

    fn spent(&self, (prompt, completion): (u64, u64)) -> Spent<'static> {
        Spent {
            generation: self.generation,
            model: "m",
            prompt,
            completion,
            reported: true,
            took: Duration::from_millis(7),
            result: "ok",
            summary: false,
        }
    }
}

impl Model {
    async fn one(&mut self, server: &mut Server, act: &Act) -> Result<(), TestCaseError> {
        let redis = server.redis.clone();
        match act {
            Act::Settle {
                call,
                tokens,
                is_recorded,
            } => {
                let new = self.settled.insert((call.room, call.question, call.generation));
                let records = if *is_recorded { 1000 } else { 0 };
                let counted = redis
                    .settle_call(&call.question(server), &call.spent(*tokens), records)
                    .await
                    .unwrap();
                prop_assert_eq!(counted, new);
                if new {
                    *self.users.entry(call.user).or_default() += tokens.0 + tokens.1;
                    *self.rooms.entry(call.room).or_default() += tokens.0 + tokens.1;
                    self.records += u64::from(*is_recorded);
                    let life: u64 = server
                        .wire
                        .call(&["PTTL", &call.mark(server)])
                        .await
                        .text()
                        .parse()
                        .unwrap();
                    prop_assert!(life <= 900_000, "the mark lives for {} ms", life);
                }
                if new && *is_recorded {
                    self.is_last(server, call, *tokens).await?;
                }
            }
            Act::Claim { user, room, budgets } => self.claim(server, *user, *room, *budgets).await?,
            Act::Spoil { call, key } => {
                let key = [spent_by(call.user), spent_in(call.room), USAGE.to_owned()][*key].clone();
                server.wire.call(&["DEL", &key, &call.mark(server)]).await;
                server.wire.call(&["HSET", &key, "not", "ours"]).await;
                let settled = redis
                    .settle_call(&call.question(server), &call.spent((1, 1)), 1000)
                    .await;
                prop_assert!(settled.is_err());
                let mark = server.wire.call(&["EXISTS", &call.mark(server)]).await.text();
                prop_assert_eq!(mark, "0");
                server.wire.call(&["DEL", &key]).await;
                self.settled.remove(&(call.room, call.question, call.generation));
                match &*key {
                    USAGE => self.records = 0,
                    key if key == spent_by(call.user) => drop(self.users.remove(&call.user)),
                    _ => drop(self.rooms.remove(&call.room)),
                }
            }
            Act::Midnight => {
                let keys = (0..USERS.len()).map(spent_by).chain((0..ROOMS.len()).map(spent_in));
                for key in keys {
                    server.wire.call(&["DEL", &key]).await;
                }
                self.users.clear();
                self.rooms.clear();
            }
            Act::FlushScripts => drop(server.wire.call(&["SCRIPT", "FLUSH"]).await),
        }
        Ok(())
    }

    async fn claim(
        &mut self,
        server: &Server,
        user: usize,
        room: usize,
        budgets: (u64, u64),
    ) -> Result<(), TestCaseError> {
        let redis = &server.redis;
        self.claims += 1;
        let question = question(server, user, room, format!("2-{}", self.claims));
        let asked = Asked {
            question: question.clone(),
            generation: 0,
        };
        let queued = redis.enqueue_question(&asked, Duration::from_secs(60)).await.unwrap();
        prop_assert_eq!(queued, Enqueued::Queued(0));
        let limits = Budgets {
            user: budgets.0,
            room: budgets.1,
        };
        let claim = redis.take_questions("w", 1, limits).await.unwrap().claims.remove(0);
        let is_spent = |used: Option<&u64>, most: u64| most > 0 && used.is_some_and(|used| *used >= most);
        let expected = if is_spent(self.users.get(&user), budgets.0) {
            Some(Purse::User)
        } else if is_spent(self.rooms.get(&room), budgets.1) {
            Some(Purse::Room)
        } else {
            None
        };
        prop_assert_eq!(claim.spent, expected);
        prop_assert_eq!((&claim.question, claim.generation), (&question, 1));
        redis.finish_question(&question, claim.ender()).await.unwrap();
        Ok(())
    }

    /// The newest record is of this call.
    async fn is_last(&self, server: &mut Server, call: &Call, tokens: (u64, u64)) -> Result<(), TestCaseError> {
        let newest = server.wire.call(&["XREVRANGE", USAGE, "+", "-", "COUNT", "1"]).await;
        let entry = newest.list().remove(0).list().remove(1).list();
        let fields: Vec<String> = entry.iter().map(super::wire::Answer::text).collect();
        let expected = [
            ("user", USERS[call.user].to_owned()),
            ("room", ROOMS[call.room].to_owned()),
            ("question", format!("1-{}", call.question)),
            ("gen", call.generation.to_string()),
            ("model", "m".to_owned()),
            ("prompt", tokens.0.to_string()),
            ("completion", tokens.1.to_string()),
            ("counted", "endpoint".to_owned()),
            ("ms", "7".to_owned()),
            ("result", "ok".to_owned()),
        ];
        let expected: Vec<String> = expected
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
        prop_assert_eq!(fields, expected);
        Ok(())
    }

    /// The counts are the sums, and end at midnight.
    async fn matches(&self, server: &mut Server) -> Result<(), TestCaseError> {
        let users = (0..USERS.len()).map(|user| (spent_by(user), self.users.get(&user)));
        let rooms = (0..ROOMS.len()).map(|room| (spent_in(room), self.rooms.get(&room)));
        for (key, sum) in users.chain(rooms) {
            let found = server.wire.call(&["GET", &key]).await.text();
            prop_assert_eq!(found, sum.map_or_else(String::new, u64::to_string), "{}", key);
            if sum.is_some() {
                let ends: u64 = server.wire.call(&["PEXPIRETIME", &key]).await.text().parse().unwrap();
                prop_assert_eq!(ends % DAY_MS, 0);
                prop_assert!(ends.saturating_sub(unix_ms()) <= DAY_MS, "{} ends at {}", key, ends);
            }
        }
        let records = server.wire.call(&["XLEN", USAGE]).await.text();
        prop_assert_eq!(records, self.records.to_string());
        Ok(())
    }
}
