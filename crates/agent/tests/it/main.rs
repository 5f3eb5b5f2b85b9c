//! The whole agent on real sockets, with a scripted Ollama and a relay of a few lines.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod approvals;
mod commands;
mod local_http;
mod publishers;
mod readers;
mod relay;
mod start;
mod support;
#[cfg(target_os = "linux")]
mod waking;
