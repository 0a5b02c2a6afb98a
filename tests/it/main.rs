//! The integration tests: real Redis, real HTTP, several nodes in one process.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step is a failed test")]

mod architecture;
mod bad_input;
mod chat;
mod deletion_cost;
mod delivery;
mod drain;
mod durability;
mod expiry;
mod floor;
mod gate;
mod gpt;
mod gpt_budget;
mod guard;
mod handshake;
mod membership;
mod metrics;
mod modes;
mod operate;
mod outage;
mod process;
mod promotion;
mod proxies;
mod repair;
mod scripts;
mod support;
mod terminal;
mod traces;
