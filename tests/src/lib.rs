//! What the end-to-end tests, the desktop tests and the benchmarks stand on.

pub mod auditor;
pub mod chance;
pub mod crowd;
pub mod disk;
pub mod farm;
pub mod headline;
pub mod hostile;
pub mod kills;
mod late;
pub mod leaks;
pub mod marked;
pub mod mutate;
pub mod planted;
pub mod process;
pub mod proxy;
pub mod scripted_ollama;
pub mod stand;

/// Says that a test could try nothing here, so that nobody takes it for passed: not captured, and
/// counted by `./x test`.
pub fn not_tried(why: &str) {
    use std::io::Write as _;
    // Whoever closed the log does not want to know.
    drop(writeln!(std::io::stderr(), "NOT TRIED: {why}"));
}
