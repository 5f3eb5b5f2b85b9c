//! A job with a desktop: a real relay, a scripted engine, and what the owner sees.

use hearth_tests::{
    process::binary,
    scripted_ollama::{Answer, Gate, ScriptedOllama, Step},
    test_bed::TestBed,
};
use proto::status::Phase;
use serde_json::Value;

use crate::{
    CORNER, DARK, LIGHT,
    app::{App, Look},
    pages::Browser,
    session::DesktopSession,
    tray::{Tray, Watcher},
};

const LINE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"half"},"done":false}"#;
const DONE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop"}"#;

/// Scripts an engine that writes a few lines and waits for the gate before its end.
fn halting(ollama: &ScriptedOllama) -> Gate {
    let gate = Gate::default();
    let rest = Answer::default().send_lines([DONE]).then(Step::Finish);
    let lines = std::iter::repeat_n(LINE, 40);
    let halt = Answer::begin()
        .send_lines(lines)
        .then(Step::Wait(gate.clone()))
        .then_all(rest);
    ollama.script("/api/chat", halt);
    gate
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_shown_and_pausing_lets_it_finish_and_leases_no_other() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let session = DesktopSession::new().await;
    let _wallpaper = session.screen.wallpaper(DARK, LIGHT);
    let watcher = Watcher::new(&session).await;
    let browser = Browser::serving(&session, &bed, Look::Dark).await;
    let app = browser.app(&session).await;
    let (tray, hub) = (Tray::of(&watcher).await, app.hub());
    hub.until(|status| status.status == Phase::Ready).await;
    browser.overlay().await;
    browser.until_text("state", "Ready").await;

    let (quit, toggle) = (tray.id("Quit").await, tray.id("Pause").await);
    let gate = halting(&ollama);
    let running = bed.submit("x").await.unwrap();
    hub.until(|status| status.jobs.first().is_some_and(|job| job.tokens == 40))
        .await;
    tray.until_item("laptop · tiny").await;
    assert_eq!(
        (tray.id("Quit").await, tray.id("Pause").await),
        (quit, toggle),
        "a menu that is open stays as it is when a job comes"
    );
    browser.until_text("state", "Working for laptop").await;
    browser.until_text("model", "tiny").await;
    session.screen.until_drawn(CORNER).await;
    session.screen.shoot("overlay-working-dark.png").await;
    tray.click("Open Hearth").await;
    let window = session.screen.window("Hearth").await;
    session.screen.until_drawn(window.place()).await;
    session.screen.shoot("window-working-dark.png").await;
    window.close();
    browser.overlay().await;

    tray.click("Pause").await;
    hub.until(|status| !status.monitoring).await;
    let waiting = bed.submit("y").await.unwrap();
    gate.open();
    let answered = bed.answer(running).await;
    assert_eq!(
        answered.ends[0]["state"], "completed",
        "a running job finishes: {answered:?}"
    );
    hub.until(|status| status.jobs.is_empty() && status.status == Phase::Paused)
        .await;
    browser.until_text("state", "Paused").await;
    let said = [
        "Paused",
        "Resume",
        "Show overlay",
        "Start at login",
        "Open Hearth",
        "Quit",
    ];
    tray.until_labels(&said).await;
    assert_eq!(tray.id("Quit").await, quit, "nor when it goes");
    let path = format!("/api/jobs/{waiting}");
    let view: Value = bed.get(&path).send().await.unwrap().json().await.unwrap();
    assert_eq!(view["state"], "queued", "nothing is leased while paused");
    assert_eq!(ollama.requests_for("/api/chat").len(), 1);

    tray.click("Resume").await;
    let answered = bed.answer(waiting).await;
    assert_eq!(answered.ends[0]["state"], "completed", "{answered:?}");
    app.quit_over(&tray).await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_starts_at_login_has_the_key_that_only_stood_in_the_environment() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let bed = TestBed::relay_only(&format!("ollama:{}", ollama.url())).await;
    let session = DesktopSession::new().await;
    let watcher = Watcher::new(&session).await;
    let mut first = session.command(binary("hearth-desktop"));
    first.args(bed.options()).env("HEARTH_KEY", &bed.worker);
    let app = App::begin(&session, first).await;
    let tray = Tray::of(&watcher).await;
    tray.click("Start at login").await;
    tray.until_mark("Start at login", true).await;
    app.quit_over(&tray).await;

    let entry = (session.home.path()).join("config/autostart/hearth-desktop.desktop");
    let entry = std::fs::read_to_string(entry).unwrap();
    assert!(!entry.contains(&bed.worker), "anybody may read an entry");
    let exec = (entry.lines())
        .find_map(|line| line.strip_prefix("Exec="))
        .unwrap();
    let mut words = exec.split(' ');
    let mut login = session.command(words.next().unwrap());
    login
        .args(words)
        .args(["--status-port", "0", "--http-port", "0"]);
    let app = App::begin(&session, login).await;
    app.hub()
        .until(|status| status.status == Phase::Ready)
        .await;
    app.quit().await;
}
