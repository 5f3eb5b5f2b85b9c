//! What the end-to-end tests, the desktop tests and the benchmarks stand on.

pub mod auditor;
pub mod crowd;
pub mod farm;
pub mod kills;
pub mod marked;
pub mod process;
pub mod proxy;
pub mod scripted_ollama;
pub mod stand;
