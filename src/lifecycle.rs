//! The start and the end of a process: as many files as it may have; a first signal asks, a second insists.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Lets this process open as many files as it may: systemd and container runtimes leave the soft limit at 1024 for programs
/// that use `select`, and every socket is a file.
pub fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::info!(?current, ?maximum, "limit of open files raised"),
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files stays: it also limits sockets")
        }
    }
}

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
