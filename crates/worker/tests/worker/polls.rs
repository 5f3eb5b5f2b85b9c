//! Tests of the HTTP carrier, where WebSockets do not get through.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hearth_worker::Random;
use proto::{
    End, ErrorCode,
    status::{CarrierKind, HopState},
    worker::{EndRequest, LeaseAnswer, NackRequest, PollAnswer, PollRequest, PolledLease, Retry},
};
use tokio::time::timeout;

use super::{
    BODY, DONE, Scene, bounded,
    relay::{Post, Upgrade, head, token},
    scene_with,
};

async fn polling() -> Scene {
    polling_with(|_| {}).await
}

async fn polling_with(change: impl FnOnce(&mut hearth_worker::WorkerSettings)) -> Scene {
    let scene = scene_with(|settings| {
        settings.start_paused = false;
        change(settings);
    })
    .await;
    scene
        .relay
        .set_upgrade(Upgrade::Refuse(426, "no upgrade here", None));
    scene
}

fn lease(job: u8) -> PollAnswer {
    PollAnswer {
        leases: vec![PolledLease {
            head: head(token(job, 1), BODY.len()),
            body: BODY.into(),
        }],
        ..PollAnswer::default()
    }
}

fn answer(post: Post, answer: &impl serde::Serialize) {
    post.answer(200, serde_json::to_string(answer).unwrap());
}

#[tokio::test]
async fn at_a_relay_that_goes_down_what_runs_is_told_and_then_the_link_is_made_anew() {
    let mut scene = polling().await;
    answer(scene.relay.post().await, &lease(1));
    let engine = scene.asked().await;
    scene.relay.post_to("/poll", &mut Vec::new()).await.drain();
    engine.say("one").await;
    let mut later = Vec::new();
    let lines = scene.relay.post_to("/lines", &mut later).await;
    answer(lines, &stored(1));
    engine.say(DONE).await;
    let lines = scene.relay.post_to("/lines", &mut later).await;
    answer(lines, &stored(2));
    drop(engine);
    let end = scene.relay.post_to("/end", &mut later).await;
    assert!(later.is_empty(), "nothing was asked of it meanwhile");
    answer(end, &stored(2));
    let now = scene.until(|now| now.carrier.is_none()).await;
    assert_eq!(
        (now.relay.state, now.relay.problem.as_str()),
        (HopState::Unknown, "")
    );
    // The first poll of a link is not held.
    let poll: PollRequest = scene.relay.post().await.json();
    assert_eq!((poll.wait_ms, poll.free), (0, 2));
}

fn stored(stored: u64) -> LeaseAnswer {
    LeaseAnswer {
        stored,
        cancelled: false,
    }
}

#[tokio::test]
async fn a_refused_upgrade_falls_back_to_held_polls_that_carry_a_whole_job() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    let asked: PollRequest = poll.json();
    assert_eq!((asked.free, asked.wait_ms), (2, 0));
    assert!(asked.report.unwrap().engine_up);
    answer(poll, &lease(1));
    let now = scene.until(|now| now.carrier.is_some()).await;
    assert_eq!(now.carrier, Some(CarrierKind::LongPoll));

    let engine = scene.asked().await;
    let mut polls = Vec::new();
    engine.say("one").await;
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    let id = token(1, 1).job;
    assert_eq!(
        lines.path,
        format!("/api/worker/v1/jobs/{id}/1/lines?first=1")
    );
    assert_eq!(lines.body, "one\n");
    engine.say("two").await;
    engine.say(DONE).await;
    answer(lines, &stored(1));
    drop(engine);
    let mut next = 2;
    let end = loop {
        let post = scene.relay.post_to("/jobs/", &mut polls).await;
        if post.path.ends_with("/end") {
            break post;
        }
        assert!(
            post.path.ends_with(&format!("first={next}")),
            "{}",
            post.path
        );
        next += post.body.iter().filter(|byte| **byte == b'\n').count() as u64;
        answer(post, &stored(next - 1));
    };
    assert_eq!(
        end.json::<EndRequest>(),
        EndRequest {
            lines: 3,
            end: End::Completed
        }
    );
    let second: PollRequest = polls[0].json();
    assert_eq!((second.free, second.wait_ms), (1, 25_000));
    assert_eq!(second.held, [token(1, 1)]);
    assert!(second.report.is_none(), "the report had not changed");
}

