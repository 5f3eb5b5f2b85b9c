//! The end of a stream whose worker or engine fails: an explicit error in every dialect.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::StatusCode;
use proto::{
    End, ErrorCode,
    worker::{RelayMessage, Retry, WorkerMessage},
};
use queue::{Owner, Queue as _};

use crate::{
    in_time,
    server::Server,
    wire::question,
    worker::{CHAT_DONE, Scripted, chat},
};

/// Each route, and the start of its error in the middle of a stream.
const STREAMS: [(&str, &str); 6] = [
    ("/api/chat", r#"{"error":""#),
    ("/api/generate", r#"{"error":""#),
    ("/v1/chat/completions", r#"data: {"error":{"message":""#),
    ("/v1/completions", r#"data: {"error":{"message":""#),
    ("/v1/responses", r#"data: {"type":"error","#),
    ("/v1/messages", r#"data: {"type":"error","error":{"#),
];

#[tokio::test]
async fn what_an_engine_fails_five_times_is_told_with_its_own_status_and_words() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let body = r#"{"model":"m","messages":[{}]}"#;
    let asked = tokio::spawn(async move { client.post("/api/chat", body).await });
    for _ in 0..5 {
        let job = worker.lease().await;
        let token = job.token();
        worker
            .say(&WorkerMessage::Nack {
                token,
                retry: Retry::AfterMs(0),
                code: ErrorCode::EngineRefused,
                message: "out of luck".into(),
                engine_status: Some(500),
            })
            .await;
        let code = None;
        assert_eq!(worker.next().await, RelayMessage::Closed { token, code });
    }
    let told = asked.await.unwrap();
    assert_eq!(told.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(told.text().await, r#"{"error":"out of luck"}"#);
}

#[tokio::test]
async fn a_lost_worker_ends_a_stream_that_began_with_an_error_even_if_none_comes_after_it() {
    let mut settings = RelaySettings::default();
    settings.lease = Duration::from_millis(300);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    for (path, error) in STREAMS {
        let mut worker = Scripted::ready(&server).await;
        let asking = client.clone();
        let asked = tokio::spawn(async move { asking.post(path, question(path, true)).await });
        let job = worker.lease().await;
        worker.line(job.token(), 1, &chat("Hal")).await;
        let mut reply = asked.await.unwrap();
        reply.chunk().await.unwrap();
        drop(worker);
        let end = reply.text().await;
        let (_, last) = end.trim_end().rsplit_once('\n').unwrap_or(("", &end));
        assert!(last.starts_with(error), "{path}: {end}");
        assert!(end.contains("the worker was lost"), "{path}: {end}");
        assert!(!end.contains("[DONE]"), "{path}: {end}");
        let log = server.store.log(Owner::Anyone, job.token().job).await;
        let mut head = log.unwrap().unwrap().head();
        let ended = in_time(head.wait_for(|head| head.end.is_some())).await;
        assert_eq!(ended.unwrap().end, Some(End::Cancelled), "nobody wants it");
    }
}

#[tokio::test]
async fn a_stream_that_told_its_end_is_over_even_if_the_worker_is_lost_before_it_is_on_disk() {
    let mut settings = RelaySettings::default();
    settings.lease = Duration::from_millis(300);
    let server = Server::with(settings).await;
    let client = server.requester().await;
    for (path, error) in STREAMS {
        let mut worker = Scripted::ready(&server).await;
        let asking = client.clone();
        let asked = tokio::spawn(async move { asking.post(path, question(path, true)).await });
        let job = worker.lease().await;
        worker.line(job.token(), 1, &chat("whole")).await;
        worker.line(job.token(), 2, CHAT_DONE).await;
        let reply = asked.await.unwrap();
        drop(worker);
        let text = in_time(reply.text()).await;
        assert!(text.contains("whole"), "{path}: {text}");
        assert!(!text.contains(error), "{path}: {text}");
        let log = server.store.log(Owner::Anyone, job.token().job).await;
        let mut head = log.unwrap().unwrap().head();
        let ended = in_time(head.wait_for(|head| head.end.is_some())).await;
        assert_eq!(ended.unwrap().end, Some(End::Cancelled), "nobody wants it");
    }
}

#[tokio::test]
async fn an_engine_that_stops_without_its_last_line_has_failed_in_every_dialect() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (path, error) in STREAMS {
        for stream in [true, false] {
            let asking = client.clone();
            let body = question(path, stream);
            let asked = tokio::spawn(async move { asking.post(path, body).await });
            let job = worker.lease().await;
            worker.line(job.token(), 1, &chat("again")).await;
            worker.end(job.token(), 1, End::Completed).await;
            let reply = asked.await.unwrap();
            if stream {
                let text = reply.text().await;
                let (_, end) = text.trim_end().rsplit_once('\n').unwrap();
                assert!(end.starts_with(error), "{path}: {text}");
                assert!(end.contains("without a complete answer"), "{path}: {text}");
            } else {
                assert_eq!(reply.status, StatusCode::BAD_GATEWAY, "{path}");
                assert_eq!(reply.header("x-hearth-error"), "engine_failed");
                assert_eq!(reply.header("x-should-retry"), "true");
            }
        }
    }
}

#[tokio::test]
async fn a_requester_who_leaves_stops_the_engine_in_every_dialect() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (path, _) in STREAMS {
        for (stream, with_line) in [(true, false), (true, true), (false, false)] {
            let asking = client.clone();
            let body = question(path, stream);
            let asked = tokio::spawn(async move { asking.post(path, body).await });
            let job = worker.lease().await;
            let token = job.token();
            if with_line {
                worker.line(token, 1, &chat("one")).await;
                let mut reply = asked.await.unwrap();
                reply.chunk().await.unwrap();
                drop(reply);
            } else {
                asked.abort();
            }
            let told = tokio::time::timeout(Duration::from_secs(1), worker.next()).await;
            assert_eq!(told, Ok(RelayMessage::Cancel { token }), "{path}");
            worker.end(token, 1, End::Cancelled).await;
        }
    }
}
