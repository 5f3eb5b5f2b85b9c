//! Ollama's API.

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use proto::{
    End, ErrorCode, JobError, JobState,
    worker::{RelayMessage, Retry, WorkerMessage},
};
use queue::{Owner, Queue as _, Scope};

use crate::{
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}], "x":1.50}"#;
const WHOLE: &str = r#"{"model":"m","stream":false,"prompt":"x","messages":[{}]}"#;

#[tokio::test]
async fn a_chat_streams_each_line_in_its_own_chunk_as_it_is_written() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    assert_eq!(job.body, CHAT, "byte for byte");
    assert_eq!(job.head.who, "key-0");

    worker.line(job.token(), 1, &chat("Hé")).await;
    let mut reply = asked.await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "application/x-ndjson");
    assert_eq!(reply.header("x-hearth-job"), job.token().job.to_string());
    assert_eq!(reply.chunk().await.unwrap(), chat("Hé") + "\n");
    worker.line(job.token(), 2, CHAT_DONE).await;
    assert_eq!(reply.chunk().await.unwrap(), format!("{CHAT_DONE}\n"));
    worker.end(job.token(), 2, End::Completed).await;
    assert_eq!(reply.chunk().await, None);
}

#[tokio::test]
async fn one_object_is_the_engines_own_line_or_its_lines_joined() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for op in ["/api/chat", "/api/generate", "/api/embed"] {
        let client = client.clone();
        let asked = tokio::spawn(async move { client.post(op, WHOLE).await });
        let job = worker.lease().await;
        let line = r#"{"model":"m",  "embeddings":[[0.10]],"done":true}"#;
        worker.line(job.token(), 1, line).await;
        worker.end(job.token(), 1, End::Completed).await;
        let reply = asked.await.unwrap();
        assert_eq!(
            reply.header("content-type"),
            "application/json; charset=utf-8"
        );
        assert_eq!(reply.text().await, line);
    }
    let asked = tokio::spawn(async move { client.post("/api/chat", WHOLE).await });
    let job = worker.lease().await;
    worker.answer(&job, &["Hel", "lo"]).await;
    let answer = asked.await.unwrap().json().await;
    assert_eq!(answer["message"]["content"], "Hello");
    assert_eq!(
        (&answer["done"], &answer["eval_count"]),
        (&true.into(), &2.into())
    );
}

#[tokio::test]
async fn a_failure_before_the_first_line_has_the_engines_status_and_words() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for body in [CHAT, WHOLE] {
        let client = client.clone();
        let asked = tokio::spawn(async move { client.post("/api/chat", body).await });
        let job = worker.lease().await;
        let message = r#"option "temperature" must be of type float32"#;
        let mut error = JobError::new(ErrorCode::EngineRefused, message);
        error.engine_status = Some(500);
        worker.end(job.token(), 0, End::Failed { error }).await;
        let reply = asked.await.unwrap();
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            reply.header("content-type"),
            "application/json; charset=utf-8"
        );
        let want = r#"{"error":"option \"temperature\" must be of type float32"}"#;
        assert_eq!(reply.text().await, want);
    }
}

#[tokio::test]
async fn a_failure_after_the_first_line_is_the_last_line() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("Hal")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let error = JobError::new(ErrorCode::EngineFailed, "unexpected EOF");
    worker.end(job.token(), 1, End::Failed { error }).await;
    assert_eq!(reply.text().await, "{\"error\":\"unexpected EOF\"}\n");
}

#[tokio::test]
async fn a_restart_before_the_first_line_is_not_noticed() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.gives_back(&job).await;
    let again = worker.lease().await;
    assert_eq!(again.token().attempt, 2);
    worker.answer(&again, &["ok"]).await;
    let text = asked.await.unwrap().text().await;
    assert_eq!(text, format!("{}\n{CHAT_DONE}\n", chat("ok")));
}

#[tokio::test]
async fn a_restart_after_the_first_line_is_an_error_and_cancels_the_job() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("one")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    worker.say(&WorkerMessage::Capacity { slots: 0 }).await;
    worker.gives_back(&job).await;
    let text = reply.text().await;
    assert!(
        text.starts_with(r#"{"error":"the worker was lost"#),
        "{text}"
    );
    let log = server.store.log(Owner::Anyone, job.token().job).await;
    let mut head = log.unwrap().unwrap().head();
    let ended = crate::in_time(head.wait_for(|head| head.end.is_some())).await;
    assert_eq!(ended.unwrap().end, Some(End::Cancelled));
}

