//! roomcast: a horizontally scalable Socket.IO chat node.

pub mod archive;
pub mod auth;
pub mod backend;
pub mod chat;
pub mod cli;
pub mod config;
pub mod demo;
pub mod guard;
pub mod lifecycle;
pub mod model;
pub mod node;
pub mod ops;
pub mod redis;
pub mod socket;
pub mod telemetry;
pub mod upstream;
pub mod worker;
