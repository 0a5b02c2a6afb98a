//! Whether this process should get traffic, and why not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The named conditions of readiness, shared by those who set them and those who ask.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<State>);

#[derive(Debug, Default)]
struct State {
    draining: AtomicBool,
    /// What fails, by condition; the names are fixed in the code, so there are few.
    failing: Mutex<BTreeMap<&'static str, String>>,
}

impl Health {
    /// Starts unready: each of `required` fails until it was first set.
    pub fn new(required: &[&'static str]) -> Self {
        let unchecked = |name: &&'static str| (*name, "not checked yet".to_owned());
        Self(Arc::new(State {
            draining: AtomicBool::new(false),
            failing: Mutex::new(required.iter().map(unchecked).collect()),
        }))
    }

    /// Says how the condition `name` is now; an error is its reason.
    pub fn set(&self, name: &'static str, condition: Result<(), &str>) {
        let mut failing = self.failing();
        let news = match condition {
            Ok(()) => failing.remove(name).is_some(),
            Err(reason) => match failing.get_mut(name) {
                Some(known) if known == reason => false,
                Some(known) => {
                    reason.clone_into(known);
                    false
                }
                None => {
                    failing.insert(name, reason.to_owned());
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
        !self.is_draining() && self.failing().is_empty()
    }

    /// Why it should not get traffic; empty when it should.
    pub fn reasons(&self) -> Vec<String> {
        let draining = self.is_draining().then(|| "draining".to_owned());
        let failing = self.failing();
        draining
            .into_iter()
            .chain(failing.iter().map(|(name, reason)| format!("{name}: {reason}")))
            .collect()
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
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
        health.set_draining();
        assert!(!health.is_ready() && health.is_draining());
    }
}
