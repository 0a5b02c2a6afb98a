//! What operators see: metrics, traces and log lines.

mod export;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod trace;

pub use export::Traces;
pub use metrics::{Labelled, Metrics};
