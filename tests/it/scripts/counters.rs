//! The guard's scripts against plain numbers: bans and their ladder, strikes, token requests, admission, rates.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::config::Rate;
use roomcast::model::{Ban, Origin, Scope};
use roomcast::redis::{Admission, AdmitLimits, Counted, Sanction, Term};

use super::server::Server;

/// An address, and a user: their keys have tags of different kinds.
const SCOPES: [&str; 2] = ["ip:192.0.2.7", "user:p1"];
/// Long enough that no window, lease or ban ends by itself during a case, and no rate recovers.
const LONG: Duration = Duration::from_secs(600);
const LADDER: [Duration; 3] = [
    Duration::from_secs(600),
    Duration::from_secs(1200),
    Duration::from_secs(3600),
];
const LIMIT: u32 = 5;
const SOCKETS_MAX: u32 = 3;
const RATE: Rate = Rate {
    interval: LONG,
    burst: 6,
};

#[derive(Debug, Clone)]
pub enum Act {
    Ban {
        scope: usize,
    },
    BanFor {
        scope: usize,
        seconds: u64,
    },
    Restore {
        scope: usize,
        seconds: u64,
    },
    Unban {
        scope: usize,
    },
    /// The ban's time is over.
    EndBan {
        scope: usize,
    },
    Strike {
        scope: usize,
        count: u32,
        may_ban: bool,
    },
    CountToken {
        may_ban: bool,
    },
    Admit {
        scope: usize,
        socket: u8,
        watch: bool,
    },
    GiveBack {
        scope: usize,
        socket: u8,
    },
    Renew {
        scope: usize,
        sockets: Vec<u8>,
    },
    Take {
        scope: usize,
        cost: u32,
    },
    Debit {
        scope: usize,
        cost: u32,
    },
    /// The windows end and the rates recover.
    EndWindows {
        scope: usize,
    },
    /// The keys lose their lives, as a crash of the old handler did it.
    LoseTtl {
        scope: usize,
    },
    /// The ban is put into the index, with an end that may have passed.
    List {
        scope: usize,
        is_over: bool,
    },
    FlushScripts,
}

#[derive(Debug, Clone, Default)]
struct Model {
    /// Reason and length of the ban in force.
    ban: Option<(String, Duration)>,
    level: u32,
    strikes: u64,
    tokens: u64,
    sockets: BTreeSet<u8>,
    handshakes: u32,
    taken: u32,
    /// Its end in the index.
    listed: Option<u64>,
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let scope = || 0..SCOPES.len();
    let socket = || 0..6_u8;
    let act = prop_oneof![
        2 => scope().prop_map(|scope| Act::Ban { scope }),
        1 => (scope(), 100..9000_u64).prop_map(|(scope, seconds)| Act::BanFor { scope, seconds }),
        1 => (scope(), 100..9000_u64).prop_map(|(scope, seconds)| Act::Restore { scope, seconds }),
        1 => scope().prop_map(|scope| Act::Unban { scope }),
        2 => scope().prop_map(|scope| Act::EndBan { scope }),
        3 => (scope(), 1..4_u32, any::<bool>()).prop_map(|(scope, count, may_ban)| Act::Strike { scope, count, may_ban }),
        4 => any::<bool>().prop_map(|may_ban| Act::CountToken { may_ban }),
        6 => (scope(), socket(), any::<bool>()).prop_map(|(scope, socket, watch)| Act::Admit { scope, socket, watch }),
        2 => (scope(), socket()).prop_map(|(scope, socket)| Act::GiveBack { scope, socket }),
        1 => (scope(), prop::collection::vec(socket(), 0..4)).prop_map(|(scope, sockets)| Act::Renew { scope, sockets }),
        3 => (scope(), 1..9_u32).prop_map(|(scope, cost)| Act::Take { scope, cost }),
        1 => (scope(), 1..20_u32).prop_map(|(scope, cost)| Act::Debit { scope, cost }),
        1 => scope().prop_map(|scope| Act::EndWindows { scope }),
        1 => scope().prop_map(|scope| Act::LoseTtl { scope }),
        2 => (scope(), any::<bool>()).prop_map(|(scope, is_over)| Act::List { scope, is_over }),
        1 => Just(Act::FlushScripts),
    ];
    prop::collection::vec(act, 1..40)
}

