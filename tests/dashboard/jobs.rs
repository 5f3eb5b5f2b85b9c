//! Jobs that are cancelled on the dashboard.

use fantoccini::key::Key;
use hearth_tests::{
    scripted_ollama::{Answer, Gate, Step},
    test_bed::{TestBed, create_key, read_json},
};
use proto::JobId;
use serde_json::{Value, json};

use crate::{LINE, admin_key, browser::Browser, poll, signed_in};

/// Number of waiting jobs that the page lists.
const LISTED: usize = 50;

/// The end of an id, by which the page names a job.
fn short(id: JobId) -> String {
    id.to_string()[24..].to_owned()
}

async fn state(bed: &TestBed, id: JobId) -> String {
    let job = read_json(bed.get(&format!("/api/jobs/{id}"))).await;
    job["state"].as_str().unwrap().to_owned()
}

/// Goes to the button of a job and opens its question.
async fn ask_to_cancel(browser: &Browser, button: &str, id: JobId) {
    let label = format!("Cancel job {}", short(id));
    browser.tab_to(button, &label).await;
    browser.press(Key::Enter).await;
    until_asked(browser).await;
}

async fn until_asked(browser: &Browser) {
    poll::until("the question", async || browser.find("cancel-yes").await).await;
}

async fn confirm(browser: &Browser) {
    browser.tab_to("cancel-yes", "").await;
    browser.press(Key::Enter).await;
    browser.until_gone("cancel-yes").await;
}

/// The section that has the focus.
async fn section(browser: &Browser) -> Value {
    let script = "return document.activeElement.getAttribute('aria-labelledby')";
    browser.looked_up(script).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cancels_a_running_and_a_waiting_job_by_keyboard() {
    let (bed, ollama) = TestBed::scripted().await;
    let gate = Gate::default();
    let stuck = Answer::begin()
        .send_lines([LINE; 3])
        .then(Step::Wait(gate.clone()));
    ollama.settle("/api/chat", stuck);
    let browser = signed_in(&bed, &admin_key(&bed).await).await;
    browser.until_contains("no-waiting", "No job is").await;

    let running = bed.submit("a secret question").await.unwrap();
    browser.until_text("running", "1").await;
    let mut waiting = Vec::new();
    for _ in 0..LISTED + 2 {
        waiting.push(bed.submit("a secret question").await.unwrap());
    }
    // Long texts must not make the page wider than its window.
    let long = "long-name-".repeat(6);
    let key = ["--name", &long, "--account", &long, "--scope", "enqueue"];
    let key = create_key(&bed.home, &key).await;
    let overdue = json!({ "op": "chat", "body": { "model": "tiny" }, "deadline_ms": 1 });
    let overdue = bed.http.post(bed.url("/api/jobs")).json(&overdue);
    let answer = overdue.bearer_auth(key).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    browser
        .until_contains("dead-job", "deadline_exceeded")
        .await;
    let newest = waiting[LISTED + 1];
    browser.until_text("waiting-more", "and 2 more").await;
    // The first row.
    browser.until_contains("waiting-job", &short(newest)).await;
    browser.shoot_all("dashboard-jobs").await;

    ask_to_cancel(&browser, "cancel-jobs", running).await;
    let page = browser.page().await;
    assert!(page.contains(&format!("<code>{running}</code>")), "{page}");
    assert!(!page.contains("secret"), "{page}");
    browser.shoot_all("dashboard-cancel").await;
    browser.press(Key::Escape).await;
    browser.until_gone("cancel-yes").await;
    assert_eq!(state(&bed, running).await, "leased", "nothing is confirmed");
    // The focus has returned to the button.
    browser.press(Key::Enter).await;
    until_asked(&browser).await;
    confirm(&browser).await;
    let said = format!("Job {} was cancelled.", short(running));
    browser.until_text("jobs-said", &said).await;
    assert_eq!(section(&browser).await, "jobs");
    let end = &bed.answer(running).await.ends[0];
    assert_eq!(end["state"], "cancelled");
    // The oldest one runs now.
    browser.until_text("waiting-more", "and 1 more").await;

    ask_to_cancel(&browser, "cancel-queue", newest).await;
    confirm(&browser).await;
    let said = format!("Job {} was cancelled.", short(newest));
    browser.until_text("queue-said", &said).await;
    assert_eq!(section(&browser).await, "queue");
    assert_eq!(state(&bed, newest).await, "cancelled");
    browser
        .until_contains("waiting-job", &short(waiting[LISTED]))
        .await;
    browser.until_gone("waiting-more").await;
    assert_eq!(browser.complaints().await.len(), 2, "no key, a wrong one");
    gate.open();
    browser.close().await;
}
