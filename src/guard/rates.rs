//! Rates that this node keeps by itself, with `governor`: handshakes by address, events by socket, messages by user.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::{Config, Rate};
use crate::model::{Scope, UserId};

type Keyed<K> = RateLimiter<K, DashMapStateStore<K>, DefaultClock, NoOpMiddleware>;

/// The rate of one socket's events.
pub struct EventRate(RateLimiter<NotKeyed, InMemoryState, DefaultClock, NoOpMiddleware>);

/// What an event costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Of its socket's rate.
    pub events: NonZeroU32,
    /// Whether it is also one of its user's messages.
    pub message: bool,
}

impl Weight {
    /// An event that costs `events`; zero is one.
    pub const fn of(events: u32) -> Self {
        Self {
            events: match NonZeroU32::new(events) {
                Some(events) => events,
                None => NonZeroU32::MIN,
            },
            message: false,
        }
    }

    /// A message.
    pub const MESSAGE: Self = Self {
        events: NonZeroU32::MIN,
        message: true,
    };
}

/// The rates of one node.
pub(super) struct Rates {
    clock: DefaultClock,
    handshakes: Keyed<IpAddr>,
    messages: Keyed<UserId>,
    events: Quota,
    /// Users who took too many messages on other nodes, and until when they wait.
    held: DashMap<UserId, Instant>,
}

fn quota(rate: Rate) -> Quota {
    let burst = NonZeroU32::new(rate.burst).unwrap_or(NonZeroU32::MIN);
    // The interval was checked with the setting; it is never zero.
    Quota::with_period(rate.interval).map_or_else(|| Quota::per_second(burst), |quota| quota.allow_burst(burst))
}

impl Rates {
    pub fn new(config: &Config) -> Self {
        Self {
            clock: DefaultClock::default(),
            handshakes: RateLimiter::dashmap(quota(config.guard_handshakes)),
            messages: RateLimiter::dashmap(quota(config.guard_messages)),
            events: quota(config.guard_events),
            held: DashMap::new(),
        }
    }

    pub fn of_socket(&self) -> EventRate {
        EventRate(RateLimiter::direct(self.events))
    }

    /// Takes a handshake of an address; the time to wait where there are too many.
    pub fn handshake(&self, ip: IpAddr) -> Option<Duration> {
        let Scope::Address(ip) = Scope::address(ip) else {
            return None;
        };
        let taken = self.handshakes.check_key(&ip);
        taken.err().map(|until| until.wait_time_from(self.clock.now()))
    }

    pub fn event(&self, rate: &EventRate, weight: Weight) -> Option<Duration> {
        match rate.0.check_n(weight.events) {
            Ok(Ok(())) => None,
            Ok(Err(until)) => Some(until.wait_time_from(self.clock.now())),
            // A burst smaller than this one event: it is never allowed.
            Err(_) => Some(Duration::from_secs(1)),
        }
    }

    pub fn message(&self, user: &UserId) -> Option<Duration> {
        if let Some(until) = self.held.get(user).map(|until| *until) {
            let wait = until.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                return Some(wait);
            }
        }
        let taken = self.messages.check_key(user);
        taken.err().map(|until| until.wait_time_from(self.clock.now()))
    }

    pub fn hold_messages(&self, user: &UserId, wait: Duration) {
        self.held.insert(user.clone(), Instant::now() + wait);
    }

    /// Forgets whoever has recovered: what is left is bounded by what can come within a burst's time.
    pub fn sweep(&self) {
        self.handshakes.retain_recent();
        self.handshakes.shrink_to_fit();
        self.messages.retain_recent();
        self.messages.shrink_to_fit();
        let now = Instant::now();
        self.held.retain(|_, until| *until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    fn rates(pairs: &[(&'static str, &str)]) -> Rates {
        let source = Source::from_pairs([
            ("AUTH_URL", "http://127.0.0.1:1"),
            ("API_URL", "http://127.0.0.1:1"),
            ("VISION_APP_INFO", "x"),
        ]);
        Rates::new(&Config::read(&source.with(pairs.to_vec())).unwrap())
    }

    #[test]
    fn exactly_a_burst_passes_and_each_key_has_its_own() {
        let rates = rates(&[
            ("GUARD_HANDSHAKES_PER_ADDRESS", "1/h burst 5"),
            ("GUARD_MESSAGES_PER_USER", "1/h burst 3"),
            ("GUARD_EVENTS_PER_SOCKET", "1/h burst 10"),
        ]);
        let handshakes = |ip: &str| {
            (0..20)
                .filter(|_| rates.handshake(ip.parse().unwrap()).is_none())
                .count()
        };
        assert_eq!(handshakes("192.0.2.1"), 5);
        assert_eq!(handshakes("192.0.2.2"), 5);
        assert_eq!(handshakes("2001:db8::1"), 5);
        assert_eq!(handshakes("2001:db8::2"), 0, "the same /64");
        let user = UserId::new("p1").unwrap();
        assert_eq!((0..20).filter(|_| rates.message(&user).is_none()).count(), 3);
        let socket = rates.of_socket();
        assert_eq!(
            (0..20)
                .filter(|_| rates.event(&socket, Weight::of(3)).is_none())
                .count(),
            3
        );
        assert!(rates.event(&socket, Weight::of(11)).is_some(), "never allowed");
    }

    #[test]
    fn addresses_that_have_recovered_are_forgotten() {
        let rates = rates(&[("GUARD_HANDSHAKES_PER_ADDRESS", "1000/s burst 10")]);
        for n in 0..100_000_u32 {
            rates.handshake(std::net::Ipv4Addr::from(0x0a00_0000 + n).into());
        }
        while !rates.handshakes.is_empty() {
            rates.sweep();
        }
    }
}
