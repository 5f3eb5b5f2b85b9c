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

/// Whether strace may watch a running program here; otherwise says what could not be tried.
#[must_use]
pub fn has_strace(to_try: &str) -> bool {
    let is_there = watches_a_sibling().unwrap_or(false);
    if !is_there {
        not_tried(&format!("strace may not watch programs here {to_try}"));
    }
    is_there
}

/// Attaches strace to a program that is not its child, as those of the tests are not: some systems
/// allow that only to root.
fn watches_a_sibling() -> std::io::Result<bool> {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };
    let mut waiting = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let strace = Command::new("strace")
        .args(["-e", "trace=none", "-p", &waiting.id().to_string()])
        .stderr(Stdio::piped())
        .spawn();
    let mut said = String::new();
    let heard = strace.and_then(|mut strace| {
        if let Some(errors) = strace.stderr.take() {
            let mut errors = BufReader::new(errors);
            errors.read_line(&mut said)?;
            drop(waiting.stdin.take());
            // Reads on, so that strace is not ended by a closed pipe.
            std::io::copy(&mut errors, &mut std::io::sink())?;
        }
        strace.wait()
    });
    drop(waiting.stdin.take());
    waiting.wait()?;
    heard?;
    Ok(said.contains("attached"))
}