pub async fn run(server: &mut Server, acts: &[Act]) -> Result<(), TestCaseError> {
    server.wire.call(&["FLUSHALL"]).await;
    let mut models = vec![Model::default(); SCOPES.len()];
    for (number, act) in acts.iter().enumerate() {
        one(server, &mut models, act)
            .await
            .map_err(|error| TestCaseError::fail(format!("act {number}, {act:?}: {error}")))?;
        if let Act::List { .. } = act {
            index_matches(server, &mut models).await?;
        }
        server.watch_slots().await?;
    }
    Ok(())
}

/// The index has the bans that are not over, and forgets the others.
async fn index_matches(server: &mut Server, models: &mut [Model]) -> Result<(), TestCaseError> {
    let index = server.redis.ban_index().await.unwrap();
    let clock = roomcast::model::unix_ms();
    prop_assert!(index.now.abs_diff(clock) < 10_000, "{} for {}", index.now, clock);
    let mut found: Vec<(String, u64)> = index
        .bans
        .iter()
        .map(|(scope, end)| (scope.to_string(), *end))
        .collect();
    found.sort_unstable();
    for model in &mut *models {
        model.listed = model.listed.filter(|end| *end > index.now);
    }
    let listed = SCOPES.iter().zip(models.iter());
    let expected: Vec<(String, u64)> = listed
        .filter_map(|(scope, model)| Some(((*scope).to_owned(), model.listed?)))
        .collect();
    prop_assert_eq!(found, expected);
    let size = server.wire.call(&["ZCARD", "rc:bans"]).await.text();
    prop_assert_eq!(size, index.bans.len().to_string());
    Ok(())
}

/// Whether what is left of a duration that began during this case is plausible.
fn is_left(left: Duration, whole: Duration) -> bool {
    left <= whole + Duration::from_secs(1) && left + Duration::from_secs(60) > whole
}

impl Model {
    fn ban_by_ladder(&mut self, reason: &str) -> bool {
        if self.ban.is_some() {
            return false;
        }
        self.level = (self.level + 1).min(LADDER.len() as u32);
        self.ban = Some((reason.to_owned(), LADDER[self.level as usize - 1]));
        true
    }

    fn matches(&self, found: &Ban) -> Result<(), TestCaseError> {
        let Some((reason, length)) = &self.ban else {
            return Err(TestCaseError::fail(format!("a ban from nowhere: {found:?}")));
        };
        prop_assert_eq!(&found.reason, reason);
        prop_assert!(is_left(found.left(), *length), "{:?} of {:?}", found.left(), length);
        Ok(())
    }

    fn counted(&self, found: &Counted, count: u64, expected: Option<bool>) -> Result<(), TestCaseError> {
        prop_assert_eq!(found.count, count);
        prop_assert_eq!(found.ban.as_ref().map(|(_, new)| *new), expected);
        found.ban.as_ref().map_or(Ok(()), |(ban, _)| self.matches(ban))
    }
}

fn sanction(reason: &str, may_ban: bool) -> Sanction<'_> {
    Sanction {
        limit: LIMIT,
        ladder: if may_ban { &LADDER } else { &[] },
        reason,
        actor: "node",
    }
}

/// A ban that Redis may have lost.
fn lost(scope: &Scope, since: u64, until: u64) -> Ban {
    Ban {
        scope: scope.clone(),
        reason: "lost".to_owned(),
        origin: Origin::Auto,
        actor: "node".to_owned(),
        since,
        until,
        level: 1,
    }
}

