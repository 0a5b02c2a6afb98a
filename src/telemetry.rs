//! What operators see: metrics and log lines.

pub mod logging;
pub mod metrics;
pub mod process;

pub use metrics::{Labelled, Metrics};
