//! Blocks, strikes and token requests of an address against plain counters.

use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use roomcast::model::Scope;
use roomcast::redis::Block;

use super::server::Server;

const SCOPES: usize = 2;
/// Long enough that no window ends by itself during a case.
const WINDOW: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
pub enum Act {
    Block {
        scope: usize,
        reason: u8,
        seconds: u64,
    },
    Unblock {
        scope: usize,
    },
    Strike {
        scope: usize,
        count: u32,
    },
    CountToken {
        scope: usize,
    },
    /// The window ends.
    EndWindow {
        scope: usize,
    },
    /// The counters lose their TTL, as a crash of the old handler did it.
    LoseTtl {
        scope: usize,
    },
}

#[derive(Debug, Clone, Default)]
struct Counters {
    block: Option<(String, u64)>,
    strikes: u64,
    tokens: u64,
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let scope = || 0..SCOPES;
    let act = prop_oneof![
        2 => (scope(), 0..3_u8, 100..900_u64).prop_map(|(scope, reason, seconds)| Act::Block { scope, reason, seconds }),
        1 => scope().prop_map(|scope| Act::Unblock { scope }),
        3 => (scope(), 1..5_u32).prop_map(|(scope, count)| Act::Strike { scope, count }),
        3 => scope().prop_map(|scope| Act::CountToken { scope }),
        1 => scope().prop_map(|scope| Act::EndWindow { scope }),
        1 => scope().prop_map(|scope| Act::LoseTtl { scope }),
    ];
    prop::collection::vec(act, 1..40)
}

/// Whether what is left of a duration that began during this case is plausible.
fn is_left(left: Duration, whole: Duration) -> bool {
    left <= whole && left + Duration::from_secs(60) > whole
}

pub async fn run(server: &mut Server, acts: &[Act]) -> Result<(), TestCaseError> {
    server.wire.call(&["FLUSHALL"]).await;
    let mut model = vec![Counters::default(); SCOPES];
    for (number, act) in acts.iter().enumerate() {
        one(server, &mut model, act)
            .await
            .map_err(|error| TestCaseError::fail(format!("act {number}, {act:?}: {error}")))?;
        server.watch_slots().await?;
    }
    Ok(())
}

async fn one(server: &mut Server, model: &mut [Counters], act: &Act) -> Result<(), TestCaseError> {
    let (Act::Block { scope, .. }
    | Act::Unblock { scope }
    | Act::Strike { scope, .. }
    | Act::CountToken { scope }
    | Act::EndWindow { scope }
    | Act::LoseTtl { scope }) = act;
    let ip = IpAddr::from([192, 0, 2, u8::try_from(*scope).unwrap()]);
    let (counters, address) = (&mut model[*scope], Scope::address(ip));
    let tokens = format!("tokenRequests:{ip}");
    let (ban, strikes) = (format!("rc:{{{tokens}}}:ban"), format!("rc:{{{tokens}}}:strikes"));
    match act {
        Act::Block { reason, seconds, .. } => {
            let (found, new) = server
                .redis
                .block(&address, &format!("reason {reason}"), Duration::from_secs(*seconds))
                .await
                .unwrap();
            prop_assert_eq!(new, counters.block.is_none());
            let (reason, seconds) = counters.block.get_or_insert((format!("reason {reason}"), *seconds));
            prop_assert_eq!(&found.reason, reason);
            prop_assert!(is_left(found.left, Duration::from_secs(*seconds)), "{:?}", found);
        }
        Act::Unblock { .. } => {
            server.wire.call(&["DEL", &ban]).await;
            counters.block = None;
        }
        Act::Strike { count, .. } => {
            counters.strikes += u64::from(*count);
            prop_assert_eq!(
                server.redis.strike(&address, WINDOW, *count).await.unwrap(),
                counters.strikes
            );
        }
        Act::CountToken { .. } => {
            counters.tokens += 1;
            let (count, left) = server.redis.count_token_request(ip, WINDOW).await.unwrap();
            prop_assert_eq!(count, counters.tokens);
            prop_assert!(is_left(left, WINDOW), "{:?}", left);
        }
        Act::EndWindow { .. } => {
            server.wire.call(&["DEL", &tokens]).await;
            server.wire.call(&["DEL", &strikes]).await;
            (counters.strikes, counters.tokens) = (0, 0);
        }
        Act::LoseTtl { .. } => {
            server.wire.call(&["PERSIST", &tokens]).await;
            server.wire.call(&["PERSIST", &strikes]).await;
        }
    }
    for (key, touched) in [
        (&strikes, matches!(act, Act::Strike { .. })),
        (&tokens, matches!(act, Act::CountToken { .. })),
    ] {
        if touched {
            let ttl: i64 = server.wire.call(&["PTTL", key]).await.text().parse().unwrap();
            prop_assert!(ttl > 0, "{} lives for ever", key);
        }
    }
    let found = server.redis.blocked(&address).await.unwrap();
    let reason = found.map(|Block { reason, .. }| reason);
    prop_assert_eq!(reason, counters.block.as_ref().map(|(reason, _)| reason.clone()));
    Ok(())
}
