//! Tests of the owner's controls, of the displayed state, and of the engine's health.

use std::time::Duration;

use ::engine::EngineError;
use hearth_worker::Totals;
use proto::{
    ErrorCode, JobId,
    status::HopState,
    worker::{RelayMessage, Retry, WorkerMessage},
};

use super::{
    BODY, DONE, bounded,
    jobs::{closed, end, nack},
    relay::{Heard, token},
    scene, scene_with,
};

#[tokio::test]
async fn pausing_stops_leasing_at_once_and_running_jobs_finish() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    scene.handle.set_paused(true);
    assert!(scene.handle.activity().borrow().paused);
    link.until_capacity(0).await;
    link.lease(token(2, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));
    asked.say(DONE).await;
    link.line().await;
    drop(asked);
    end(&mut link).await;
    scene.handle.set_paused(false);
    link.until_capacity(2).await;
}

#[tokio::test]
async fn what_became_of_each_job_is_counted_once_the_relay_knows_it() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say(DONE).await;
    link.line().await;
    drop(asked);
    end(&mut link).await;
    assert_eq!(scene.handle.activity().borrow().totals, Totals::default());
    link.say(&closed(1)).await;

    link.lease(token(2, 1), BODY).await;
    scene.asked().await;
    assert!(scene.handle.cancel_job(JobId([2; 16])));
    nack(&mut link).await;
    link.say(&closed(2)).await;

    link.lease(token(3, 1), BODY).await;
    scene.asked().await;
    let token = token(3, 1);
    let code = Some(ErrorCode::StaleLease);
    link.say(&RelayMessage::Closed { token, code }).await;
    let counted = scene.until(|now| now.totals.given_back == 1).await;
    let totals = Totals {
        completed: 1,
        cancelled: 1,
        given_back: 1,
        tokens: 1,
        ..Totals::default()
    };
    assert_eq!(counted.totals, totals);
}

#[tokio::test]
async fn a_worker_that_starts_paused_never_offers_a_slot() {
    let mut scene = scene_with(|settings| settings.start_paused = true).await;
    assert!(scene.handle.activity().borrow().paused);
    let (mut link, _) = scene.relay.greeted().await;
    assert_eq!(link.capacity().await, 0);
}

#[tokio::test]
async fn the_owner_may_stop_one_job() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    assert!(!scene.handle.cancel_job(JobId([9; 16])));
    assert!(scene.handle.cancel_job(JobId([1; 16])));
    bounded(asked.until_dropped()).await;
    assert_eq!(nack(&mut link).await, (Retry::Never, ErrorCode::Cancelled));
    assert!(!scene.handle.cancel_job(JobId([1; 16])));
}

#[tokio::test]
async fn running_jobs_are_seen_with_who_asked_and_how_far_they_are() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    scene.until(|now| now.jobs.len() == 1).await;
    for _ in 0..3 {
        asked.say("word").await;
    }
    let now = scene
        .until(|now| now.jobs.iter().any(|job| job.tokens == 3))
        .await;
    assert_eq!(now.jobs[0].who, "laptop");
    assert_eq!(now.jobs[0].model.as_str(), "tiny");
    drop(asked);
    scene.until(|now| now.jobs.is_empty()).await;
}

#[tokio::test]
async fn nothing_changes_in_what_is_shown_while_nothing_happens() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    let mut activity = scene.until(|now| now.relay.state == HopState::Up).await;
    activity.paused = false;
    let mut shown = scene.handle.activity();
    shown.borrow_and_update();
    let change = tokio::time::timeout(Duration::from_millis(300), shown.changed());
    assert!(change.await.is_err(), "it changed at rest");
}

#[tokio::test]
async fn an_engine_that_is_down_is_reported_and_offers_no_slot_until_it_is_back() {
    let mut scene = scene().await;
    let (mut link, hello) = scene.relay.greeted().await;
    assert!(hello.report.engine_up);
    link.until_capacity(2).await;
    scene.engine.set_down(true);
    scene
        .engine
        .refuse(EngineError::Unavailable("refused".into()));
    link.lease(token(1, 1), BODY).await;
    link.until_capacity(0).await;
    let now = scene.until(|now| now.engine.state == HopState::Down).await;
    assert!(
        now.engine.problem.contains("refused"),
        "{}",
        now.engine.problem
    );
    scene.engine.set_down(false);
    link.until_capacity(2).await;
    scene.until(|now| now.engine.state == HopState::Up).await;
}

