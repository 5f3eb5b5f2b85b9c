//! The relay's dashboard, and the overlay as a browser source, in a real Chromium, with a real
//! relay, agent and jobs. Screenshots are saved under `tests/output/`.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod browser;
mod jobs;
mod overlay;
#[path = "../desktop/poll.rs"]
mod poll;

use std::time::Duration;

use browser::{Browser, Look};
use fantoccini::key::Key;
use hearth_tests::{
    process::finish,
    scripted_ollama::{Answer, Gate, Step},
    test_bed::{TestBed, create_key, read_json, store},
};
use serde_json::json;

const LINE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"a secret answer"},"done":false}"#;
const LAST: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;

async fn admin_key(bed: &TestBed) -> String {
    create_key(&bed.home, &["--name", "operator", "--scope", "admin"]).await
}

/// Opens the dashboard and signs in by keyboard only.
async fn signed_in(bed: &TestBed, key: &str) -> Browser {
    let browser = Browser::start().await;
    browser.look(Look::Light, 1280).await;
    browser.open(&bed.url("/")).await;
    poll::until("the field for the key", async || browser.find("key").await).await;
    browser.keys("hearth_mistyped").await;
    browser.press(Key::Enter).await;
    browser
        .until_contains("problem", "does not accept this key")
        .await;
    browser.shoot("dashboard-login-light.png").await;
    browser.keys(key).await;
    browser.press(Key::Enter).await;
    browser.until_text("link", "Live").await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_follows_a_job_and_retries_a_dead_one_by_keyboard() {
    let (mut bed, ollama) = TestBed::scripted().await;
    // The maximum length of a name: it must not make the page wider than its window.
    let long = "long-named-model".repeat(8);
    ollama.set_models(&[("tiny", true), (&long, false)]);
    bed.kill_agent().await;
    bed.start_agent().await;
    bed.until("ready").await;
    let key = admin_key(&bed).await;
    let browser = signed_in(&bed, &key).await;
    browser.until_text("online", "1").await;
    browser.until_contains("worker-models", "tiny").await;
    browser.until_contains("worker-models", &long).await;
    browser.until_text("worker-carrier", "WebSocket").await;
    browser.until_text("worker-seen", "now").await;
    browser.until_text("worker-load", "0 of 1").await;
    browser.until_text("waiting", "0").await;

    let broken = Answer::begin().send_lines([LINE]).then(Step::Cut);
    ollama.script("/api/chat", broken);
    let failed = bed.submit("a secret question").await.unwrap();
    let answered = bed.answer(failed).await;
    assert_eq!(answered.ends[0]["state"], "failed");
    browser.until_text("dead-count", "1").await;
    browser
        .until_contains("dead-job", &failed.to_string()[24..])
        .await;
    browser.until_contains("dead-job", "engine_failed").await;
    browser
        .until_label("throughput", "0 jobs were answered and 1 failed")
        .await;
    browser.until_label("latency", "No job was answered").await;

    let (half, gate) = (Gate::default(), Gate::default());
    let slow = Answer::begin()
        .send_lines([LINE; 5])
        .then(Step::Wait(half.clone()))
        // The speed is computed only after this time.
        .then(Step::Pause(Duration::from_millis(300)))
        .send_lines([LINE; 4])
        .then(Step::Wait(gate.clone()))
        .send_lines([LAST])
        .then(Step::Finish);
    ollama.script("/api/chat", slow);
    let running = bed.submit("a secret question").await.unwrap();
    browser.until_text("running", "1").await;
    browser.until_text("running-tokens", "5").await;
    browser.until_contains("running-who", "laptop").await;
    let short = &running.to_string()[24..];
    browser.until_contains("running-job", short).await;
    browser.until_text("worker-load", "1 of 1").await;
    half.open();
    browser.until_text("running-tokens", "9").await;
    poll::until("its speed", async || {
        let said = browser.text("running-speed").await?;
        said.replace(',', "").parse::<f64>().is_ok().then_some(())
    })
    .await;
    let waits = bed.submit("a secret that waits").await.unwrap();
    browser.until_text("waiting", "1").await;
    browser
        .until_contains("waiting-job", &waits.to_string()[24..])
        .await;
    browser.until_text("priority-5", "51").await;
    browser.until_text("priority-1", "10").await;

    browser.shoot_all("dashboard").await;

    ollama.settle("/api/chat", Answer::lines([LINE, LAST]));
    gate.open();
    bed.answer(running).await;
    browser.until_text("answered", "2").await;
    browser
        .until_label("throughput", "2 jobs were answered and 1 failed")
        .await;
    browser.until_label("latency", "Latest: median").await;
    browser.tab_to("retry", "Retry job").await;
    browser.press(Key::Enter).await;
    browser.until_contains("dead-said", "Retried as job").await;
    browser.until_gone("dead-job").await;
    browser.until_text("dead-count", "0").await;
    browser.until_text("answered", "3").await;

    let shown = read_json(bed.get(&format!("/api/jobs/{failed}"))).await;
    assert!(shown["retried_as"].is_string(), "{shown}");
    let whole = browser.address().await;
    assert_eq!(whole.as_str(), bed.url("/"), "the address tells nothing");
    let page = browser.page().await;
    assert!(!page.contains("secret") && !page.contains(&key), "{page}");
    let complaints = browser.complaints().await;
    let refused = |text: &&String| text.contains("401");
    let (expected, others): (Vec<_>, Vec<_>) = complaints.iter().partition(refused);
    assert_eq!(others, [""; 0], "the page runs under its policy");
    assert!(expected.len() <= 2, "no key, and a wrong one: {expected:?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_makes_a_key_uses_it_and_revokes_it() {
    let bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let key = admin_key(&bed).await;
    let browser = signed_in(&bed, &key).await;
    browser
        .until_contains("no-dead", "There are no dead jobs")
        .await;
    browser.tab_to("new-key", "").await;
    browser.press(Key::Enter).await;
    poll::until("the dialog", async || browser.find("new-name").await).await;
    browser.press(Key::Enter).await;
    browser.until_contains("new-problem", "Enter a name").await;
    browser.keys("ci").await;
    browser.shoot("dashboard-new-key.png").await;
    browser.press(Key::Enter).await;
    poll::until("the new key", async || browser.find("secret").await).await;
    let made = browser.value("secret").await;
    browser.shoot("dashboard-made-key.png").await;

    let asks = async || {
        let request = bed.http.get(bed.url("/api/jobs")).bearer_auth(&made);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(asks().await, 200, "it opens doors");
    browser.tab_to("secret-done", "").await;
    browser.press(Key::Enter).await;
    browser.until_gone("secret").await;
    assert!(!browser.page().await.contains(&made), "it is shown once");
    // The focus has returned to the button.
    browser.press(Key::Enter).await;
    poll::until("the dialog", async || browser.find("new-name").await).await;
    browser.press(Key::Escape).await;
    browser.until_gone("new-name").await;

    browser.press(Key::Enter).await;
    poll::until("the dialog", async || browser.find("new-name").await).await;
    browser.keys("attic").await;
    browser.tab_to("scope-work", "").await;
    browser.keys(" ").await;
    browser.tab_to("new-serves", "").await;
    browser.keys("team, two words").await;
    browser.press(Key::Enter).await;
    browser
        .until_contains("new-problem", "“two words” is not the name")
        .await;
    browser.shoot_all("dashboard-serves").await;
    for _ in " two words".chars() {
        browser.press(Key::Backspace).await;
    }
    browser.keys("lab.2").await;
    browser.press(Key::Enter).await;
    poll::until("the new key", async || browser.find("secret").await).await;
    browser.tab_to("secret-done", "").await;
    browser.press(Key::Enter).await;
    browser.until_gone("secret").await;
    let keys = bed.http.get(bed.url("/api/admin/keys")).bearer_auth(&key);
    let keys = read_json(keys).await;
    let made = keys.as_array().unwrap().last().unwrap();
    assert_eq!(made["name"], "attic");
    assert_eq!(made["serve"], json!(["default", "lab.2", "team"]));
    poll::until("what it serves", async || {
        let page = browser.page().await;
        page.contains("serves lab.2, team").then_some(())
    })
    .await;

    browser.tab_to("revoke", "Revoke the key ci").await;
    browser.press(Key::Enter).await;
    poll::until("the question", async || browser.find("revoke-yes").await).await;
    browser.shoot("dashboard-revoke.png").await;
    browser.press(Key::Escape).await;
    browser.until_gone("revoke-yes").await;
    assert_eq!(asks().await, 200, "nothing was confirmed");

    // The focus has returned to the button.
    browser.press(Key::Enter).await;
    poll::until("the question", async || browser.find("revoke-yes").await).await;
    browser.tab_to("revoke-yes", "").await;
    browser.press(Key::Enter).await;
    browser
        .until_contains("keys-said", "The key ci was revoked")
        .await;
    assert_eq!(asks().await, 401, "it opens none any more");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_waits_for_its_relay_and_ends_with_its_key() {
    let mut bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let key = admin_key(&bed).await;
    let browser = signed_in(&bed, &key).await;
    bed.kill_relay().await;
    browser.until_text("link", "Connection lost").await;
    browser.shoot("dashboard-lost.png").await;
    bed.start_relay().await;
    browser.until_text("link", "Live").await;

    let mut revoke = bed.hearth(&["key", "revoke", "--store", &store(&bed.home), "operator"]);
    revoke.kill_on_drop(true);
    assert!(finish(revoke).await.status.success());
    poll::until("the field for the key", async || browser.find("key").await).await;
    browser.until_contains("problem", "no longer valid").await;
    browser.close().await;
}
