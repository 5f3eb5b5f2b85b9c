//! What the programs log at their most detailed level.

use std::fmt::Write as _;

use hearth_tests::{
    process::Process,
    scripted_ollama::{Answer, Step},
    test_bed::TestBed,
};

const PROMPT: &str = "canaryprompt";
const ANSWER: &str = "canaryanswer";

#[tokio::test]
async fn no_log_shows_a_prompt_an_answer_or_a_key_at_any_level() {
    let (mut bed, ollama) = TestBed::scripted().await;
    bed.kill_agent().await;
    bed.kill_relay().await;
    bed.log = Some("trace");
    bed.start_relay().await;
    bed.start_agent().await;
    bed.until("ready").await;
    let line = format!(
        r#"{{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{{"role":"assistant","content":"{ANSWER}"}},"done":true,"done_reason":"stop"}}"#
    );
    let answer = Answer::begin().send_lines([&*line]).then(Step::Finish);
    ollama.script("/api/chat", answer);
    let asked = bed.ask(&["--model", "tiny", PROMPT]).await;
    assert_eq!(asked.stdout.trim(), ANSWER, "{}", asked.stderr);

    let logs = [
        ("relay", bed.relay.as_ref().map(Process::log).unwrap()),
        ("agent", bed.agent.as_ref().map(Process::log).unwrap()),
        ("ask", asked.stderr),
    ];
    for (program, log) in &logs {
        assert!(
            log.contains("INFO") || *program == "ask",
            "{program}: {log}"
        );
        for secret in [PROMPT, ANSWER, &bed.requester, &bed.worker] {
            for form in forms(secret) {
                assert!(!log.contains(&form), "{program}: {secret} as {form}");
            }
        }
    }
}

/// The secret as text and as bytes in the forms in which programs may log it.
fn forms(secret: &str) -> [String; 4] {
    let hex = secret.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    let list = format!("{:?}", secret.as_bytes());
    let list = list.trim_matches(['[', ']']).to_owned();
    [secret.to_owned(), hex.to_uppercase(), hex, list]
}
