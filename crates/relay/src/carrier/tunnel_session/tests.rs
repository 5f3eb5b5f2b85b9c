use std::sync::Arc;

use proto::JobState;
use queue::{
    Ceiling, MemoryQueue, NewJob, Owner, Serve,
    conformance::sample::{account, id, job},
};
use telemetry::metrics::Now;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{super::meter::Metered, *};
use crate::{RelaySettings, budget::BudgetShare, world::SystemWorld};

const NAME: &str = "tunnel-test";
const MIB: usize = 1024 * 1024;

/// A relay with this many jobs.
async fn relay_with(jobs: u8, settings: RelaySettings) -> Relay {
    let store = Arc::new(MemoryQueue::default());
    let relay = Relay::new(store, settings, Arc::new(SystemWorld));
    for n in 1..=jobs {
        enqueue(&relay, n, r#"{"model":"m"}"#).await;
    }
    relay
}

async fn enqueue(relay: &Relay, n: u8, body: &'static str) {
    let new = NewJob {
        body: body.into(),
        ..job(n)
    };
    relay.store.enqueue(relay.now(), new).await.unwrap();
}

/// A tunnel over a pipe, and the jobs that it gets.
async fn tunnel(jobs: u8) -> (Relay, WebSocketStream<DuplexStream>, Running) {
    let relay = relay_with(jobs, RelaySettings::default()).await;
    let (theirs, running) = piped(&relay);
    let desktop = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (relay, desktop, running)
}

/// A tunnel beside which 4 of 16 MiB are in use while the share is kept.
async fn crowded(jobs: u8) -> (Relay, BudgetShare, WebSocketStream<DuplexStream>, Running) {
    let settings = RelaySettings {
        arriving_max: 16 * MIB,
        ..RelaySettings::default()
    };
    let relay = relay_with(jobs, settings).await;
    let mut beside = relay.arriving.share("a");
    beside.grow(4 * MIB).unwrap();
    let (theirs, running) = piped(&relay);
    let desktop = WebSocketStream::from_raw_socket(theirs, Role::Client, None).await;
    (relay, beside, desktop, running)
}

fn piped(relay: &Relay) -> (DuplexStream, Running) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let mut caller = Caller::on_behalf(account("a"), "laptop".into(), Ceiling::default());
    caller.serve = Serve::All;
    let relay = relay.clone();
    let running = tokio::spawn(async move {
        let meter = Meter::new(relay.arriving.share("a"));
        let io = Metered {
            io: ours,
            meter: meter.clone(),
        };
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        let worker = WorkerId::new(NAME).unwrap();
        let over = std::future::pending();
        let ended = run_session(&relay, &caller, &worker, &mut socket, &meter, over).await;
        // The session has ended by now.
        tokio::spawn(async move {
            let farewell = ended.farewell();
            farewell.say(&mut socket, |metered| &mut metered.io).await;
        });
        ended
    });
    (theirs, running)
}

async fn job_of(relay: &Relay, n: u8) -> (JobState, u32) {
    let job = relay.store.get(Owner::Anyone, id(n)).await.unwrap();
    let job = job.unwrap();
    (job.state, job.attempt)
}

type Running = tokio::task::JoinHandle<TunnelEnd>;

