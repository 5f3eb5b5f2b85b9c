//! A small language model run in this process, for machines without Ollama.
//!
//! [`Builtin`] answers [`engine::Engine`]'s requests with any GGUF file llama.cpp can run, in the
//! lines of Ollama's native API. One thread owns the model and answers in turn; it loads the model
//! with the first request and lets go of it when `keep_alive` has passed.
//!
//! llama.cpp and not candle: for the same model on the same core, `SmolLM2-135M` in `Q4_1`, a
//! token took llama.cpp 8.9 ms of CPU and candle 0.11 (built for that CPU) 22.5 ms, a token of
//! the prompt took candle 18 ms; and candle has code for fewer models.

mod activity;
mod builtin;
mod card;
mod error;
mod fields;
mod generation;
mod keep_alive;
mod line;
mod llama;
mod options;
mod prompt;
mod request;
mod runner;
mod sampler;
mod schema;
mod session;
mod settings;
mod stop;
mod ticket;
mod utf8;

pub use activity::{Activity, Phase};
pub use builtin::Builtin;
pub use error::OpenError;
pub use settings::Settings;
