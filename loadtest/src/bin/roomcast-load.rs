//! The command line of the load test.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use roomcast_load::{compare, growth, plan, run};

/// Load tests for Socket.IO chat that check what arrives.
#[derive(Debug, Parser)]
#[command(name = "roomcast-load", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Options),
    Capacity(run::CapacityOptions),
    Report(run::PageOptions),
    Compare(compare::Options),
    Growth(growth::Options),
    Plan(plan::Options),
    Agent(run::agent::AgentOptions),
    /// Prints what a scenario may say, as JSON Schema
    Schema,
    /// A process of `run` with a share of the sockets
    #[command(hide = true)]
    Part,
    /// The bare write loop that `compare` measures
    #[command(hide = true)]
    Floor {
        listen: SocketAddr,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(options) => run::run(options).await,
        Command::Capacity(options) => run::capacity(options).await,
        Command::Report(options) => run::make_page(&options),
        Command::Part => run::part::serve().await.map(|()| true).map_err(Into::into),
        Command::Compare(options) => compare::run(options).await,
        Command::Growth(options) => growth::run(options).await,
        Command::Agent(options) => run::agent::serve(options).await,
        Command::Schema => {
            print!("{}", run::schema());
            Ok(true)
        }
        Command::Plan(options) => plan::run(&options),
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
