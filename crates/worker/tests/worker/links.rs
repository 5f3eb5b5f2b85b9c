//! Tests of the link, and of jobs during a broken link.

use std::time::Duration;

use proto::{
    End, ErrorCode,
    status::{CarrierKind, HopState},
    worker::{CLOSE_PROTOCOL, CLOSE_UNAUTHORIZED, PollAnswer, RelayMessage, Retry, WorkerMessage},
};

use super::{
    BODY, DONE, bounded,
    jobs::{closed, end, nack},
    relay::{Heard, Upgrade, head, token},
    scene, scene_with,
};

#[tokio::test]
async fn hello_carries_the_engines_report_and_welcome_proves_the_link() {
    let mut scene = scene().await;
    let mut link = scene.relay.link().await;
    let hello = link.hello().await;
    assert!(hello.report.engine_up && hello.held.is_empty());
    assert_eq!(hello.report.models[0].name.as_str(), "tiny:latest");
    assert_eq!(
        scene.handle.activity().borrow().relay.state,
        HopState::Unknown
    );
    link.welcome().await;
    let activity = scene.until(|now| now.relay.state == HopState::Up).await;
    assert_eq!(activity.carrier, Some(CarrierKind::Websocket));
    let headers = scene.relay.upgrade().await;
    assert_eq!(headers["authorization"], "Bearer key-1");
}

#[tokio::test]
async fn a_job_outlives_its_link_and_only_what_was_not_stored_is_sent_again() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    for line in ["one", "two"] {
        asked.say(line).await;
        link.line().await;
    }
    drop(link);
    asked.say("three").await;
    asked.say(DONE).await;

    let (mut link, hello) = scene.relay.greeted().await;
    assert_eq!(hello.held, [token(1, 1)]);
    link.say(&RelayMessage::Resume {
        token: token(1, 1),
        stored: 1,
    })
    .await;
    drop(asked);
    for (n, line) in [(2, "two"), (3, "three"), (4, DONE)] {
        assert_eq!(link.line().await, (n, line.into()));
    }
    assert_eq!(end(&mut link).await, (4, End::Completed));
    link.say(&closed(1)).await;
    drop(link);
    let (_, hello) = scene.relay.greeted().await;
    assert!(hello.held.is_empty());
}

#[tokio::test]
async fn an_end_that_was_not_confirmed_is_sent_again() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say(DONE).await;
    drop(asked);
    link.line().await;
    end(&mut link).await;
    drop(link);
    let (mut link, hello) = scene.relay.greeted().await;
    assert_eq!(hello.held, [token(1, 1)]);
    link.say(&RelayMessage::Resume {
        token: token(1, 1),
        stored: 1,
    })
    .await;
    assert_eq!(end(&mut link).await, (1, End::Completed));
}

#[tokio::test]
async fn a_relay_that_lost_lines_of_a_job_that_had_ended_gets_it_back() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    for line in ["one", "two"] {
        asked.say(line).await;
        link.line().await;
    }
    link.say(&RelayMessage::Stored {
        token: token(1, 1),
        n: 1,
    })
    .await;
    asked.say(DONE).await;
    drop(asked);
    link.line().await;
    end(&mut link).await;
    drop(link);
    let (mut link, _) = scene.relay.greeted().await;
    // Its store was restored from an older copy.
    link.say(&RelayMessage::Resume {
        token: token(1, 1),
        stored: 0,
    })
    .await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::Internal));
}

#[tokio::test]
async fn a_lease_that_went_stale_while_the_link_was_down_stops_the_engine() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    drop(link);
    let (mut link, _) = scene.relay.greeted().await;
    link.say(&RelayMessage::Closed {
        token: token(1, 1),
        code: Some(ErrorCode::StaleLease),
    })
    .await;
    bounded(asked.until_dropped()).await;
}

#[tokio::test]
async fn a_request_that_had_not_fully_arrived_is_given_back_over_the_next_link() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.say(&RelayMessage::Lease(head(token(1, 1), 5))).await;
    link.close(1001).await;
    let (mut link, hello) = scene.relay.greeted().await;
    assert_eq!(hello.held, [token(1, 1)]);
    link.say(&RelayMessage::Resume {
        token: token(1, 1),
        stored: 0,
    })
    .await;
    assert_eq!(nack(&mut link).await, (Retry::Now, ErrorCode::WorkerLost));
}

