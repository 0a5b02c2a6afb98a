//! Composition root of a chat node.

pub mod accept;
pub mod address;
