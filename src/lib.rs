//! roomcast: a horizontally scalable Socket.IO chat node.

pub mod auth;
pub mod backend;
pub mod chat;
pub mod config;
pub mod guard;
pub mod model;
pub mod node;
pub mod ops;
pub mod redis;
pub mod socket;
pub mod telemetry;
pub mod upstream;