#[tokio::test]
async fn a_worker_without_an_engine_says_so_in_its_first_word() {
    let mut scene = scene_with(|_| {}).await;
    scene.engine.set_down(true);
    let (mut link, _) = scene.relay.greeted().await;
    drop(link);
    scene.handle.wake();
    (link, _) = scene.relay.greeted().await;
    link.until_capacity(0).await;
}

#[tokio::test]
async fn an_engine_that_fails_every_job_is_left_alone_for_a_while() {
    let mut scene = scene_with(|settings| {
        settings.tuning.breaker = (Duration::from_millis(100), Duration::from_millis(100));
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    for job in 1..=5 {
        scene.engine.refuse(EngineError::Broken("bad".into()));
        link.lease(token(job, 1), BODY).await;
        let (retry, _) = until_nack(&mut link).await;
        assert!(matches!(retry, Retry::AfterMs(_)), "{retry:?}");
        link.say(&closed(job)).await;
    }
    let now = scene.until(|now| now.engine.state == HopState::Down).await;
    assert!(
        now.engine.problem.contains("several jobs"),
        "{}",
        now.engine.problem
    );
    link.until_capacity(2).await;
    scene.until(|now| now.engine.state == HopState::Up).await;
}

async fn until_nack(link: &mut super::relay::Link) -> (Retry, ErrorCode) {
    nack(link).await
}

#[tokio::test]
async fn a_model_that_was_added_is_reported() {
    let mut scene = scene_with(|settings| {
        settings.tuning.probe = Duration::from_millis(20);
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    scene
        .engine
        .set_models(&[("tiny:latest", true), ("new:1b", false)]);
    loop {
        if let Heard::Message(WorkerMessage::Report { report }) = link.hear().await {
            assert_eq!(report.models.len(), 2);
            break;
        }
    }
}

#[tokio::test]
async fn a_model_that_a_job_loaded_is_reported_as_loaded() {
    let mut scene = scene().await;
    scene.engine.set_models(&[("tiny:latest", false)]);
    let (link, _) = scene.relay.greeted().await;
    drop(link);
    scene.handle.wake();
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say(DONE).await;
    scene.engine.set_models(&[("tiny:latest", true)]);
    drop(asked);
    loop {
        if let Heard::Message(WorkerMessage::Report { report }) = link.hear().await
            && report.models[0].loaded
        {
            break;
        }
    }
}

#[tokio::test]
async fn stopping_lets_running_jobs_finish_and_takes_no_more() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    scene.stop.cancel();
    link.until_capacity(0).await;
    link.lease(token(2, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::Draining));
    link.say(&closed(2)).await;
    asked.say(DONE).await;
    link.line().await;
    drop(asked);
    end(&mut link).await;
    link.say(&closed(1)).await;
    match link.hear_of_job().await {
        Heard::Closed(code) => assert_eq!(code, Some(1000)),
        other => panic!("{other:?}"),
    }
    bounded(scene.run).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_not_finished_in_time_is_given_back_at_the_end() {
    let mut scene = scene_with(|settings| settings.drain = Duration::from_millis(20)).await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    scene.stop.cancel();
    bounded(asked.until_dropped()).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::Draining));
    link.say(&closed(1)).await;
    bounded(scene.run).await.unwrap().unwrap();
}

#[tokio::test]
async fn stopping_without_a_relay_does_not_take_long() {
    let scene = scene_with(|settings| {
        settings.relay = "http://127.0.0.1:9".parse().unwrap();
    })
    .await;
    scene.until(|now| now.relay.state == HopState::Down).await;
    scene.stop.cancel();
    bounded(scene.run).await.unwrap().unwrap();
}