#[tokio::test]
async fn an_idle_worker_is_shown_online_as_soon_as_its_first_poll_is_answered() {
    let mut scene = polling_with(|settings| settings.tuning.random = Random::new(|| 1.0)).await;
    let first = scene.relay.post().await;
    assert_eq!(first.json::<PollRequest>().wait_ms, 0);
    let shown = scene.handle.activity().borrow().relay.clone();
    assert_eq!(shown.state, HopState::Unknown, "{}", shown.problem);
    answer(first, &PollAnswer::default());
    let now = scene.until(|now| now.relay.state == HopState::Up).await;
    assert_eq!(now.carrier, Some(CarrierKind::LongPoll));
    // Nothing was held, but the next poll is not delayed as if a proxy had answered.
    let held = timeout(Duration::from_secs(5), scene.relay.post()).await;
    assert_eq!(held.unwrap().json::<PollRequest>().wait_ms, 20_000);
}

#[tokio::test]
async fn polls_are_held_for_20_to_25_s() {
    let draws = Arc::new(Mutex::new(0.0));
    let drawn = Arc::clone(&draws);
    let random = Random::new(move || *drawn.lock().unwrap());
    let mut scene = polling_with(|settings| settings.tuning.random = random).await;
    // A poll that brings something is followed by the next one at once.
    let wanted = PollAnswer {
        report_wanted: true,
        ..PollAnswer::default()
    };
    for (wait_ms, next) in [(0, 0.5), (22_500, 0.75), (21_250, 0.0), (25_000, 0.0)] {
        let poll = scene.relay.post().await;
        assert_eq!(poll.json::<PollRequest>().wait_ms, wait_ms);
        *draws.lock().unwrap() = next;
        answer(poll, &wanted);
    }
}

#[tokio::test]
async fn trying_a_better_way_is_not_shown_as_an_outage_whatever_a_proxy_says_to_it() {
    for status in [426, 502, 530] {
        let mut scene = polling_with(|settings| {
            settings.tuning.upgrade_again = Duration::from_millis(200);
        })
        .await;
        let poll = scene.relay.post().await;
        answer(poll, &PollAnswer::default());
        scene.until(|now| now.relay.state == HopState::Up).await;
        let upgrade = Upgrade::Refuse(status, "<html></html>", None);
        scene.relay.set_upgrade(upgrade);
        while scene.relay.upgrades.try_recv().is_ok() {}
        let after_upgrade = loop {
            let poll = scene.relay.post().await;
            if scene.relay.upgrades.try_recv().is_ok() {
                break poll;
            }
            answer(poll, &PollAnswer::default());
        };
        let shown = scene.handle.activity().borrow().clone();
        assert_eq!(shown.relay.state, HopState::Up, "{}", shown.relay.problem);
        assert_eq!(shown.carrier, Some(CarrierKind::LongPoll));
        after_upgrade.answer(503, "");
        scene.until(|now| now.relay.state == HopState::Down).await;
    }
}

#[tokio::test]
async fn a_machine_that_wakes_shows_the_relay_as_it_was_until_it_knows_better() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    answer(poll, &PollAnswer::default());
    let _held = scene.relay.post().await;
    scene.handle.wake();
    let again = scene.relay.post().await;
    assert_eq!(again.json::<PollRequest>().wait_ms, 0);
    let shown = scene.handle.activity().borrow().relay.clone();
    assert_eq!(shown.state, HopState::Up, "{}", shown.problem);
}

#[tokio::test]
async fn lines_that_are_taken_prove_the_link_too() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let engine = scene.asked().await;
    engine.say("one").await;
    let mut polls = Vec::new();
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    lines.answer(502, "bad gateway");
    scene.until(|now| now.relay.state == HopState::Down).await;
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    answer(lines, &stored(1));
    scene.until(|now| now.relay.state == HopState::Up).await;
}

#[tokio::test]
async fn a_proxy_that_breaks_websockets_is_gone_around() {
    let mut scene = scene_with(|_| {}).await;
    scene.relay.set_upgrade(Upgrade::Break);
    let first = scene.relay.link();
    // One link may have been established before the proxy began to break them.
    drop(timeout(Duration::from_millis(1), first).await);
    assert!(scene.relay.post().await.path.ends_with("/poll"));
}

