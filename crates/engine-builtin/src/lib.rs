//! A small language model run in this process, for machines without Ollama.
//!
//! [`Builtin`] answers [`engine::Engine`]'s requests with any GGUF file that llama.cpp can run, in
//! the format of Ollama's native API. One thread owns the model and processes requests in order; it
//! loads the model with the first request and unloads it after `keep_alive`.
//!
//! llama.cpp was chosen over candle. Measured with the same model, `SmolLM2-135M` in `Q4_1`, on the
//! same core: llama.cpp needs 8.9 ms of CPU per token; candle 0.11, built for that CPU, needs 22.5
//! ms, and 18 ms per prompt token. candle also supports fewer models.

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
