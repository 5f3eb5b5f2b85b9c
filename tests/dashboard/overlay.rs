//! The overlay as the browser source of streaming software.

use hearth_tests::{
    process::finish,
    scripted_ollama::{Answer, Gate, Step},
    test_bed::TestBed,
};
use proto::status::CommandArgs;
use status::{HubAddress, request};

use crate::{
    LAST, LINE,
    browser::{Browser, Look},
    poll,
};

/// The position of the pill, and the background.
const PLACE: &str =
    "const pill = document.querySelector('[data-testid=pill]').getBoundingClientRect();
    return [pill.left, pill.top, pill.width, getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.documentElement).backgroundColor];";

const CHANGING: &str = "return document.querySelector('[data-testid=pill]').getAnimations().length";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_source_follows_the_agent_under_its_policy_and_only_reads() {
    let (mut bed, ollama) = TestBed::scripted().await;
    let agent = bed.agent.as_mut().unwrap();
    let at = format!("http://{}", agent.says("local HTTP on http://").await);
    let browser = Browser::start().await;
    browser.look(Look::Light, 640).await;
    // Discards the requests of the browser's start page.
    browser.requests().await;
    browser
        .open(&format!("{at}/overlay?corner=top-left&scale=2"))
        .await;
    browser.until_text("state", "Ready").await;
    let place = browser.looked_up(PLACE).await;
    let number = |at: usize| place[at].as_f64().unwrap();
    assert!(number(0) < 40.0 && number(1) < 40.0, "{place}");
    assert!(
        (540.0..640.0).contains(&number(2)),
        "twice its size: {place}"
    );
    let clear = "rgba(0, 0, 0, 0)";
    assert_eq!((&place[3], &place[4]), (&clear.into(), &clear.into()));

    let gate = Gate::default();
    let slow = Answer::begin()
        .send_lines([LINE; 5])
        .then(Step::Wait(gate.clone()))
        .send_lines([LAST])
        .then(Step::Finish);
    ollama.script("/api/chat", slow);
    let job = bed.submit("a secret question").await.unwrap();
    browser.until_text("state", "Working for laptop").await;
    browser.until_text("model", "tiny").await;
    for (look, under, name) in [
        (Look::Light, [0xe8, 0xee, 0xf4], "light"),
        (Look::Dark, [0x15, 0x18, 0x20], "dark"),
    ] {
        browser.look(look, 640).await;
        browser.lay_under(under).await;
        poll::until("the end of the change of colours", async || {
            (browser.looked_up(CHANGING).await == 0).then_some(())
        })
        .await;
        browser.shoot(&format!("overlay-source-{name}.png")).await;
    }
    gate.open();
    bed.answer(job).await;
    browser.until_text("state", "Ready").await;

    assert!(finish(bed.hearth(&["pause"])).await.status.success());
    browser.until_text("state", "Paused").await;
    let hub = HubAddress::find(&bed.home.path().join("data/hearth")).unwrap();
    let hide = request(&hub, "hide_overlay", CommandArgs::default()).await;
    hide.unwrap();
    browser.until_gone("pill").await;
    let show = request(&hub, "show_overlay", CommandArgs::default()).await;
    show.unwrap();
    poll::until("the pill", async || browser.find("pill").await).await;

    assert!(!browser.page().await.contains("secret"));
    assert_eq!(browser.complaints().await, [""; 0], "under its policy");
    let asked = browser.requests().await;
    let is_read = |(method, url): &(String, String)| method == "GET" && url.starts_with(&at);
    assert!(asked.iter().all(is_read), "{asked:?}");
    let of = |path: &str| {
        asked
            .iter()
            .any(|(_, url)| url.starts_with(&format!("{at}{path}")))
    };
    assert!(of("/overlay?") && of("/status/stream"), "{asked:?}");
    bed.kill_agent().await;
    browser.until_text("state", "Agent not reachable").await;
    browser.close().await;
}
