//! The Lua scripts against a model of the rooms: random operations, every answer predicted.

mod archive;
mod checks;
mod counters;
mod input;
mod model;
mod nodes;
mod op;
mod run;
mod server;
mod spending;
mod spoil;
mod time;
mod trim;
mod wire;

use std::cell::RefCell;
use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use tokio::runtime::Runtime;

use op::{Ops, ops};
use run::Run;
use server::Server;

/// Where the seeds of a test's failures are kept.
macro_rules! kept {
    ($name:literal) => {
        concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/proptest-regressions/",
            $name,
            ".txt"
        )
    };
}

/// Runs `test` on `cases` inputs, or as many as `PROPTEST_CASES` says. A seed that failed is kept in `kept` and tried
/// first from then on: such a file belongs into the repository.
fn check<S: Strategy<Value: Debug>>(
    cases: u32,
    kept: &'static str,
    strategy: &S,
    test: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let defaults = Config::default();
    let config = Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() {
            defaults.cases
        } else {
            cases
        },
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        // shrinking runs real operations: half a minute finds a short list
        max_shrink_time: 30_000,
        max_shrink_iters: 4000,
        ..defaults
    };
    if let Err(failure) = TestRunner::new(config).run(strategy, test) {
        panic!("{failure}");
    }
}

/// As [`check`], with one server for all cases, which `test` must clear at first.
fn check_on<S: Strategy<Value: Debug>>(
    cases: u32,
    kept: &'static str,
    strategy: &S,
    start: impl AsyncFnOnce() -> Server,
    test: impl AsyncFn(&mut Server, S::Value) -> Result<(), TestCaseError>,
) -> Server {
    let runtime = Runtime::new().unwrap();
    let server = RefCell::new(runtime.block_on(start()));
    check(cases, kept, strategy, |input| {
        runtime.block_on(test(&mut server.borrow_mut(), input))
    });
    let server = server.into_inner();
    runtime.block_on(server.redis.close());
    server
}

#[test]
fn room_scripts_answer_what_the_model_answers() {
    check_on(
        64,
        kept!("rooms"),
        &ops(true),
        Server::start,
        async |server, Ops(ops)| Run::start(server).await.all(&ops).await,
    );
}

#[test]
fn room_scripts_on_a_cluster_touch_only_keys_of_one_slot_that_they_name() {
    let server = check_on(
        16,
        kept!("cluster"),
        &ops(false),
        Server::start_cluster,
        async |server, Ops(ops)| Run::start(server).await.all(&ops).await,
    );
    assert!(
        server.script_commands > 1000,
        "only {} commands of scripts were seen",
        server.script_commands
    );
}

#[test]
fn counters_of_an_address_answer_what_the_model_answers() {
    let server = check_on(
        64,
        kept!("counters"),
        &counters::acts(),
        Server::start_cluster,
        async |server, acts| counters::run(server, &acts).await,
    );
    assert!(
        server.script_commands > 100,
        "only {} commands of scripts were seen",
        server.script_commands
    );
}

#[test]
fn sockets_of_dead_nodes_are_reaped_as_in_the_model() {
    let server = check_on(
        64,
        kept!("nodes"),
        &nodes::acts(),
        Server::start_cluster,
        async |server, acts| nodes::run(server, &acts).await,
    );
    assert!(
        server.script_commands > 100,
        "only {} commands of scripts were seen",
        server.script_commands
    );
}

#[test]
fn tokens_are_counted_and_refused_as_in_the_model() {
    check_on(
        64,
        kept!("spending"),
        &spending::acts(true),
        Server::start,
        async |server, acts| spending::run(server, &acts).await,
    );
}

#[test]
fn settlements_on_a_cluster_touch_only_keys_of_one_slot_that_they_name() {
    let server = check_on(
        16,
        kept!("spending"),
        &spending::acts(false),
        Server::start_cluster,
        async |server, acts| spending::run(server, &acts).await,
    );
    assert!(
        server.script_commands > 100,
        "only {} commands of scripts were seen",
        server.script_commands
    );
}
