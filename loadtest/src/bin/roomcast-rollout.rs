//! The command line of the rollout.

use std::process::ExitCode;

use clap::Parser as _;
use roomcast_load::rollout::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match rollout::run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("roomcast-rollout: {error}");
            ExitCode::from(2)
        }
    }
}
