//! What a harness does around a run: find the program under test, say how it stands, notice an interrupt, clean up.

use std::io;
use std::path::{Path, PathBuf};

use tokio::signal::unix::{SignalKind, signal};

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// It could not be started, or asked for the impossible.
    #[error("{0}")]
    Setup(String),
    /// Something of the harness itself failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// Reads what a run wrote; an error names the file.
pub fn read_json<T: serde::de::DeserializeOwned>(file: &Path) -> Result<T, HarnessError> {
    let unfit = |why: &dyn std::fmt::Display| HarnessError::Setup(format!("{}: {why}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| unfit(&error))?;
    serde_json::from_str(&text).map_err(|error| unfit(&error))
}

/// The program under test: the one that is named, else `roomcast` beside this program.
pub fn find_binary(named: Option<&Path>) -> Result<PathBuf, HarnessError> {
    let binary = match named {
        Some(binary) => binary.to_owned(),
        None => std::env::current_exe()?.with_file_name("roomcast"),
    };
    binary.canonicalize().map_err(|error| {
        HarnessError::Setup(format!(
            "cannot find the program under test, {}: {error}; build it, or name it with --binary",
            binary.display()
        ))
    })
}

/// Runs `work` in a new folder until it ends or somebody interrupts; the folder stays if something is to be seen there.
pub async fn run_in_folder(
    parent: Option<&Path>,
    name: &str,
    keep: bool,
    say: Say,
    work: impl AsyncFnOnce(&Path) -> Result<bool, HarnessError>,
) -> Result<bool, HarnessError> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let dir = parent.join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    // Programs run inside of it.
    let dir = dir.canonicalize()?;
    let outcome = tokio::select! {
        outcome = work(&dir) => outcome,
        () = interrupted() => Err(HarnessError::Interrupted),
    };
    let is_of_use = matches!(&outcome, Ok(false) | Err(HarnessError::Setup(_) | HarnessError::Io(_)));
    if keep || is_of_use {
        say.line(&format!("logs and data are in {}", dir.display()));
    } else {
        std::fs::remove_dir_all(&dir)?;
    }
    outcome
}

/// Waits for Ctrl-C or SIGTERM.
pub async fn interrupted() {
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
        _ => std::future::pending().await,
    }
}

/// Where progress goes.
#[derive(Clone, Copy, Debug)]
pub struct Say {
    /// The standard output is for the result.
    pub to_stderr: bool,
}

impl Say {
    /// Prints a line.
    pub fn line(self, text: &str) {
        if self.to_stderr {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}
