//! The status in `hearth.status.v1`: a snapshot, then deltas.

use std::time::{Duration, Instant};

use hearth_status::{Limits, Snapshot};
use proptest::{
    prelude::*,
    strategy::{Strategy, ValueTree as _},
    test_runner::TestRunner,
};
use proto::{
    JobId, ModelName, Op, Timestamp,
    status::{LiveJob, Phase, Status},
};
use serde_json::json;

use crate::{
    peer::Peer,
    support::{PATIENCE, TestHub, narrow},
};

fn job(tokens: u64) -> LiveJob {
    LiveJob {
        id: JobId([1; 16]),
        who: "laptop".into(),
        model: ModelName::new("m:1b").unwrap(),
        op: Op::Chat,
        started_at: Timestamp(5),
        tokens,
        tokens_per_second: 1.5,
    }
}

#[tokio::test]
async fn a_snapshot_comes_first_and_then_only_what_changed() {
    let hub = TestHub::start().await;
    let mut peer = Peer::follower(&hub, &["status"]).await;
    assert!(
        peer.data.get("seq").is_none(),
        "it stands beside the fields"
    );
    hub.hub.update(|status| status.status = Phase::Ready);
    let delta = peer.follow().await;
    let expected = json!({ "type": "delta", "from": 0, "seq": 1, "data": { "status": "ready" } });
    assert_eq!(delta, expected);
    hub.hub.update(|status| status.text = "x".into());
    assert_eq!(peer.follow().await["from"], 1);
    assert_eq!(peer.status(), *hub.hub.latest().status());
}

