//! Translation between other wire formats and Hearth's own. Decides nothing else.
//!
//! The engine always speaks Ollama's native lines; each module turns a foreign request into a
//! native one, and native lines into the foreign answer. No I/O and no clock: time is an argument.

mod answer;
pub mod anthropic;
mod block;
pub mod bridge;
mod clock;
mod content;
mod line;
mod native;
pub mod ollama;
pub mod openai;
pub mod queries;
pub mod relay_polling;
mod template;

pub use answer::{Answer, Named};
pub use line::broken_off;
