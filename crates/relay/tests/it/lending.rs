//! Leasing over a WebSocket: group commits, large requests and cancellations on the way.

use std::{sync::Arc, time::Duration};

use hearth_relay::{RelaySettings, World as _};
use http::Method;
use proto::{
    Account, Dialect, End, JobId, LeaseToken, ModelName, Op, Priority, Timestamp,
    worker::{RelayMessage, WorkerMessage},
};
use queue::{NewJob, Owner, Queue as _};

use crate::{
    client::Client,
    gated::Gated,
    in_time,
    server::{Ahead, Server},
    worker::{CHAT_DONE, Scripted},
};

async fn submit(client: &Client) -> JobId {
    let body = r#"{"op":"chat","body":{"model":"m"}}"#;
    let job = client.post("/api/jobs", body).await.json().await;
    job["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn jobs_that_wait_together_are_lent_in_one_decision() {
    let gated = Gated::new(1, 0);
    let server = Server::beside(gated.clone(), gated.inner.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    for _ in 0..16 {
        submit(&client).await;
    }
    let mut worker = Scripted::serving(&server, "default", &["m"], 16).await;
    for _ in 0..16 {
        worker.lease().await;
    }
    assert_eq!(server.store.counts().leased, 16);
}

#[tokio::test]
async fn a_slot_is_lent_again_while_the_end_before_is_being_written() {
    let gated = Gated::new(9, 0);
    let server = Server::beside(gated.clone(), gated.inner.clone(), RelaySettings::default()).await;
    let client = server.requester().await;
    for _ in 0..3 {
        submit(&client).await;
    }
    let mut worker = Scripted::serving(&server, "default", &["m"], 1).await;
    let mut unconfirmed = Vec::new();
    for _ in 0..2 {
        let token = worker.lease().await.token();
        worker.line(token, 1, CHAT_DONE).await;
        let (lines, end) = (1, End::Completed);
        worker.say(&WorkerMessage::End { token, lines, end }).await;
        unconfirmed.push(token);
    }
    worker.lease().await;
    gated.ending.add_permits(2);
    for _ in 0..2 {
        let RelayMessage::Closed { token, code: None } = worker.next().await else {
            panic!("both ends are confirmed");
        };
        unconfirmed.retain(|ended| *ended != token);
    }
    assert_eq!(unconfirmed, []);
}

/// Creates the `n`-th job, with a request larger than the socket's buffers.
fn large(n: u8) -> NewJob {
    NewJob {
        id: JobId([n; 16]),
        account: Account::new("default").unwrap(),
        who: "laptop".into(),
        op: Op::Chat,
        model: ModelName::new("m").unwrap(),
        priority: Priority::default(),
        body: vec![b'x'; 24 * 1024 * 1024].into(),
        dialect: Dialect::Native,
        deadline: None,
        attended: false,
        worker: None,
    }
}

#[tokio::test]
async fn a_withdrawal_overtakes_large_requests_that_nobody_reads() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 0).await;
    for n in 1..=2 {
        server.store.enqueue(Timestamp(0), large(n)).await.unwrap();
    }
    worker.say(&WorkerMessage::Capacity { slots: 4 }).await;
    server.until(|counts| counts.leased == 2).await;
    // The first lease is being written and the second waits; the worker knows of neither.
    for n in [2, 1] {
        let path = format!("/api/jobs/{}", JobId([n; 16]));
        client.send(Method::DELETE, &path, "").await;
    }
    let second = server.store.log(Owner::Anyone, JobId([2; 16])).await;
    let mut head = second.unwrap().unwrap().head();
    let ended = in_time(head.wait_for(|head| head.end.is_some())).await;
    assert_eq!(ended.unwrap().end, Some(End::Cancelled));

    let RelayMessage::Lease(head) = worker.next().await else {
        panic!("the first was lent");
    };
    let mut arrived = 0;
    loop {
        let message = worker.frame().await;
        if message.is_binary() {
            arrived += message.len();
            continue;
        }
        let told: RelayMessage = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(told, RelayMessage::Cancel { token: head.token });
        break;
    }
    assert!(arrived < head.body_len, "{arrived} bytes came before it");
    // The rest of the request is no longer sent.
    submit(&client).await;
    in_time(worker.lease()).await;
}

#[tokio::test]
async fn what_was_lent_to_a_broken_connection_but_not_sent_is_given_back_at_once() {
    let server = Server::start().await;
    let mut worker = Scripted::serving(&server, "default", &["m"], 0).await;
    for n in 1..=2 {
        server.store.enqueue(Timestamp(0), large(n)).await.unwrap();
    }
    worker.say(&WorkerMessage::Capacity { slots: 4 }).await;
    server.until(|counts| counts.leased == 2).await;
    drop(worker);
    server.until(|counts| counts.queued == 2).await;
}

#[tokio::test]
async fn a_request_that_is_long_on_its_way_keeps_its_lease() {
    let clock = Arc::<Ahead>::default();
    let server = Server::at(clock.clone(), RelaySettings::default()).await;
    let lease = RelaySettings::default().lease;
    let mut worker = Scripted::serving(&server, "default", &["m"], 0).await;
    for n in 1..=2 {
        server.store.enqueue(clock.now(), large(n)).await.unwrap();
    }
    worker.say(&WorkerMessage::Capacity { slots: 4 }).await;
    server.until(|counts| counts.leased == 2).await;
    clock.by(lease - Duration::from_secs(1));
    // Between the two answers a part was written, which renewed both leases.
    for _ in 0..2 {
        let token = LeaseToken {
            job: JobId([9; 16]),
            attempt: 1,
        };
        let tokens = vec![token];
        worker.say(&WorkerMessage::Extend { tokens }).await;
        while !worker
            .frame()
            .await
            .to_text()
            .is_ok_and(|text| text.contains("closed"))
        {}
    }
    clock.by(lease + Duration::from_secs(1));
    server.store.reap(clock.now()).await.unwrap();
    assert_eq!(server.store.counts().leased, 2);
}
