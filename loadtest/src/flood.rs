//! A node under attack: an attacker with one core floods it in many ways while innocent clients talk, and what they
//! notice is held against the same flood aimed at a listener that only ever says 403.

use std::path::Path;

use clap::ValueEnum as _;
use tokio::net::TcpListener;
use tokio::runtime;

pub(crate) mod attack;
mod crowd;
mod innocent;
mod kind;
mod ledger;
mod listener;
mod meter;
mod newcomer;
mod options;
mod peers;
pub(crate) mod proc;
mod scenario;
mod summary;

use crate::harness::{HarnessError, Say, find_binary, run_in_folder};
use kind::Kind;
pub use options::Options;
use options::Role;

/// Runs the role that was asked for; for a whole run true when every limit was held.
///
/// All processes it starts end with it, also when it is interrupted or panics.
pub fn run(options: Options) -> Result<bool, HarnessError> {
    match &options.role {
        // One thread: it is pinned to one core.
        Some(Role::Attack(options)) => {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let report = runtime.block_on(attack::run(options))?;
            let report = serde_json::to_string(&report).map_err(std::io::Error::other)?;
            println!("{report}");
            Ok(true)
        }
        Some(Role::Listen { listen }) => runtime::Runtime::new()?.block_on(async {
            listener::serve(TcpListener::bind(listen).await?).await;
            Ok(true)
        }),
        None => runtime::Runtime::new()?.block_on(flood_all(options)),
    }
}

async fn flood_all(options: Options) -> Result<bool, HarnessError> {
    let say = Say {
        to_stderr: options.json,
    };
    let binary = find_binary(options.binary.as_deref())?;
    let core = options.core.map_or_else(proc::last_core, Ok)?;
    let kinds = match options.only.as_slice() {
        [] => Kind::value_variants(),
        only => only,
    };
    let work = async |dir: &Path| {
        let mut outcomes = Vec::new();
        for kind in kinds {
            let plan = scenario::Plan {
                options: &options,
                kind: *kind,
                binary: &binary,
                core,
                say,
            };
            let outcome = scenario::suffer(&plan, &dir.join(kind.to_string())).await?;
            if !options.json {
                summary::print(&outcome, &options);
            }
            outcomes.push(outcome);
        }
        let held = outcomes.iter().all(|outcome| outcome.complaints(&options).is_empty());
        if options.json {
            println!("{}", summary::json(&outcomes, &options));
        } else {
            summary::print_table(&outcomes, &options);
        }
        Ok(held)
    };
    run_in_folder(options.dir.as_deref(), "roomcast-flood", options.keep, say, work).await
}
