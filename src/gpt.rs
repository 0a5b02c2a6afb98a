//! Replies of a language model: the queue of questions, their answers, and the way to the model.

mod answer;
mod figures;
mod ledger;
mod prompt;
pub mod provider;
mod queue;
mod room_prompts;
pub mod scripted;
mod summary;
mod why;
pub mod window;
mod words;

pub use answer::Answerer;
pub use figures::show as show_figures;
pub use prompt::{Fold, Prompter};
pub use queue::Queue;
pub use room_prompts::RoomPrompts;
pub use words::{DELTA, ERROR, QUEUED, RESET, cancelled, queue_full, reset};