#[tokio::test]
async fn a_job_moves_from_polls_to_a_websocket_without_a_loss() {
    let mut scene = polling_with(|settings| {
        settings.tuning.upgrade_again = Duration::from_millis(200);
    })
    .await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let engine = scene.asked().await;
    let mut polls = Vec::new();
    engine.say("one").await;
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    answer(lines, &stored(1));
    scene.relay.set_upgrade(Upgrade::Accept);
    engine.say("two").await;
    for poll in polls {
        answer(poll, &PollAnswer::default());
    }
    // Every poll that returns makes the worker check the time; the posts of lines stay pending.
    let mut link = loop {
        match scene.relay.link_or_post().await {
            Ok(link) => break link,
            Err(post) if post.path.ends_with("/poll") => answer(post, &PollAnswer::default()),
            Err(_) => {}
        }
    };
    assert_eq!(link.hello().await.held, [token(1, 1)]);
    link.welcome().await;
    link.say(&proto::worker::RelayMessage::Resume {
        token: token(1, 1),
        stored: 1,
    })
    .await;
    assert_eq!(link.line().await, (2, "two".into()));
    scene
        .until(|now| now.carrier == Some(CarrierKind::Websocket))
        .await;
}

#[tokio::test]
async fn a_poll_tells_of_withdrawn_jobs_and_lost_leases() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    let mut two = lease(1);
    two.leases.extend(lease(2).leases);
    answer(poll, &two);
    let (first, second) = (scene.asked().await, scene.asked().await);
    let poll = scene.relay.post().await;
    assert_eq!(poll.json::<PollRequest>().free, 0);
    answer(
        poll,
        &PollAnswer {
            cancelled: vec![token(1, 1)],
            gone: vec![token(2, 1)],
            ..PollAnswer::default()
        },
    );
    bounded(async { tokio::join!(first.until_dropped(), second.until_dropped()) }).await;
    let nack = scene.relay.post_to("/nack", &mut Vec::new()).await;
    let said: NackRequest = nack.json();
    assert_eq!(
        (said.retry, said.code),
        (Retry::Never, ErrorCode::Cancelled)
    );
    nack.answer(204, "");
}

#[tokio::test]
async fn a_stale_lease_in_answer_to_lines_stops_the_engine() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let engine = scene.asked().await;
    engine.say("one").await;
    let lines = scene.relay.post_to("/lines", &mut Vec::new()).await;
    lines.answer(409, r#"{"error":{"code":"stale_lease","message":"late"}}"#);
    bounded(engine.until_dropped()).await;
}

#[tokio::test]
async fn lines_that_were_not_taken_are_sent_again() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let engine = scene.asked().await;
    engine.say("one").await;
    let mut polls = Vec::new();
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    lines.answer(409, r#"{"error":{"code":"chunk_gap","message":"from 1"}}"#);
    let again = scene.relay.post_to("/lines", &mut polls).await;
    assert!(again.path.ends_with("first=1"), "{}", again.path);
    again.answer(502, "bad gateway");
    scene.until(|now| now.carrier.is_none()).await;
    let third = scene.relay.post_to("/lines", &mut polls).await;
    assert_eq!(third.body, "one\n");
}

#[tokio::test]
async fn a_slot_that_comes_free_is_offered_at_once() {
    let mut scene = polling_with(|settings| settings.slots = 1).await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let engine = scene.asked().await;
    let full = scene.relay.post().await;
    assert_eq!(full.json::<PollRequest>().free, 0);
    engine.say(DONE).await;
    drop(engine);
    // Neither its lines nor its end is confirmed yet.
    let mut unconfirmed = Vec::new();
    let poll = scene.relay.post_to("/poll", &mut unconfirmed).await;
    let poll: PollRequest = poll.json();
    assert_eq!((poll.free, poll.held), (1, vec![]));
}

#[tokio::test]
async fn pausing_gives_up_a_held_poll_that_asks_for_jobs() {
    let mut scene = polling().await;
    let first = scene.relay.post().await;
    answer(first, &PollAnswer::default());
    let held = scene.relay.post().await;
    assert_eq!(held.json::<PollRequest>().free, 2);
    scene.handle.set_paused(true);
    let paused: PollRequest = scene.relay.post().await.json();
    assert_eq!((paused.free, paused.wait_ms), (0, 25_000));
    answer(held, &lease(1));
    scene.handle.set_paused(false);
    assert_eq!(scene.relay.post().await.json::<PollRequest>().free, 2);
    assert!(scene.asked.try_recv().is_err());
}

#[tokio::test]
async fn pausing_waits_for_a_poll_that_is_not_held() {
    let mut scene = polling().await;
    let first = scene.relay.post().await;
    scene.handle.set_paused(true);
    let quiet = timeout(Duration::from_millis(40), scene.relay.post());
    assert!(quiet.await.is_err(), "a job may be on its way already");
    answer(first, &lease(1));
    let nack = scene.relay.post_to("/nack", &mut Vec::new()).await;
    assert_eq!(nack.json::<NackRequest>().retry, Retry::Now);
}

