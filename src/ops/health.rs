//! Whether this process should get traffic, and why not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::telemetry::Metrics;

/// The named conditions of readiness, shared by those who set them and those who ask.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<State>);

#[derive(Debug, Default)]
struct State {
    draining: AtomicBool,
    started: AtomicBool,
    /// What fails, by condition; the names are fixed in the code, so there are few.
    failing: Mutex<BTreeMap<&'static str, Failing>>,
}

#[derive(Debug)]
struct Failing {
    reason: String,
    /// Whether traffic must stay away for it.
    hinders: bool,
}

impl Health {
    /// Starts unready: each of `required` fails until it was first set.
    pub fn new(required: &[&'static str]) -> Self {
        let unchecked = |name: &&'static str| {
            let reason = "not checked yet".to_owned();
            (*name, Failing { reason, hinders: true })
        };
        Self(Arc::new(State {
            failing: Mutex::new(required.iter().map(unchecked).collect()),
            ..State::default()
        }))
    }

    /// Says how the condition `name` is now; an error is its reason.
    pub fn set(&self, name: &'static str, condition: Result<(), &str>) {
        self.change(name, condition, true);
    }

    /// As [`Self::set`], for what is worth knowing and no reason to send traffic elsewhere: it fails everywhere at once.
    pub fn warn(&self, name: &'static str, condition: Result<(), &str>) {
        self.change(name, condition, false);
    }

    fn change(&self, name: &'static str, condition: Result<(), &str>, hinders: bool) {
        let mut failing = self.failing();
        let news = match condition {
            Ok(()) => failing.remove(name).is_some(),
            Err(reason) => match failing.get_mut(name) {
                Some(known) => {
                    if known.reason != reason {
                        reason.clone_into(&mut known.reason);
                    }
                    false
                }
                None => {
                    let reason = reason.to_owned();
                    failing.insert(name, Failing { reason, hinders });
                    true
                }
            },
        };
        drop(failing);
        if news {
            match condition {
                Ok(()) => tracing::info!(condition = name, "condition holds"),
                Err(reason) => tracing::warn!(condition = name, reason, "condition fails"),
            }
        }
    }

    /// Says that everything that a start takes is done; there is no way back.
    pub fn set_started(&self) {
        self.0.started.store(true, Ordering::Release);
    }

    /// Whether the start is over.
    pub fn is_started(&self) -> bool {
        self.0.started.load(Ordering::Acquire)
    }

    /// Says that this process goes away; there is no way back.
    pub fn set_draining(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// Whether this process goes away.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }

    /// Whether it should get traffic.
    pub fn is_ready(&self) -> bool {
        !self.is_draining() && !self.failing().values().any(|failing| failing.hinders)
    }

    /// Why it should not get traffic; empty when it should.
    pub fn reasons(&self) -> Vec<String> {
        let draining = self.is_draining().then(|| "draining".to_owned());
        draining.into_iter().chain(self.texts(true)).collect()
    }

    /// What fails without being a reason to send traffic elsewhere.
    pub fn warnings(&self) -> Vec<String> {
        self.texts(false)
    }

    fn texts(&self, hinders: bool) -> Vec<String> {
        let failing = self.failing();
        let chosen = failing.iter().filter(|(_, failing)| failing.hinders == hinders);
        chosen
            .map(|(name, failing)| format!("{name}: {}", failing.reason))
            .collect()
    }

    /// Shows all of it in the metrics.
    pub fn show(&self, metrics: &Metrics) {
        metrics.ready.set(self.is_ready().into());
        metrics.failing_conditions.withdraw();
        for name in self.failing().keys() {
            metrics.failing_conditions.set([name], 1.0);
        }
        if self.is_draining() {
            metrics.failing_conditions.set(["draining"], 1.0);
        }
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<&'static str, Failing>> {
        self.0.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_condition_must_hold() {
        let health = Health::new(&["redis", "bus"]);
        assert!(!health.is_ready());
        health.set("redis", Ok(()));
        health.set("bus", Err("away"));
        health.set("bus", Err("still away"));
        assert_eq!(health.reasons(), ["bus: still away"]);
        health.clone().set("bus", Ok(()));
        assert!(health.is_ready());
        health.warn("api", Err("does not answer"));
        assert!(health.is_ready(), "{:?}", health.reasons());
        assert_eq!(health.warnings(), ["api: does not answer"]);
        health.set_draining();
        assert!(!health.is_ready() && health.is_draining());
    }

    #[test]
    fn what_fails_is_in_the_metrics_and_what_holds_again_is_not() {
        let (health, metrics) = (Health::new(&["redis"]), Metrics::new().unwrap());
        health.show(&metrics);
        let text = metrics.render();
        assert!(
            text.contains("roomcast_ready 0") && text.contains("roomcast_failing_condition{condition=\"redis\"} 1")
        );
        health.set("redis", Ok(()));
        health.show(&metrics);
        let text = metrics.render();
        assert!(
            text.contains("roomcast_ready 1") && !text.contains("roomcast_failing_condition{"),
            "{text}"
        );
    }
}
