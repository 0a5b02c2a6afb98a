//! The command line of the chaos harness.

use std::process::ExitCode;

use clap::Parser as _;
use roomcast_load::chaos::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match chaos::run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("roomcast-chaos: {error}");
            ExitCode::from(2)
        }
    }
}