/// Returns the type of the next message in JSON.
async fn kind(desktop: &mut WebSocketStream<DuplexStream>) -> Option<String> {
    loop {
        if let Message::Text(text) = desktop.next().await?.ok()? {
            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
            return Some(message["type"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_desktop_is_pinged_and_whoever_says_nothing_at_all_is_cut_after_90_seconds() {
    let (_, mut desktop, running) = tunnel(0).await;
    let began = Instant::now();
    // Once read, pings are answered by the library; these are left unread.
    assert_eq!(running.await.unwrap(), TunnelEnd::Silent);
    assert_eq!(began.elapsed().as_secs(), 90);
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("ping"));

    let (_, mut desktop, running) = tunnel(0).await;
    let began = Instant::now();
    for n in 1..=10 {
        assert_eq!(kind(&mut desktop).await.as_deref(), Some("ping"));
        assert_eq!(began.elapsed().as_secs(), 30 * n);
    }
    assert!(!running.is_finished(), "a frame of any kind is life");
    assert_eq!(running.await.unwrap(), TunnelEnd::Silent);
    let elapsed = began.elapsed().as_secs();
    assert_eq!(elapsed, 270 + 90, "90 s after the last pong");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_arrives_slowly_is_no_silence() {
    let relay = relay_with(0, RelaySettings::default()).await;
    let (mut desktop, running) = piped(&relay);
    let began = Instant::now();
    // One text frame of 60,000 bytes.
    desktop
        .write_all(&[0x81, 0xfe, 0xea, 0x60, 0, 0, 0, 0])
        .await
        .unwrap();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        desktop.write_all(&[b'x'; 10]).await.unwrap();
        assert!(!running.is_finished());
    }
    assert_eq!(running.await.unwrap(), TunnelEnd::Silent);
    assert!(began.elapsed() > Duration::from_secs(6 * 60));
}

#[tokio::test(start_paused = true)]
async fn a_desktop_that_lives_and_never_answers_loses_its_job_after_half_an_hour() {
    let (relay, mut desktop, running) = tunnel(1).await;
    let began = Instant::now();
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("http_request"));
    while kind(&mut desktop).await.is_some() {}
    assert_eq!(running.await.unwrap(), TunnelEnd::Overdue);
    assert_eq!(began.elapsed().as_secs(), 30 * 60);
    assert_eq!(job_of(&relay, 1).await, (JobState::Queued, 1));
}

#[tokio::test(start_paused = true)]
async fn a_desktop_that_reads_its_request_drop_by_drop_loses_it() {
    let relay = relay_with(0, RelaySettings::default()).await;
    let large = "x".repeat(1024 * 1024);
    let body = format!(r#"{{"model":"m","x":"{large}"}}"#);
    enqueue(&relay, 1, body.leak()).await;
    let (mut desktop, running) = piped(&relay);
    let began = Instant::now();
    let mut drop = [0; 100];
    while !running.is_finished() {
        tokio::time::sleep(Duration::from_secs(5)).await;
        desktop.read_exact(&mut drop).await.unwrap();
    }
    assert_eq!(running.await.unwrap(), TunnelEnd::Lost(Farewell::None));
    // Half a minute, and the time of 1 MiB at 64 KiB/s.
    assert!((46..=51).contains(&began.elapsed().as_secs()));
    assert_eq!(job_of(&relay, 1).await, (JobState::Queued, 1));
}

#[tokio::test]
async fn a_long_request_comes_in_parts_of_a_frame_each() {
    let relay = relay_with(0, RelaySettings::default()).await;
    let large = "x".repeat(2 * FRAME_MAX);
    let body = format!(r#"{{"model":"m","x":"{large}"}}"#);
    enqueue(&relay, 1, body.leak()).await;
    let (theirs, _running) = piped(&relay);
    let config = super::super::tunnel::config(usize::MAX).max_frame_size(Some(FRAME_MAX));
    let mut desktop = WebSocketStream::from_raw_socket(theirs, Role::Client, Some(config)).await;
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("http_request"));
}

#[tokio::test]
async fn a_message_for_which_there_is_no_memory_ends_the_tunnel_and_is_counted() {
    let (relay, _beside, mut desktop, running) = crowded(1).await;
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("http_request"));
    // The rest of it is read, and dropped.
    let text = Message::text("x".repeat(3 * MIB / 2));
    desktop.send(text).await.unwrap();
    let told = desktop.next().await.unwrap().unwrap();
    assert!(matches!(told, Message::Close(Some(frame)) if u16::from(frame.code) == 1013));
    drop(desktop);
    assert_eq!(running.await.unwrap(), TunnelEnd::Busy);
    assert_eq!(job_of(&relay, 1).await, (JobState::Queued, 1));
    let counted = relay.metrics.render(&Now::default());
    assert!(counted.contains(r#"hearth_refused_total{code="busy"} 1"#));
}

#[tokio::test]
async fn the_parts_of_a_message_count_also_after_a_ping_between_them() {
    let (_relay, _beside, mut desktop, running) = crowded(0).await;
    let part = |kind| Frame::message(vec![b'x'; MIB / 2], OpCode::Data(kind), false);
    for kind in [Data::Text, Data::Continue, Data::Continue, Data::Continue] {
        // The last of it is not read.
        let _ = desktop.send(Message::Frame(part(kind))).await;
        let _ = desktop.send(Message::Ping(Bytes::new())).await;
    }
    let ended = timeout(Duration::from_secs(20), running).await.unwrap();
    assert_eq!(ended.unwrap(), TunnelEnd::Busy);
}

#[tokio::test(start_paused = true)]
async fn a_desktop_has_one_request_at_a_time_also_after_one_was_cancelled() {
    let (relay, mut desktop, _running) = tunnel(2).await;
    let store = &relay.store;
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("http_request"));
    let now = crate::World::now(&SystemWorld);
    store.cancel(now, Owner::Anyone, id(1)).await.unwrap();
    let mut moves = store.changes();
    while store.counts().leased > 0 {
        moves.changed().await.unwrap();
    }
    assert_eq!(job_of(&relay, 1).await.0, JobState::Cancelled);
    assert_eq!(
        kind(&mut desktop).await.as_deref(),
        Some("ping"),
        "still busy"
    );
    let late = format!(
        r#"{{"type":"http_response","id":"{}","status":200,"body":"{{}}"}}"#,
        id(1)
    );
    desktop.send(Message::text(late)).await.unwrap();
    assert_eq!(kind(&mut desktop).await.as_deref(), Some("http_request"));
    assert_eq!(job_of(&relay, 2).await.0, JobState::Leased);
}