async fn one(server: &mut Server, models: &mut [Model], act: &Act) -> Result<(), TestCaseError> {
    let scope = match act {
        // Only addresses have token requests.
        Act::CountToken { .. } => &0,
        Act::Ban { scope }
        | Act::BanFor { scope, .. }
        | Act::Restore { scope, .. }
        | Act::Unban { scope }
        | Act::EndBan { scope }
        | Act::Strike { scope, .. }
        | Act::Admit { scope, .. }
        | Act::GiveBack { scope, .. }
        | Act::Renew { scope, .. }
        | Act::Take { scope, .. }
        | Act::Debit { scope, .. }
        | Act::EndWindows { scope }
        | Act::LoseTtl { scope }
        | Act::List { scope, .. } => scope,
        Act::FlushScripts => {
            server.wire.call(&["SCRIPT", "FLUSH"]).await;
            return Ok(());
        }
    };
    let model = &mut models[*scope];
    let scope: Scope = SCOPES[*scope].parse().unwrap();
    let tag = match &scope {
        Scope::Address(ip) => format!("tokenRequests:{ip}"),
        other => other.to_string(),
    };
    let key = |part: &str| format!("rc:{{{tag}}}:{part}");
    let tokens = tag.clone();
    match act {
        Act::Ban { .. } => {
            let new = model.ban_by_ladder("rule");
            let (ban, found) = server
                .redis
                .set_ban(&scope, "rule", "node", Term::Ladder(&LADDER))
                .await
                .unwrap();
            prop_assert_eq!(found, new);
            prop_assert!(!new || (ban.level == model.level && ban.origin == Origin::Auto && ban.actor == "node"));
            model.matches(&ban)?;
        }
        Act::BanFor { seconds, .. } => {
            let length = Duration::from_secs(*seconds);
            model.ban = Some(("because".to_owned(), length));
            let (ban, new) = server
                .redis
                .set_ban(&scope, "because", "kim", Term::For(length))
                .await
                .unwrap();
            prop_assert!(new && ban.origin == Origin::Admin && ban.actor == "kim");
            model.matches(&ban)?;
        }
        Act::Restore { seconds, .. } => {
            let length = Duration::from_secs(*seconds);
            let now = roomcast::model::unix_ms();
            let ban = lost(&scope, now, now + length.as_secs() * 1000);
            let known = server.redis.ban(&scope).await.unwrap();
            let missing = known.is_none_or(|known| known.until < ban.until);
            prop_assert_eq!(server.redis.restore_ban(&ban).await.unwrap(), missing);
            if missing {
                model.ban = Some(("lost".to_owned(), length));
            }
        }
        Act::Unban { .. } => {
            prop_assert_eq!(server.redis.clear_ban(&scope).await.unwrap(), model.ban.is_some());
            (model.ban, model.level, model.strikes) = (None, 0, 0);
        }
        Act::EndBan { .. } => {
            // By its content: a key that lost its life ends as well.
            if model.ban.take().is_some() {
                server.wire.call(&["HSET", &key("ban"), "until", "1"]).await;
            }
        }
        Act::Strike { count, may_ban, .. } => {
            model.strikes += u64::from(*count);
            let strikes = model.strikes;
            let banned = (strikes > u64::from(LIMIT) && *may_ban).then(|| model.ban_by_ladder("strikes"));
            let counted = server
                .redis
                .strike(&scope, LONG, *count, sanction("strikes", *may_ban))
                .await
                .unwrap();
            model.counted(&counted, strikes, banned)?;
            if banned == Some(true) {
                model.strikes = 0;
            }
        }
        Act::CountToken { may_ban } => {
            model.tokens += 1;
            let banned = (model.tokens > u64::from(LIMIT) && *may_ban).then(|| model.ban_by_ladder("tokens"));
            let counted = server
                .redis
                .count_token_request("192.0.2.7".parse().unwrap(), LONG, sanction("tokens", *may_ban))
                .await
                .unwrap();
            model.counted(&counted, model.tokens, banned)?;
        }
        Act::Admit { socket, watch, .. } => admit(server, model, &scope, *socket, *watch).await?,
        Act::GiveBack { socket, .. } => {
            model.sockets.remove(socket);
            server
                .redis
                .give_back(&[(scope.clone(), socket.to_string())])
                .await
                .unwrap();
        }
        Act::Renew { sockets, .. } => {
            model.sockets.extend(sockets);
            let names = sockets.iter().map(u8::to_string).collect();
            let count = server.redis.renew_leases(&scope, names).await.unwrap();
            prop_assert_eq!(count, model.sockets.len() as u64);
        }
        Act::Take { cost, .. } => {
            let within = model.taken + cost <= RATE.burst;
            let wait = server.redis.take(&scope, "test", RATE, *cost).await.unwrap();
            prop_assert_eq!(wait.is_none(), within, "{:?}", wait);
            if within {
                model.taken += cost;
            } else {
                let expected = RATE.interval * (model.taken + cost - RATE.burst);
                prop_assert!(is_left(wait.unwrap(), expected), "{:?} of {:?}", wait, expected);
            }
        }
        Act::Debit { cost, .. } => {
            let within = model.taken + cost <= RATE.burst;
            let wait = server.redis.debit(&scope, "test", RATE, *cost).await.unwrap();
            prop_assert_eq!(wait.is_none(), within, "{:?}", wait);
            model.taken = (model.taken + cost).min(2 * RATE.burst);
            if !within {
                let expected = RATE.interval * (model.taken + 1 - RATE.burst);
                prop_assert!(is_left(wait.unwrap(), expected), "{:?} of {:?}", wait, expected);
            }
        }
        Act::EndWindows { .. } => {
            for key in [tokens.clone(), key("strikes"), key("rate:handshakes"), key("rate:test")] {
                server.wire.call(&["DEL", &key]).await;
            }
            (model.strikes, model.tokens, model.handshakes, model.taken) = (0, 0, 0, 0);
        }
        Act::LoseTtl { .. } => {
            for key in [tokens.clone(), key("strikes"), key("ban"), key("leases")] {
                server.wire.call(&["PERSIST", &key]).await;
            }
        }
        Act::List { is_over, .. } => {
            let now = roomcast::model::unix_ms();
            let until = if *is_over {
                now - 60_000
            } else {
                now + LONG.as_secs() * 1000
            };
            model.listed = Some(until);
            server.redis.list_ban(&lost(&scope, now, until)).await.unwrap();
        }
        Act::FlushScripts => {}
    }
    let touched = match act {
        Act::CountToken { .. } => Some(tokens),
        Act::Strike { .. } if model.strikes > 0 => Some(key("strikes")),
        Act::Renew { .. } if !model.sockets.is_empty() => Some(key("leases")),
        _ => None,
    };
    if let Some(key) = touched {
        let ttl: i64 = server.wire.call(&["PTTL", &key]).await.text().parse().unwrap();
        prop_assert!(ttl > 0, "{} lives for ever", key);
    }
    match server.redis.ban(&scope).await.unwrap() {
        Some(ban) => model.matches(&ban),
        None => {
            prop_assert_eq!(&model.ban, &None);
            Ok(())
        }
    }
}

