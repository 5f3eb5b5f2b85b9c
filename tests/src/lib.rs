//! Shared code of the end-to-end tests, the desktop tests and the benchmarks.

pub mod auditor;
pub mod chance;
pub mod cluster;
pub mod crowd;
pub mod disk;
pub mod headline;
pub mod hostile;
pub mod kills;
mod late;
pub mod leaks;
pub mod mutate;
pub mod planted;
pub mod process;
pub mod proxy;
pub mod scripted_ollama;
pub mod tagged_engine;
pub mod test_bed;

/// Reports that a test could not run here. The line is not captured, and `./x test` counts it.
pub fn not_tried(why: &str) {
    use std::io::Write as _;
    // Nobody reads the log.
    drop(writeln!(std::io::stderr(), "NOT TRIED: {why}"));
}

/// Whether strace is here; without it, says what could not be tried.
#[must_use]
pub fn has_strace(to_try: &str) -> bool {
    let asked = std::process::Command::new("strace").arg("-V").output();
    let is_there = asked.is_ok_and(|asked| asked.status.success());
    if !is_there {
        not_tried(&format!("there is no strace here {to_try}"));
    }
    is_there
}
