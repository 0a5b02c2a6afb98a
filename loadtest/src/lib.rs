//! Test tools of roomcast: a Socket.IO client of our own and a checker that judges what many clients saw.
//!
//! Nothing here depends on the node: a shared codec or a shared idea of order would share its mistakes.
//!
//! * [`packet`]: Engine.IO v4 and Socket.IO v5 as text.
//! * [`client`]: one connection, by websocket, polling, or polling that upgrades.
//! * [`checker`]: given what was sent, acked, logged and received, names every broken promise.
//! * [`compare`]: roomcast and others under the same load.
//! * [`deployment`] and [`harness`]: processes of its own for a harness, and what it does around a run.
//! * [`chaos`]: a deployment under seeded faults, judged by the checker.
//! * [`fleet`]: thousands of sockets at a set rate, which check what arrives.
//! * [`growth`]: what a message costs as a deployment grows.
//! * [`plan`]: from a crowd to machines, with what `growth` has measured.
//! * [`questions`]: many questions to a model while workers die, each of which has one end.
//! * [`rollout`]: nodes replaced one after the other behind a real load balancer, and who noticed.
//! * [`run`]: load tests from files, with a verdict and a page.
//! * [`flood`]: a node under attack, and what other clients notice of it.

pub mod chaos;
pub mod checker;
pub mod client;
pub mod compare;
pub mod deployment;
pub mod fleet;
pub mod flood;
pub mod growth;
pub mod harness;
pub mod packet;
pub mod plan;
pub mod questions;
pub mod rollout;
pub mod run;
