//! What the relay asks of its disk for each job, counted by strace.

use std::{fs, path::Path};

use hearth_tests::{has_strace, process::Process, test_bed::TestBed};

/// Number of jobs whose syncs are counted.
const COUNTED: usize = 50;
/// Length of a job's prompt that fills the log soon, in bytes.
const LONG: usize = 400_000;
/// Maximum number of such jobs until the log is reused; 16 MiB hold about forty.
const FILLED_WITHIN: usize = 80;

fn syncs(trace: &Path) -> usize {
    let calls = fs::read_to_string(trace).unwrap();
    // strace splits the line of a call during which another thread ends or calls.
    let ended = calls
        .lines()
        .filter(|call| call.contains("sync") && call.ends_with(" = 0"));
    ended.count()
}

#[tokio::test]
async fn each_job_that_comes_alone_costs_one_sync_and_the_log_is_written_over_again() {
    if !has_strace("to count syncs") {
        return;
    }
    let bed = TestBed::relay_only("none").await;
    let log = bed.home.path().join("relay.db-wal");
    let length = || fs::metadata(&log).unwrap().len();
    // The log is filled once, then written from its beginning.
    let mut filled = 0;
    for n in 0.. {
        assert!(n < FILLED_WITHIN, "the log grows for ever: {filled}");
        bed.submit(&"x".repeat(LONG)).await.unwrap();
        let grown = length();
        if grown == filled {
            break;
        }
        filled = grown;
    }

    let trace = bed.home.path().join("syncs");
    let mut strace = bed.home.command("strace");
    strace.args(["-f", "-e", "trace=fsync,fdatasync", "-o"]);
    strace.arg(&trace);
    strace.args(["-p", &bed.relay.as_ref().unwrap().id().unwrap().to_string()]);
    let mut tracer = Process::start("strace", strace);
    tracer.says("attached").await;
    for n in 0..COUNTED {
        bed.submit(&format!("job {n}")).await.unwrap();
    }
    tracer.ask_to_end();
    tracer.wait().await;
    assert_eq!(syncs(&trace), COUNTED);
    assert_eq!(
        length(),
        filled,
        "the log's length is a matter of its first use"
    );
}
