//! Ollama's API through a real relay and a real worker, in this process, in front of a scripted
//! Ollama. Programs that use Ollama change the address and nothing else.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod bytes;
mod loading;
mod model_changes;
mod models;
mod paths;
mod recorded;
mod site;