#[tokio::test]
async fn a_relay_that_forgot_the_worker_is_told_the_report_again() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    let wanted = PollAnswer {
        report_wanted: true,
        ..PollAnswer::default()
    };
    answer(poll, &wanted);
    assert!(
        scene
            .relay
            .post()
            .await
            .json::<PollRequest>()
            .report
            .is_some()
    );
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_not_taken_for_a_relay() {
    let mut scene = polling().await;
    let poll = scene.relay.post().await;
    poll.answer(200, "<html>Sign in to the network</html>");
    scene
        .until(|now| now.relay.problem.contains("no Hearth relay"))
        .await;
}

#[tokio::test]
async fn a_proxy_that_cuts_held_requests_gets_plain_polls() {
    let mut scene = polling_with(|settings| {
        settings.tuning.poll_hold = Duration::from_millis(200);
    })
    .await;
    let poll = scene.relay.post().await;
    answer(poll, &lease(1));
    let _engine = scene.asked().await;
    let held = scene.relay.post().await;
    assert_eq!(held.json::<PollRequest>().wait_ms, 200);
    let quiet = timeout(Duration::from_millis(40), scene.relay.post());
    assert!(quiet.await.is_err(), "one poll at a time");
    held.answer(504, "gateway timeout");
    let plain = scene.relay.post().await;
    assert_eq!(plain.json::<PollRequest>().wait_ms, 0);
    answer(plain, &PollAnswer::default());
    scene
        .until(|now| now.carrier == Some(CarrierKind::Poll))
        .await;
}

#[tokio::test]
async fn a_relay_that_lost_lines_it_once_confirmed_gets_its_job_back() {
    let mut scene = polling().await;
    answer(scene.relay.post().await, &lease(1));
    let engine = scene.asked().await;
    engine.say("one").await;
    let mut polls = Vec::new();
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    answer(lines, &stored(1));
    engine.say("two").await;
    let gap = r#"{"error":{"code":"chunk_gap","message":"line 1 comes next"}}"#;
    for _ in 0..2 {
        let lines = scene.relay.post_to("/jobs/", &mut polls).await;
        assert!(lines.path.ends_with("/lines?first=2"), "{}", lines.path);
        lines.answer(409, gap);
    }
    let nack = scene.relay.post_to("/jobs/", &mut polls).await;
    assert!(nack.path.ends_with("/nack"), "{}", nack.path);
    let said: NackRequest = nack.json();
    assert_eq!((said.retry, said.code), (Retry::Now, ErrorCode::Internal));
    answer(nack, &stored(0));
}

#[tokio::test]
async fn a_relay_that_lost_all_of_a_job_but_its_lease_gets_it_back_though_it_had_ended() {
    let mut scene = polling().await;
    answer(scene.relay.post().await, &lease(1));
    let engine = scene.asked().await;
    engine.say(DONE).await;
    let mut polls = Vec::new();
    let lines = scene.relay.post_to("/lines", &mut polls).await;
    answer(lines, &stored(1));
    drop(engine);
    let gap = r#"{"error":{"code":"chunk_gap","message":"line 1 comes next"}}"#;
    for _ in 0..2 {
        let end = scene.relay.post_to("/jobs/", &mut polls).await;
        assert!(end.path.ends_with("/end"), "{}", end.path);
        end.answer(409, gap);
    }
    let nack = scene.relay.post_to("/jobs/", &mut polls).await;
    assert!(nack.path.ends_with("/nack"), "{}", nack.path);
    let said: NackRequest = nack.json();
    assert_eq!((said.retry, said.code), (Retry::Now, ErrorCode::Internal));
    answer(nack, &stored(0));
}

#[tokio::test]
async fn lines_that_were_lost_on_their_way_are_sent_again_each_time() {
    let mut scene = polling().await;
    answer(scene.relay.post().await, &lease(1));
    let engine = scene.asked().await;
    let mut polls = Vec::new();
    let gap = r#"{"error":{"code":"chunk_gap","message":"send it again"}}"#;
    for n in 1..=3 {
        engine.say("word").await;
        let path = format!("/lines?first={n}");
        let lines = scene.relay.post_to("/jobs/", &mut polls).await;
        assert!(lines.path.ends_with(&path), "{}", lines.path);
        lines.answer(409, gap);
        let lines = scene.relay.post_to("/jobs/", &mut polls).await;
        assert!(lines.path.ends_with(&path), "{}", lines.path);
        answer(lines, &stored(n));
    }
}
