//! The command line of the load test.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roomcast_load::{compare, growth};

/// Load tests for Socket.IO chat that check what arrives.
#[derive(Debug, Parser)]
#[command(name = "roomcast-load", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Compare(compare::Options),
    Growth(growth::Options),
    /// The bare write loop that `compare` measures
    #[command(hide = true)]
    Floor {
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(options) => compare::run(options).await,
        Command::Growth(options) => growth::run(options).await,
        Command::Floor { listen } => compare::floor::serve(listen).await.map(|()| true).map_err(Into::into),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("roomcast-load: {error}");
            ExitCode::from(2)
        }
    }
}
