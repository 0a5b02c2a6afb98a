//! How fast a slow reader reads: so many bytes a second, or nothing at all, until it is woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// What a slow reader reads comes in portions, one for each of these.
const PORTION_EVERY: Duration = Duration::from_millis(100);

/// How fast a slow reader reads.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: u64,
    awake: AtomicBool,
    woken: Notify,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            awake: AtomicBool::new(false),
            woken: Notify::new(),
        }
    }

    /// From now on it reads as others do; the first call counts.
    pub(super) fn wake(&self) {
        self.awake.store(true, Ordering::Release);
        self.woken.notify_waiters();
    }

    /// Waits until it may read, and says how many bytes; `usual` when it is awake.
    pub(super) async fn portion(&self, usual: u64) -> u64 {
        let woken = self.woken.notified();
        tokio::pin!(woken);
        // Before the look, so that no call to wake falls between.
        woken.as_mut().enable();
        if self.awake.load(Ordering::Acquire) {
            return usual;
        }
        if self.bytes_per_second == 0 {
            woken.await;
            return usual;
        }
        match timeout(PORTION_EVERY, woken).await {
            Ok(()) => usual,
            // A second has ten portions.
            Err(_) => (self.bytes_per_second / 10).clamp(1, usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_keeps_its_rate_until_it_is_woken() {
        let (slow, deaf) = (Pace::new(2000), Pace::new(0));
        let began = tokio::time::Instant::now();
        let mut bytes = 0;
        while began.elapsed() < Duration::from_secs(3) {
            bytes += slow.portion(4096).await;
        }
        assert!((5800..=6200).contains(&bytes), "{bytes}");
        let nothing = timeout(Duration::from_secs(3600), deaf.portion(4096)).await;
        assert!(nothing.is_err());
        let (read, ()) = tokio::join!(deaf.portion(4096), async { deaf.wake() });
        assert_eq!((read, deaf.portion(4096).await), (4096, 4096));
    }
}
