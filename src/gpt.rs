//! Replies of a language model: the queue of questions, their answers, and the way to the model.

mod answer;
mod figures;
pub mod provider;
mod queue;
pub mod scripted;
pub mod window;
mod words;

pub use answer::{Answerer, Fold, Model};
pub use figures::show as show_figures;
pub use queue::Queue;
pub use words::{DELTA, ERROR, QUEUED, RESET, cancelled};
