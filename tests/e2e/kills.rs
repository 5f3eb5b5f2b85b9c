//! Kills and power cuts: every acknowledged job is answered exactly once.

use hearth_tests::{
    kills::{self, OVERSLEPT, Plan},
    leaks,
    scripted_ollama::{Answer, Gate, ScriptedOllama, Step},
};
use proto::JobId;

use hearth_tests::test_bed::TestBed;

const FIRST: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"one "},"done":false}"#;
const SECOND: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"two"},"done":false}"#;
const DONE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;

/// Scripts an engine that writes one line, waits for the gate, and writes the rest.
fn halting(ollama: &ScriptedOllama) -> Gate {
    let gate = Gate::default();
    let rest = Answer::default()
        .send_lines([SECOND, DONE])
        .then(Step::Finish);
    let halt = Answer::begin()
        .send_lines([FIRST])
        .then(Step::Wait(gate.clone()))
        .then_all(rest);
    ollama.script("/api/chat", halt);
    gate
}

async fn answered_once(bed: &TestBed, job: JobId) {
    // Read twice: a result never changes.
    for _ in 0..2 {
        let answered = bed.answer(job).await;
        assert_eq!(answered.text, "one two", "{answered:?}");
        assert_eq!(answered.done_lines, 1, "{answered:?}");
        assert_eq!(answered.ends.len(), 1, "{answered:?}");
        assert_eq!(answered.ends[0]["state"], "completed", "{answered:?}");
    }
}

#[tokio::test]
async fn a_relay_killed_mid_stream_loses_nothing_and_nothing_is_generated_twice() {
    let (mut bed, ollama) = TestBed::scripted().await;
    let gate = halting(&ollama);
    let job = bed.submit("x").await.unwrap();
    ollama.until_asked("/api/chat", 1).await;
    bed.kill_relay().await;
    gate.open();
    bed.start_relay().await;
    answered_once(&bed, job).await;
    assert_eq!(
        ollama.requests_for("/api/chat").len(),
        1,
        "the agent kept its work"
    );
}

#[tokio::test]
async fn a_job_acknowledged_just_before_the_relay_dies_is_answered_after_its_restart() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let gate = halting(&ollama);
    gate.open();
    let job = bed.submit("x").await.unwrap();
    bed.kill_relay().await;
    bed.start_relay().await;
    bed.start_agent().await;
    answered_once(&bed, job).await;
}

#[tokio::test]
async fn an_agent_killed_mid_stream_is_replaced_and_the_answer_is_whole() {
    let (mut bed, ollama) = TestBed::scripted().await;
    let _never_opened = halting(&ollama);
    let job = bed.submit("x").await.unwrap();
    ollama.until_asked("/api/chat", 1).await;
    bed.kill_agent().await;
    ollama.until_left(1).await;
    halting(&ollama).open();
    bed.start_agent().await;
    answered_once(&bed, job).await;
    assert_eq!(
        ollama.requests_for("/api/chat").len(),
        2,
        "the new agent began anew"
    );
}

#[tokio::test]
async fn jobs_survive_kills_of_both_under_load() {
    let (mut bed, ollama) = TestBed::scripted().await;
    let mut jobs = Vec::new();
    for round in 0..6 {
        for _ in 0..8 {
            halting(&ollama).open();
            jobs.extend(bed.submit("x").await);
        }
        if round % 2 == 0 {
            bed.kill_relay().await;
            bed.start_relay().await;
        } else {
            bed.kill_agent().await;
            bed.start_agent().await;
        }
    }
    // An answer that was generated in vain needs its script again.
    for _ in 0..jobs.len() {
        halting(&ollama).open();
    }
    assert_eq!(jobs.len(), 48, "every submission was acknowledged");
    for job in jobs {
        answered_once(&bed, job).await;
    }
}

#[tokio::test]
async fn by_the_requesters_logs_kills_and_an_overslept_lease_lose_double_and_mix_nothing() {
    let plan = Plan::kills(6, 7).light();
    let report = kills::run(&plan).await.unwrap();
    assert!(report.verdict.is_clean(), "{report}");
    assert!(report.faults[OVERSLEPT] >= 2, "no lease ran out: {report}");
    let leaks = leaks::find(&report.said, &report.secrets);
    assert!(leaks.is_empty(), "{leaks:?}");
    let asked = plan.between * (plan.blows.len() as u64 + 2) + 2;
    assert_eq!(report.verdict.asked as u64, asked, "{report}");
    // Six of ten requests are native jobs, which are retried until they are accepted.
    let taken = report.verdict.acknowledged;
    assert!(taken * 10 >= report.verdict.asked * 6, "{report}");
}

#[tokio::test]
async fn a_power_cut_takes_nothing_that_was_acknowledged() {
    let plan = Plan::power_cuts(3, 11).light();
    let report = match kills::run(&plan).await {
        Ok(report) => report,
        Err(why) => {
            hearth_tests::not_tried(&format!("no disk can be mounted here: {why}"));
            return;
        }
    };
    assert!(report.verdict.is_clean(), "{report}");
    assert!(report.verdict.acknowledged > 50, "{report}");
}