#[tokio::test]
async fn a_refused_key_is_a_state_of_its_own_and_is_not_tried_again_at_once() {
    let mut scene = scene_with(|settings| {
        // In this test only a wait of the other kind can end.
        settings.tuning.refused = (Duration::from_secs(600), Duration::from_secs(600));
    })
    .await;
    let (link, _) = scene.relay.greeted().await;
    let refusal = r#"{"error":{"code":"unauthorized","message":"revoked"}}"#;
    scene.relay.set_upgrade(Upgrade::Refuse(401, refusal, None));
    link.close(1001).await;
    let refused = scene
        .until(|now| now.relay.problem.contains("refused the key"))
        .await;
    assert_eq!(refused.relay.state, HopState::Down);
    assert!(refused.is_refused);
    assert!(refused.relay.problem.contains("revoked"));
    scene.relay.upgrade().await;
    scene.relay.upgrade().await;
    assert!(scene.relay.upgrades.try_recv().is_err(), "a third try");

    scene.relay.set_upgrade(Upgrade::Accept);
    scene.handle.wake();
    let (link, _) = scene.relay.greeted().await;
    scene.until(|now| !now.is_refused).await;
    link.close(CLOSE_UNAUTHORIZED).await;
    scene
        .until(|now| now.relay.problem.contains("refused the key"))
        .await;
}

#[tokio::test]
async fn a_page_where_the_relay_should_be_is_named_as_such() {
    let scene = scene().await;
    scene
        .relay
        .set_upgrade(Upgrade::Refuse(302, "<html>", None));
    scene.handle.wake();
    let now = scene
        .until(|now| now.relay.problem.contains("no Hearth relay"))
        .await;
    assert_eq!(now.relay.state, HopState::Down);
}

#[tokio::test]
async fn a_busy_relay_is_given_the_time_it_asks_for() {
    let relay = super::relay::Relay::start().await;
    drop(relay);
    let mut scene = scene().await;
    let (link, _) = scene.relay.greeted().await;
    let full = r#"{"error":{"code":"busy","message":"going down"}}"#;
    scene
        .relay
        .set_upgrade(Upgrade::Refuse(503, full, Some(100)));
    link.close(1012).await;
    scene
        .until(|now| now.relay.problem.contains("going down"))
        .await;
    scene.relay.upgrade().await;
    scene.relay.upgrade().await;
    assert!(scene.relay.upgrades.try_recv().is_err(), "it did not wait");
}

#[tokio::test]
async fn a_relay_that_restarts_gets_what_runs_and_is_no_fault() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let asked = scene.asked().await;
    asked.say("one").await;
    assert_eq!(link.line().await, (1, "one".into()));
    link.say(&RelayMessage::Drain).await;
    asked.say(DONE).await;
    assert_eq!(link.line().await, (2, DONE.into()));
    drop(asked);
    let ended = link.hear_of_job().await;
    assert!(
        matches!(ended, Heard::Message(WorkerMessage::End { lines: 2, .. })),
        "{ended:?}"
    );
    let (token, code) = (token(1, 1), None);
    link.say(&RelayMessage::Closed { token, code }).await;
    let draining = r#"{"error":{"code":"draining","message":"it goes down"}}"#;
    scene
        .relay
        .set_upgrade(Upgrade::Refuse(503, draining, None));
    let mut seen = scene.handle.activity();
    seen.borrow_and_update();
    let looked = tokio::spawn(async move {
        let mut states = Vec::new();
        loop {
            bounded(seen.changed()).await.unwrap();
            let relay = seen.borrow_and_update().relay.clone();
            states.push((relay.state, relay.problem));
            if states.len() > 1 && states.last().unwrap().0 == HopState::Up {
                return states;
            }
        }
    });
    link.close(1012).await;
    scene.relay.upgrade().await;
    for _ in 0..3 {
        scene.relay.upgrade().await;
    }
    scene.relay.set_upgrade(Upgrade::Accept);
    let (_link, hello) = scene.relay.greeted().await;
    assert_eq!(hello.held, []);
    let states = looked.await.unwrap();
    let down: Vec<_> = states
        .iter()
        .filter(|(state, problem)| *state == HopState::Down || !problem.is_empty())
        .collect();
    assert!(down.is_empty(), "{down:?}");
}