#[tokio::test]
async fn a_requester_who_leaves_cancels_his_job_at_any_point() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (body, with_line) in [(CHAT, false), (CHAT, true), (WHOLE, false)] {
        let client = client.clone();
        let asked = tokio::spawn(async move { client.post("/api/chat", body).await });
        let job = worker.lease().await;
        if with_line {
            worker.line(job.token(), 1, &chat("one")).await;
            let mut reply = asked.await.unwrap();
            reply.chunk().await.unwrap();
            drop(reply);
        } else {
            asked.abort();
        }
        let token = job.token();
        assert_eq!(worker.next().await, RelayMessage::Cancel { token });
        let (code, message) = (ErrorCode::Cancelled, String::new());
        worker
            .say(&WorkerMessage::Nack {
                token,
                retry: Retry::Never,
                code,
                message,
                engine_status: None,
            })
            .await;
        assert_eq!(
            worker.next().await,
            RelayMessage::Closed { token, code: None }
        );
        let ended = server
            .store
            .get(Owner::Anyone, token.job)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.state, JobState::Cancelled);
    }
}

#[tokio::test]
async fn a_requester_who_leaves_after_the_last_line_leaves_a_finished_job() {
    let mut settings = RelaySettings::default();
    settings.connections_max = 2;
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, CHAT_DONE).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    drop(reply);
    // The limit is two connections and the worker has one, so the next request is served only after
    // the relay has noticed that the previous connection was closed.
    assert_eq!(server.nobody().get("/healthz").await.status, StatusCode::OK);
    worker.end(job.token(), 1, End::Completed).await;
    let ended = server
        .store
        .get(Owner::Anyone, job.token().job)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(ended.state, JobState::Completed);
}

#[tokio::test]
async fn with_nobody_online_a_waiting_requester_is_refused_at_once() {
    let server = Server::start().await;
    let client = server.requester().await;
    let reply = client.post("/api/chat", CHAT).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.header("x-should-retry"), "false");
    assert_eq!(reply.header("x-hearth-error"), "no_worker");
    let _elsewhere = Scripted::serving(&server, "other", &["m"], 1).await;
    assert_eq!(
        client
            .post("/api/chat", CHAT)
            .await
            .header("x-hearth-error"),
        "no_worker"
    );
}

#[tokio::test]
async fn a_model_nobody_has_is_not_found_in_ollamas_words() {
    let server = Server::start().await;
    let client = server.requester().await;
    let _worker = Scripted::ready(&server).await;
    for (path, text) in [
        ("/api/chat", r#"{"error":"model 'x' not found"}"#),
        ("/api/generate", r#"{"error":"model 'x' not found"}"#),
        (
            "/api/embed",
            r#"{"error":"model \"x\" not found, try pulling it first"}"#,
        ),
    ] {
        let reply = client.post(path, r#"{"model":"x"}"#).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        assert_eq!(reply.text().await, text);
    }
    let reply = client.post("/api/chat", "").await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.text().await, r#"{"error":"missing request body"}"#);
}

#[tokio::test]
async fn a_request_without_a_model_gets_the_default_one() {
    let mut settings = RelaySettings::default();
    settings.default_model = Some("second".parse().unwrap());
    let server = Server::with(settings).await;
    let client = server.requester().await;
    let mut worker = Scripted::serving(&server, "default", &["first", "second"], 1).await;
    let _asked = tokio::spawn(async move { client.post("/api/chat", r#"{"x":1}"#).await });
    assert_eq!(worker.lease().await.body, r#"{"model":"second","x":1}"#);
}

#[tokio::test]
async fn models_and_version_come_from_the_workers_online() {
    let server = Server::start().await;
    let client = server.requester().await;
    let tags = client.get("/api/tags").await;
    assert_eq!(tags.text().await, r#"{"models":[]}"#);
    assert_eq!(
        client.get("/api/version").await.text().await,
        r#"{"version":"0.6.4"}"#
    );

    let _one = Scripted::serving(&server, "default", &["m", "n"], 1).await;
    let _two = Scripted::serving(&server, "default", &["m:latest"], 1).await;
    let _foreign = Scripted::serving(&server, "other", &["secret"], 1).await;
    let tags = client.get("/api/tags").await;
    assert_eq!(
        tags.header("content-type"),
        "application/json; charset=utf-8"
    );
    assert_eq!(
        tags.text().await,
        r#"{"models":[{"name":"m","model":"m", "size":1},{"name":"n","model":"n", "size":1}]}"#
    );
    assert_eq!(
        client.get("/api/version").await.text().await,
        r#"{"version":"0.12.3"}"#
    );
    let head = client.send(Method::HEAD, "/api/version", "").await;
    assert_eq!(
        (head.status, head.text().await.as_str()),
        (StatusCode::OK, "")
    );
    let other = server.client("other", &[Scope::Read]).await;
    assert!(other.get("/api/tags").await.text().await.contains("secret"));
}

#[tokio::test]
async fn tags_tell_how_many_agents_could_answer_now() {
    let server = Server::start().await;
    let client = server.requester().await;
    let worker = Scripted::ready(&server).await;
    let tags = client.get("/api/tags").await;
    assert_eq!(tags.header("x-hearth-workers"), "1");
    worker.goes().await;
    let tags = client.get("/api/tags").await;
    assert_eq!(tags.header("x-hearth-workers"), "0");
    let models = tags.json().await["models"].clone();
    assert_eq!(models.as_array().unwrap().len(), 1, "it is remembered");
}
