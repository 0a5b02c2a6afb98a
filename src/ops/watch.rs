//! What a process watches about itself and its services besides Redis: its memory, and how they answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Health;
use crate::telemetry::process;
use crate::upstream::{Service, ServiceHealth, Upstream};

/// How often: memory grows over seconds, and reading it is nothing.
const PERIOD: Duration = Duration::from_secs(2);
/// How far below the limit of its share memory must fall before the process takes traffic again: it would flap otherwise.
const RELIEF: f64 = 0.1;
/// Failed calls in a row from which a service counts as away.
const FAILURES: u32 = 3;
/// And only when it has not answered for so long: a restart is shorter.
const STALE_AFTER: Duration = Duration::from_secs(10);

/// Watches until cancelled. `memory_share`: of the control group's limit, above which no traffic should come; 0 = any.
pub async fn watch(health: Health, upstream: Arc<Upstream>, memory_share: f64) {
    let limit = process::memory_limit_bytes().filter(|_| memory_share > 0.0);
    let mut pressure = Pressure::new(memory_share);
    loop {
        if let (Some(limit), Some(used)) = (limit, process::resident_bytes()) {
            let used_share = used as f64 / limit as f64;
            let reason = format!("{:.0} % of {} MiB are in use", used_share * 100.0, limit >> 20);
            let high = pressure.is_high(used_share);
            health.set("memory", if high { Err(&reason) } else { Ok(()) });
        }
        for (service, name) in [
            (Service::Auth, "auth_service"),
            (Service::Api, "api_service"),
            (Service::Jwks, "jwks"),
        ] {
            let stale = staleness(upstream.health(service), Instant::now());
            // No reason to be unready: every node would be, and the chat goes on without them.
            health.warn(name, stale.as_deref().map_or(Ok(()), Err));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Why a service counts as away.
fn staleness(service: ServiceHealth, now: Instant) -> Option<String> {
    let failures = service.consecutive_failures;
    let silent = service.last_success.map(|last| now.saturating_duration_since(last));
    if failures < FAILURES || silent.is_some_and(|silent| silent < STALE_AFTER) {
        return None;
    }
    let since = silent.map_or_else(
        || "never answered".to_owned(),
        |silent| format!("last answered {} s ago", silent.as_secs()),
    );
    Some(format!("{failures} calls in a row failed, {since}"))
}

/// Whether memory is short, with some inertia.
struct Pressure {
    share: f64,
    high: bool,
}

impl Pressure {
    fn new(share: f64) -> Self {
        Self { share, high: false }
    }

    fn is_high(&mut self, used: f64) -> bool {
        self.high = used >= if self.high { self.share - RELIEF } else { self.share };
        self.high
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_pressure_ends_only_well_below_where_it_began() {
        let mut pressure = Pressure::new(0.9);
        let seen = [0.5, 0.89, 0.9, 0.85, 0.81, 0.79, 0.85].map(|used| pressure.is_high(used));
        assert_eq!(seen, [false, false, true, true, true, false, false]);
    }

    #[test]
    fn a_service_is_stale_when_it_fails_again_and_again_for_some_time() {
        let now = Instant::now();
        let health = |failures, ago: Option<u64>| ServiceHealth {
            last_success: ago.and_then(|ago| now.checked_sub(Duration::from_secs(ago))),
            consecutive_failures: failures,
        };
        assert_eq!(staleness(health(0, Some(60)), now), None);
        assert_eq!(staleness(health(50, Some(2)), now), None);
        assert_eq!(staleness(health(2, None), now), None);
        let stale = staleness(health(3, Some(40)), now).unwrap();
        assert_eq!(stale, "3 calls in a row failed, last answered 40 s ago");
        assert!(staleness(health(3, None), now).unwrap().contains("never"));
    }
}
