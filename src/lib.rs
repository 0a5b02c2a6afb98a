//! roomcast: a horizontally scalable Socket.IO chat node.
//!
//! # The path of a message
//!
//! A client sends `message`. The gate in [`node`] has found out whose connection it is, socketioxide has parsed the frame,
//! and `socket::connect` has put the event into the socket's inbox. The inbox is drained by one task, which exists only
//! while there is something to do, so a socket's events keep their order and an idle socket costs no task.
//! `socket::events::message` translates, [`chat`] composes the message object (the client's own fields verbatim, then what
//! the server says) and checks it, and [`redis`] calls one script: it gives the event its place, appends it to the room's
//! log and to the archive, and publishes it. One round trip, also for a run of messages that waited together.
//! The receipt comes back as a value and `socket::reply` acks it.
//!
//! Every node that has the room joined, this one included, receives the event on the room's channel. `chat::feed` decides:
//! the next one is handed to the members by `socket::deliver`, a hole is filled from the log first. Its frame is encoded once
//! and written to each member's websocket, between the frames of the engine (`socket::line`). Whoever is late, a
//! socket that joins or lags, or a whole room after a reconnect, is brought up from the log by the same means.
//!
//! Behind the chat a [`worker`] saves the archive streams to the message service, at least once, and answers questions to a
//! model: [`gpt`] takes them from the outboxes that the script fills, tells the room the reply as it is written, and posts it
//! like any message.
//!
//! Each step is counted, and traced where the event was chosen for it: see [`telemetry`].
//!
//! # Layers
//!
//! `main → node | worker | backend | demo → {socket, ops} → {chat, auth} → {redis, upstream, guard, gpt} → model`; [`telemetry`]
//! and [`config`] are leaves, [`web`] is what the nodes of the demo serve besides. Nothing points up.
//!
//! # Invariants
//!
//! Held by `tests/it/architecture.rs` where a test can:
//!
//! * only [`redis`] says fred; only [`upstream`] and [`gpt::provider`] call HTTP services (and `cli::chat`, which is a client);
//!   only [`config`] reads the environment;
//! * [`chat`] knows neither sockets nor HTTP servers; only `socket::reply` and `socket::deliver` send;
//! * no process-wide mutable state but the tracing subscriber and the crypto provider: several nodes run in one process;
//! * every queue, map and retry is bounded, and says why by that number;
//! * identity comes from the token, never from a payload; tokens and message texts are in no log line;
//! * an outage of ours blocks nobody.

pub mod archive;
pub mod auth;
pub mod backend;
pub mod chat;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(test)]
mod fuzz;
pub mod gpt;
pub mod guard;
pub mod lifecycle;
pub mod model;
pub mod node;
pub mod ops;
pub mod redis;
pub mod socket;
pub mod telemetry;
pub mod upstream;
pub mod web;
pub mod worker;
