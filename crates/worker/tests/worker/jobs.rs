//! Tests of one job, over any carrier.

use std::time::Duration;

use proto::{
    End, ErrorCode, ModelName, Timestamp, limits,
    worker::{LeaseHead, RelayMessage, Retry, WorkerMessage},
};
use tokio::time::timeout;

use super::{
    BODY, DONE, Scene, bounded,
    relay::{Heard, Link, head, token},
    scene, scene_with,
};

pub(crate) async fn nack(link: &mut Link) -> (Retry, ErrorCode) {
    match link.hear_of_job().await {
        Heard::Message(WorkerMessage::Nack { retry, code, .. }) => (retry, code),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn end(link: &mut Link) -> (u64, End) {
    match link.hear_of_job().await {
        Heard::Message(WorkerMessage::End { lines, end, .. }) => (lines, end),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn ready() -> (Scene, Link) {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    (scene, link)
}

#[tokio::test]
async fn a_job_goes_to_the_engine_byte_for_byte_and_its_lines_come_back_numbered() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    assert_eq!(asked.body.0, BODY);
    asked.say("one").await;
    assert_eq!(link.line().await, (1, "one".into()));
    asked.say(DONE).await;
    assert_eq!(link.line().await, (2, DONE.into()));
    drop(asked);
    assert_eq!(end(&mut link).await, (2, End::Completed));
}

#[tokio::test]
async fn a_long_request_and_a_long_line_travel_in_parts() {
    let (mut scene, mut link) = ready().await;
    let long = "x".repeat(600 * 1024);
    let body = format!(r#"{{"model":"tiny","prompt":"{long}"}}"#);
    link.lease(token(1, 1), &body).await;
    let asked = scene.asked().await;
    assert_eq!(asked.body.0, body);
    asked.say(&long).await;
    assert_eq!(link.line().await, (1, long));
}

#[tokio::test]
async fn a_line_that_no_relay_takes_ends_its_job_and_not_the_link() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say(&"x".repeat(limits::LINE_MAX)).await;
    assert_eq!(link.line().await.1.len(), limits::LINE_MAX);
    link.say(&RelayMessage::Stored {
        token: token(1, 1),
        n: 1,
    })
    .await;
    asked.say(&"x".repeat(limits::LINE_MAX + 1)).await;
    let (lines, End::Failed { error }) = end(&mut link).await else {
        panic!("it must fail");
    };
    assert_eq!((lines, error.code), (1, ErrorCode::TooLarge));
    bounded(asked.until_dropped()).await;
}

#[tokio::test]
async fn several_jobs_run_at_once_and_one_more_than_the_slots_is_given_back() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    link.lease(token(2, 1), BODY).await;
    let (first, second) = (scene.asked().await, scene.asked().await);
    second.say("b").await;
    assert_eq!(link.line().await, (1, "b".into()));
    first.say("a").await;
    assert_eq!(link.line().await, (1, "a".into()));
    link.lease(token(3, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));
}

#[tokio::test]
async fn a_few_loads_run_beside_the_slots_and_nothing_else_does() {
    let (mut scene, mut link) = ready().await;
    let load = r#"{"model":"tiny:latest","messages":[]}"#;
    link.lease(token(1, 1), BODY).await;
    link.lease(token(2, 1), BODY).await;
    let mut running = vec![scene.asked().await, scene.asked().await];
    for job in 3..7 {
        link.lease(token(job, 1), load).await;
        running.push(scene.asked().await);
    }
    link.lease(token(7, 1), load).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));
    link.lease(token(8, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));
}

#[tokio::test]
async fn a_slot_is_free_as_soon_as_the_end_is_said_and_the_end_is_said_again_until_confirmed() {
    let (mut scene, mut link) = ready().await;
    // Nothing is confirmed: each slot serves two jobs, and the running ones stay within the slots.
    for round in [[1, 2], [3, 4]] {
        for job in round {
            link.lease(token(job, 1), BODY).await;
        }
        for asked in [scene.asked().await, scene.asked().await] {
            asked.say(DONE).await;
            drop(asked);
            assert_eq!(link.line().await.1, DONE);
            assert_eq!(end(&mut link).await, (1, End::Completed));
        }
    }
    for job in [5, 6] {
        link.lease(token(job, 1), BODY).await;
    }
    let running = [scene.asked().await, scene.asked().await];
    link.lease(token(7, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));

    drop(link);
    let (mut link, hello) = scene.relay.greeted().await;
    let held: Vec<_> = (1..=7).map(|job| token(job, 1)).collect();
    assert_eq!(hello.held, held);
    let resume = RelayMessage::Resume {
        token: token(3, 1),
        stored: 0,
    };
    link.say(&resume).await;
    assert_eq!(link.line().await, (1, DONE.into()));
    assert_eq!(end(&mut link).await, (1, End::Completed));
    drop(running);
}