async fn admit(
    server: &mut Server,
    model: &mut Model,
    scope: &Scope,
    socket: u8,
    watch: bool,
) -> Result<(), TestCaseError> {
    let limits = AdmitLimits {
        sockets: Some(SOCKETS_MAX),
        watch_sockets: watch,
        handshakes: Some(RATE),
        watch_handshakes: watch,
    };
    let found = server.redis.admit(scope, &socket.to_string(), limits).await.unwrap();
    if model.ban.is_some() {
        let Admission::Banned(ban) = found else {
            return Err(TestCaseError::fail(format!("let in: {found:?}")));
        };
        return model.matches(&ban);
    }
    let too_fast = model.handshakes >= RATE.burst;
    let too_many = model.sockets.len() >= SOCKETS_MAX as usize && !model.sockets.contains(&socket);
    if watch || !(too_fast || too_many) {
        if !too_fast {
            model.handshakes += 1;
        }
        model.sockets.insert(socket);
        prop_assert_eq!(
            found,
            Admission::Admitted {
                over_sockets: too_many,
                over_handshakes: too_fast,
            }
        );
    } else if too_fast {
        prop_assert!(
            matches!(found, Admission::TooFast(wait) if is_left(wait, LONG)),
            "{:?}",
            found
        );
    } else {
        prop_assert_eq!(found, Admission::TooManySockets);
    }
    Ok(())
}
