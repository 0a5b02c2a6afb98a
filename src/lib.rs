//! roomcast: a horizontally scalable Socket.IO chat node.

pub mod auth;
pub mod backend;
pub mod chat;
pub mod config;
pub mod model;
pub mod ops;
pub mod redis;
pub mod telemetry;
pub mod upstream;