#[tokio::test]
async fn figures_of_each_token_are_for_whoever_asked_for_them() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.jobs = vec![job(1)]);
    let mut calm = Peer::follower(&hub, &["status"]).await;
    let mut eager = Peer::follower(&hub, &["status", "progress"]).await;
    assert_eq!(calm.data["jobs"][0]["who"], "laptop");
    assert!(calm.data["jobs"][0].get("tokens").is_none());
    assert_eq!(eager.data["jobs"][0]["tokens"], 1);

    hub.hub.update(|status| status.jobs = vec![job(2)]);
    eager.until(|status| status.jobs[0].tokens == 2).await;
    hub.hub.update(|status| status.jobs.clear());
    let delta = calm.follow().await;
    assert_eq!(
        delta["data"],
        json!({ "jobs": [] }),
        "the token between was not told"
    );
    assert_eq!((&delta["from"], &delta["seq"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn subscriptions_can_be_changed_and_those_not_known_are_left_out() {
    let hub = TestHub::start().await;
    hub.hub.update(|status| status.jobs = vec![job(1)]);
    let mut peer = Peer::follower(&hub, &["status"]).await;
    peer.say(&json!({ "type": "reidentify", "subscriptions": ["progress", "status", "weather"] }))
        .await;
    let identified = peer.said().await;
    assert_eq!(identified["subscriptions"], json!(["status", "progress"]));
    assert_eq!(peer.follow().await["cause"], "resubscribed");
    assert_eq!(peer.status(), *hub.hub.latest().status());

    peer.say(&json!({ "type": "reidentify", "subscriptions": [] }))
        .await;
    assert_eq!(peer.said().await["subscriptions"], json!([]));
    hub.hub.update(|status| status.text = "unheard".into());
    assert_eq!(peer.request("ping", &json!({})).await["result"]["seq"], 2);
}

#[tokio::test]
async fn a_reader_that_lagged_is_sent_a_snapshot_that_says_so_and_then_deltas_again() {
    let limits = Limits {
        pace: Duration::from_millis(1),
        behind: Duration::from_millis(100),
        stall: PATIENCE,
        ..Limits::default()
    };
    let hub = TestHub::with(limits, 0).await;
    let mut slow = Peer::over(narrow(hub.addr).await).await;
    slow.say(&json!({ "type": "identify", "version": 1 })).await;
    slow.said().await;
    slow.follow().await;
    let mut quick = Peer::follower(&hub, &["status"]).await;
    // 12 MB fill every buffer between the hub and the slow reader; the other follows each change.
    let (mut n, mut full_at) = (0, Instant::now());
    while n < 200 || full_at.elapsed() < Duration::from_millis(200) {
        n += 1;
        if n == 200 {
            full_at = Instant::now();
        }
        let text = format!("{n} {}", "x".repeat(60_000));
        hub.hub.update(|status| status.text = text.clone());
        quick.until(|status| status.text == text).await;
    }
    let mut kinds = Vec::new();
    hub.hub.update(|status| status.text = "end".into());
    while slow.status().text != "end" {
        let message = slow.follow().await;
        kinds.push((message["type"].clone(), message["cause"].clone()));
    }
    let behind = (json!("snapshot"), json!("behind"));
    assert!(kinds.contains(&behind), "{kinds:?}");
    assert!(kinds.len() < n, "what came in between was left out");
    hub.hub.update(|status| status.text = "after".into());
    assert_eq!(slow.follow().await["type"], "delta");
    assert_eq!(slow.status(), *hub.hub.latest().status());
}

#[tokio::test]
async fn a_stopping_hub_shows_its_last_status_and_says_goodbye() {
    let hub = TestHub::start().await;
    let mut peer = Peer::follower(&hub, &["status"]).await;
    hub.hub.update(|status| status.status = Phase::Stopping);
    hub.stop().await;
    peer.until(|status| status.status == Phase::Stopping).await;
    assert_eq!(peer.closed().await, 1001);
}

/// One step of the agent; some steps change nothing.
#[derive(Debug, Clone)]
enum Step {
    Phase(bool),
    Text(u8),
    Jobs(u8, u64),
    Monitoring(bool),
    Read,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<bool>().prop_map(Step::Phase),
        (0..3_u8).prop_map(Step::Text),
        (0..3_u8, 0..3_u64).prop_map(|(jobs, tokens)| Step::Jobs(jobs, tokens)),
        any::<bool>().prop_map(Step::Monitoring),
        Just(Step::Read),
    ];
    prop::collection::vec(step, 1..40)
}

/// Changes that are undone between two messages are not sent, nor are their numbers.
fn without_seq(status: &Status) -> Status {
    Status {
        seq: 0,
        ..status.clone()
    }
}

fn shows(latest: &Snapshot) -> impl Fn(&Status) -> bool {
    let truth = without_seq(latest.status());
    move |status| without_seq(status) == truth
}

#[tokio::test]
async fn deltas_applied_to_the_snapshot_are_the_hubs_own_status_at_any_pace() {
    let mut runner = TestRunner::deterministic();
    for round in 0..24 {
        let limits = Limits {
            pace: Duration::from_millis([0, 1, 5][round % 3]),
            ..Limits::default()
        };
        let hub = TestHub::with(limits, 0).await;
        let mut eager = Peer::follower(&hub, &["status", "progress"]).await;
        let mut calm = Peer::follower(&hub, &["status"]).await;
        for step in steps().new_tree(&mut runner).unwrap().current() {
            hub.hub.update(|status| match step {
                Step::Phase(up) => status.status = if up { Phase::Ready } else { Phase::Error },
                Step::Text(n) => status.text = n.to_string(),
                Step::Jobs(jobs, tokens) => {
                    status.jobs = (0..jobs).map(|_| job(tokens)).collect();
                }
                Step::Monitoring(on) => status.monitoring = on,
                Step::Read => {}
            });
            if matches!(step, Step::Read) {
                eager.until(shows(&hub.hub.latest())).await;
            }
        }
        let latest = hub.hub.latest();
        eager.until(shows(&latest)).await;
        let mut truth = latest.status().clone();
        for job in &mut truth.jobs {
            (job.tokens, job.tokens_per_second) = (0, 0.0);
        }
        truth.seq = 0;
        calm.until(|status| without_seq(status) == truth).await;
        hub.stop().await;
    }
}
