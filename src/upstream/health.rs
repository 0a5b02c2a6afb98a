//! How the services have answered lately, for readiness.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Service;

/// The recent past of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceHealth {
    /// When it last answered as the contract says, refusals included; `None` when it never did.
    pub last_success: Option<Instant>,
    /// Failed calls since then.
    pub consecutive_failures: u32,
}

#[derive(Default)]
struct Memory {
    /// Milliseconds after the start plus one; 0 for never.
    last_success: AtomicU64,
    failures: AtomicU32,
}

/// The recent past of every service; relaxed, because it only informs.
pub(super) struct HealthMemory {
    start: Instant,
    services: [Memory; Service::ALL.len()],
}

impl Default for HealthMemory {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            services: Default::default(),
        }
    }
}

impl HealthMemory {
    /// Notes an answer; returns how many failures it ends.
    pub(super) fn note_success(&self, service: Service) -> u32 {
        let memory = &self.services[service as usize];
        let since = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        memory.last_success.store(since + 1, Ordering::Relaxed);
        memory.failures.swap(0, Ordering::Relaxed)
    }

    /// Notes a failure; returns how many came before it.
    pub(super) fn note_failure(&self, service: Service) -> u32 {
        self.services[service as usize].failures.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn read(&self, service: Service) -> ServiceHealth {
        let memory = &self.services[service as usize];
        let last = memory.last_success.load(Ordering::Relaxed);
        ServiceHealth {
            last_success: last.checked_sub(1).map(|ms| self.start + Duration::from_millis(ms)),
            consecutive_failures: memory.failures.load(Ordering::Relaxed),
        }
    }
}
