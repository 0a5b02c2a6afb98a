//! The command line of the harness for questions to a model.

use std::process::ExitCode;

use clap::Parser as _;
use roomcast_load::questions::{self, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match questions::run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("roomcast-questions: {error}");
            ExitCode::from(2)
        }
    }
}
