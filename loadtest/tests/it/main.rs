//! The client against a real server and against servers that misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod agents;
mod misbehaviour;
mod schema;
mod terminal;
mod transports;
mod verdict;
