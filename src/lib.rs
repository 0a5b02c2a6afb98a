//! roomcast: a horizontally scalable Socket.IO chat node.

pub mod backend;
