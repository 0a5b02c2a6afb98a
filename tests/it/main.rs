//! The integration tests: real Redis, real HTTP, several nodes in one process.

mod bad_input;
mod chat;
mod delivery;
mod handshake;
mod membership;
mod outage;
mod support;