#[tokio::test]
async fn a_silent_link_is_taken_for_dead_and_made_again() {
    let mut scene = scene_with(|settings| {
        settings.tuning.dead = Duration::from_millis(50);
    })
    .await;
    let (_silent, _) = scene.relay.greeted().await;
    scene.relay.greeted().await;
}

#[tokio::test]
async fn both_sides_ping_so_that_a_quiet_link_stays_up() {
    let mut scene = scene_with(|settings| {
        settings.tuning.ping = Duration::from_millis(10);
        settings.tuning.dead = Duration::from_millis(1_000);
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    // The relay answers pings only while it reads; the worker must not give up in the meantime.
    let quiet = tokio::time::timeout(Duration::from_millis(1_500), async {
        link.until_capacity(99).await;
    });
    assert!(quiet.await.is_err());
    assert_eq!(scene.handle.activity().borrow().relay.state, HopState::Up);
    assert!(scene.relay.upgrades.try_recv().is_ok());
    assert!(
        scene.relay.upgrades.try_recv().is_err(),
        "it connected twice"
    );
}

#[tokio::test]
async fn a_machine_that_slept_connects_again_although_its_timers_did_not_count_the_night() {
    let hours = std::sync::atomic::AtomicI64::new(0);
    let mut scene = scene_with(|settings| {
        settings.tuning.ping = Duration::from_millis(20);
        settings.tuning.clock = hearth_worker::Clock::new(move || {
            let hour = hours.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            proto::Timestamp(hour * 3_600_000)
        });
    })
    .await;
    let (_link, _) = scene.relay.greeted().await;
    scene.relay.greeted().await;
}

#[tokio::test]
async fn nonsense_from_the_relay_ends_the_link_with_a_reason() {
    let mut scene = scene().await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.say(&RelayMessage::Lease(head(token(1, 1), usize::MAX)))
        .await;
    match link.hear_of_job().await {
        Heard::Closed(code) => assert_eq!(code, Some(CLOSE_PROTOCOL)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_relay_that_does_not_say_what_became_of_a_lease_is_left() {
    let mut scene = scene_with(|settings| {
        settings.tuning.connect = Duration::from_millis(200);
    })
    .await;
    let (mut link, _) = scene.relay.greeted().await;
    link.until_capacity(2).await;
    link.lease(token(1, 1), BODY).await;
    let _asked = scene.asked().await;
    drop(link);
    let (_silent, hello) = scene.relay.greeted().await;
    assert_eq!(hello.held.len(), 1);
    scene.relay.greeted().await;
}

#[tokio::test]
async fn http_to_another_machine_is_refused_before_a_key_is_sent() {
    let scene = scene_with(|settings| {
        settings.relay = "http://relay.example".parse().unwrap();
    })
    .await;
    let error = bounded(scene.run).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("not https"), "{error}");
}

#[tokio::test]
async fn a_relay_that_is_down_behind_its_proxy_is_not_taken_for_a_proxy_that_breaks_websockets() {
    let mut scene = scene_with(|_| {}).await;
    let html = "<html>the upstream is down</html>";
    for status in [502, 504, 521, 530] {
        scene.relay.set_upgrade(Upgrade::Refuse(status, html, None));
        // Both carriers are tried in turn, and neither is abandoned.
        for _ in 0..3 {
            scene.relay.post().await.answer(status, html);
            scene.relay.upgrade().await;
        }
    }
    scene.relay.set_upgrade(Upgrade::Accept);
    let mut link = loop {
        match scene.relay.link_or_post().await {
            Ok(link) => break link,
            Err(post) => post.answer(530, html),
        }
    };
    link.hello().await;
}

#[tokio::test]
async fn a_proxy_that_answers_upgrades_as_if_the_relay_were_down_is_gone_around() {
    for status in [502, 530] {
        let mut scene = scene_with(|_| {}).await;
        let html = "<html>bad gateway</html>";
        scene.relay.set_upgrade(Upgrade::Refuse(status, html, None));
        let poll = scene.relay.post().await;
        poll.answer(200, serde_json::to_string(&PollAnswer::default()).unwrap());
        let up = scene.until(|now| now.relay.state == HopState::Up).await;
        assert_eq!(up.carrier, Some(CarrierKind::LongPoll));
    }
}