#[tokio::test]
async fn no_more_is_taken_than_may_wait_for_its_confirmation() {
    let (mut scene, mut link) = ready().await;
    let held = u8::try_from(limits::HELD_MAX).unwrap();
    for job in 1..=held {
        link.lease(token(job, 1), BODY).await;
        scene.asked().await.say(DONE).await;
        link.line().await;
        assert_eq!(end(&mut link).await, (1, End::Completed));
    }
    link.lease(token(held + 1, 1), BODY).await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::NoWorker));
    for job in 1..=3 {
        link.say(&closed(job)).await;
    }
    link.until_capacity(2).await;
}

#[tokio::test]
async fn no_more_is_taken_while_long_answers_wait_for_their_confirmation() {
    let (mut scene, mut link) = ready().await;
    let line = "x".repeat(limits::UNACKED_MAX);
    for job in 1..=5 {
        link.lease(token(job, 1), BODY).await;
        scene.asked().await.say(&line).await;
        link.line().await;
        assert_eq!(end(&mut link).await, (1, End::Completed));
    }
    // A capacity of 0 was sent in between; otherwise it would not be sent again.
    link.say(&closed(1)).await;
    link.until_capacity(2).await;
}

#[tokio::test]
async fn a_job_withdrawn_before_its_request_has_arrived_is_given_back_at_once() {
    let (_scene, mut link) = ready().await;
    link.say(&RelayMessage::Lease(head(token(1, 1), 9))).await;
    link.say(&RelayMessage::Cancel { token: token(1, 1) }).await;
    assert_eq!(nack(&mut link).await, (Retry::Never, ErrorCode::Cancelled));
}

#[tokio::test]
async fn a_withdrawn_job_stops_the_engine_at_once_and_is_given_back_for_good() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say("one").await;
    link.line().await;
    link.say(&RelayMessage::Cancel { token: token(1, 1) }).await;
    bounded(asked.until_dropped()).await;
    assert_eq!(nack(&mut link).await, (Retry::Never, ErrorCode::Cancelled));
}

#[tokio::test]
async fn a_lost_lease_stops_the_engine_and_nothing_more_is_said_of_it() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say("one").await;
    link.line().await;
    let stale = RelayMessage::Closed {
        token: token(1, 1),
        code: Some(ErrorCode::StaleLease),
    };
    link.say(&stale).await;
    bounded(asked.until_dropped()).await;
    link.lease(token(2, 1), BODY).await;
    scene.asked().await.say("other").await;
    assert_eq!(link.line().await, (1, "other".into()));
}

