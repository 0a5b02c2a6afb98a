//! The reference auth, room and message services.

mod error;
mod fold;
mod store;
