//! The command line of the flood harness.

use std::process::ExitCode;

use clap::Parser as _;
use roomcast_load::flood::{self, Options};

fn main() -> ExitCode {
    match flood::run(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("roomcast-flood: {error}");
            ExitCode::from(2)
        }
    }
}