#[tokio::test]
async fn a_new_lease_of_the_same_job_replaces_the_old_one() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let old = scene.asked().await;
    link.lease(token(1, 2), BODY).await;
    bounded(old.until_dropped()).await;
    scene.asked().await.say("new").await;
    match link.hear_of_job().await {
        Heard::Line(lease, 1, line) => assert_eq!((lease, line.as_str()), (token(1, 2), "new")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn nothing_is_asked_of_the_engine_for_a_model_it_has_not_or_another_than_was_leased() {
    let (mut scene, mut link) = ready().await;
    let unknown = LeaseHead {
        model: ModelName::new("other").unwrap(),
        ..head(token(1, 1), 2)
    };
    link.say(&RelayMessage::Lease(unknown)).await;
    link.body(token(1, 1), "{}").await;
    let (retry, code) = nack(&mut link).await;
    assert!(matches!(retry, Retry::AfterMs(_)), "{retry:?}");
    assert_eq!(code, ErrorCode::UnknownModel);
    link.say(&closed(1)).await;
    // Engines ignore the case of names.
    for (job, body) in [
        (2, r#"{"model":"tiny","model":"other"}"#),
        (3, r#"{"model":"tiny","MODEL":"other"}"#),
    ] {
        link.lease(token(job, 1), body).await;
        assert_eq!(nack(&mut link).await, (Retry::Never, ErrorCode::BadRequest));
        link.say(&closed(job)).await;
    }
    assert!(scene.asked.try_recv().is_err());
}

/// A worker whose clock is at 1 s after the epoch, with one leased job.
async fn with_deadline(deadline: i64, remaining_ms: Option<u64>) -> (Scene, Link) {
    let mut scene = scene_with(|settings| {
        settings.tuning.clock = hearth_worker::Clock::new(|| Timestamp(1_000));
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    let lease = LeaseHead {
        deadline: Some(Timestamp(deadline)),
        remaining_ms,
        ..head(token(1, 1), BODY.len())
    };
    link.until_capacity(2).await;
    link.say(&RelayMessage::Lease(lease)).await;
    link.body(token(1, 1), BODY).await;
    (scene, link)
}

#[tokio::test]
async fn a_job_whose_deadline_passes_is_stopped_and_the_relay_decides_what_becomes_of_it() {
    // By the deadline, by the remaining time, and by the remaining time where the clocks disagree.
    for (deadline, remaining) in [
        (1_050, None),
        (1_050, Some(50)),
        (500, Some(50)),
        (1 << 40, Some(50)),
    ] {
        let (mut scene, mut link) = with_deadline(deadline, remaining).await;
        let asked = scene.asked().await;
        bounded(asked.until_dropped()).await;
        assert_eq!(
            nack(&mut link).await,
            (Retry::AfterMs(1_000), ErrorCode::DeadlineExceeded)
        );
    }
}

#[tokio::test]
async fn a_clock_that_runs_ahead_fails_no_job() {
    for (deadline, remaining) in [
        (500, None),
        (1_000, None),
        (i64::MIN, None),
        (500, Some(60_000)),
    ] {
        let (mut scene, mut link) = with_deadline(deadline, remaining).await;
        let asked = scene.asked().await;
        let stopped = timeout(Duration::from_millis(50), asked.until_dropped());
        assert!(stopped.await.is_err(), "it was stopped for {deadline}");
        asked.say(DONE).await;
        drop(asked);
        assert_eq!(link.line().await, (1, DONE.into()));
        assert_eq!(end(&mut link).await, (1, End::Completed));
    }
}

#[tokio::test]
async fn the_engine_is_not_read_further_than_the_relay_keeps_up() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    let line = "x".repeat(1024 * 1024);
    // Four fit into the outbox, one is being added, and one is in the channel.
    for _ in 0..6 {
        bounded(asked.say(&line)).await;
    }
    for n in 1..=4 {
        assert_eq!(link.line().await.0, n);
    }
    assert!(asked.lines.try_send(Ok("more".into())).is_err());
    let stored = RelayMessage::Stored {
        token: token(1, 1),
        n: 4,
    };
    link.say(&stored).await;
    bounded(asked.say(&line)).await;
    assert_eq!(link.line().await.0, 5);
}

#[tokio::test]
async fn a_silent_lease_is_renewed() {
    let mut scene = scene_with(|settings| {
        settings.tuning.heartbeat = Duration::from_millis(20);
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let _asked = scene.asked().await;
    for _ in 0..2 {
        match link.hear().await {
            Heard::Message(WorkerMessage::Extend { tokens }) => assert_eq!(tokens, [token(1, 1)]),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_job_whose_task_panics_is_given_back() {
    let (mut scene, mut link) = ready().await;
    link.lease(token(1, 1), &format!("{BODY} panic")).await;
    let (retry, code) = nack(&mut link).await;
    assert!(matches!(retry, Retry::AfterMs(_)), "{retry:?}");
    assert_eq!(code, ErrorCode::Internal);
    link.say(&closed(1)).await;
    link.lease(token(2, 1), BODY).await;
    scene.asked().await;
}

pub(crate) const fn closed(job: u8) -> RelayMessage {
    RelayMessage::Closed {
        token: token(job, 1),
        code: None,
    }
}
