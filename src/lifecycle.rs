//! The end of a process: a first signal asks, a second insists.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals that end a process.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Starts to listen: from now on a signal no longer kills the process by itself.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Finishes `stop`, unless a further signal comes first; `false` when it was cut short.
    pub async fn finish(&mut self, stop: impl Future<Output = ()>) -> bool {
        tokio::select! {
            () = stop => true,
            () = self.next() => {
                tracing::warn!("second signal: stopping at once");
                false
            }
        }
    }
}
