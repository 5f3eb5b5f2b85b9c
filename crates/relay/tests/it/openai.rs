//! OpenAI's API.

use http::{Method, StatusCode};
use proto::{End, ErrorCode, JobError, Op};

use crate::{
    server::Server,
    worker::{Scripted, chat},
};

const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const WHOLE: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9}"#;

#[tokio::test]
async fn a_completion_streams_as_events_with_one_id() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/chat/completions", STREAM).await });
    let job = worker.lease().await;
    assert!(job.body.contains(r#""stream":true"#), "{}", job.body);
    worker.answer(&job, &["Hel", "lo"]).await;
    let reply = asked.await.unwrap();
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (StatusCode::OK, "text/event-stream")
    );
    let text = reply.text().await;
    let id = format!(r#""id":"chatcmpl-{}""#, job.token().job);
    let events: Vec<_> = text.split_terminator("\n\n").collect();
    assert_eq!(events.len(), 4, "{text}");
    assert!(
        events[..3].iter().all(|event| event.contains(&id)),
        "{text}"
    );
    assert!(
        events[0].contains(r#""delta":{"role":"assistant","content":"Hel"}"#),
        "{text}"
    );
    assert!(events[1].contains(r#""delta":{"content":"lo"}"#), "{text}");
    assert!(
        events[2].contains(r#""delta":{},"finish_reason":"stop""#),
        "{text}"
    );
    assert_eq!(events[3], "data: [DONE]");
}

#[tokio::test]
async fn a_whole_completion_is_asked_for_as_a_stream_and_joined() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/chat/completions", WHOLE).await });
    let job = worker.lease().await;
    assert!(job.body.contains(r#""num_predict":9"#), "{}", job.body);
    worker.answer(&job, &["Hel", "lo"]).await;
    let answer = asked.await.unwrap().json().await;
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
    assert_eq!(answer["usage"]["total_tokens"], 5);
}

#[tokio::test]
async fn failures_have_openais_shape_before_and_after_the_first_token() {
    let server = Server::start().await;
    let client = server.requester().await;
    let refused = client.post("/v1/chat/completions", STREAM).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("x-should-retry"), "false");
    assert_eq!(refused.json().await["error"]["code"], "no_worker");

    let mut worker = Scripted::ready(&server).await;
    let unknown = STREAM.replace(r#""m""#, r#""x""#);
    let unknown = client.post("/v1/chat/completions", unknown).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let unknown = unknown.json().await;
    assert_eq!(unknown["error"]["message"], "model 'x' not found");
    assert_eq!(unknown["error"]["type"], "not_found_error");
    let empty = client
        .post("/v1/chat/completions", r#"{"model":"m"}"#)
        .await;
    assert_eq!(empty.status, StatusCode::BAD_REQUEST);
    assert_eq!(empty.json().await["error"]["type"], "invalid_request_error");

    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.post("/v1/chat/completions", STREAM).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("Hal")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 1, End::Failed { error }).await;
    let end = reply.text().await;
    assert!(
        end.starts_with(r#"data: {"error":{"message":"broke off","type":"api_error""#),
        "{end}"
    );
    assert!(!end.contains("[DONE]"), "{end}");
}

#[tokio::test]
async fn models_are_listed_and_found_by_name() {
    let server = Server::start().await;
    let client = server.requester().await;
    let empty = client.get("/v1/models").await.text().await;
    assert_eq!(empty, r#"{"object":"list","data":[]}"#);
    let _worker = Scripted::serving(&server, "default", &["hf.co/a/b:Q4"], 1).await;
    let entry = r#"{"id":"hf.co/a/b:Q4","object":"model","created":0,"owned_by":"library"}"#;
    let list = client.get("/v1/models").await.text().await;
    assert_eq!(list, format!(r#"{{"object":"list","data":[{entry}]}}"#));
    assert_eq!(
        client.get("/v1/models/hf.co/a/b:Q4").await.text().await,
        entry
    );
    assert_eq!(
        client
            .get("/v1/models/hf.co%2Fa%2Fb%3AQ4")
            .await
            .text()
            .await,
        entry
    );
    let none = client.get("/v1/models/none").await;
    assert_eq!(none.status, StatusCode::NOT_FOUND);
    assert_eq!(none.json().await["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn embeddings_are_one_native_job_and_come_back_in_the_encoding_asked_for() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (encoding, embedding) in [("float", "[0.5,-1]"), ("base64", r#""AAAAPwAAgL8=""#)] {
        let client = client.clone();
        let body = format!(r#"{{"model":"m","input":["a"],"encoding_format":"{encoding}"}}"#);
        let asked = tokio::spawn(async move { client.post("/v1/embeddings", body).await });
        let job = worker.lease().await;
        assert_eq!(job.head.op, Op::Embed);
        assert_eq!(job.body, r#"{"model":"m","input":["a"]}"#);
        let line = r#"{"model":"m","embeddings":[[0.5,-1]],"prompt_eval_count":2}"#;
        worker.line(job.token(), 1, line).await;
        worker.end(job.token(), 1, End::Completed).await;
        let answer = asked.await.unwrap();
        assert_eq!(answer.header("content-type"), "application/json");
        let want = format!(
            r#"{{"object":"list","data":[{{"object":"embedding","embedding":{embedding},"index":0}}],"model":"m","usage":{{"prompt_tokens":2,"total_tokens":2}}}}"#
        );
        assert_eq!(answer.text().await, want);
    }
    let tokens = client.post("/v1/embeddings", r#"{"model":"m","input":[1,2]}"#);
    let tokens = tokens.await;
    assert_eq!(tokens.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        tokens.json().await["error"]["type"],
        "invalid_request_error"
    );
}

#[tokio::test]
async fn a_text_completion_is_a_generate_job_streamed_or_whole() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for stream in [true, false] {
        let client = client.clone();
        let body = format!(r#"{{"model":"m","prompt":"Once","max_tokens":4,"stream":{stream}}}"#);
        let asked = tokio::spawn(async move { client.post("/v1/completions", body).await });
        let job = worker.lease().await;
        assert_eq!(job.head.op, Op::Generate);
        assert!(
            job.body.contains(r#""prompt":"Once","stream":true"#),
            "{}",
            job.body
        );
        let lines = [
            r#"{"model":"m","response":" upon","done":false}"#,
            r#"{"model":"m","response":"","done":true,"done_reason":"stop"}"#,
        ];
        for (n, line) in (1..).zip(lines) {
            worker.line(job.token(), n, line).await;
        }
        worker.end(job.token(), 2, End::Completed).await;
        let text = asked.await.unwrap().text().await;
        assert!(
            text.contains(&format!(r#""id":"cmpl-{}""#, job.token().job)),
            "{text}"
        );
        assert!(text.contains(r#""text":" upon""#), "{text}");
        assert_eq!(text.ends_with("data: [DONE]\n\n"), stream, "{text}");
    }
}

#[tokio::test]
async fn a_response_streams_numbered_events_without_done_and_fails_aloud() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let body = r#"{"model":"m","input":"hi","stream":true}"#;
    let asking = client.clone();
    let asked = tokio::spawn(async move { asking.post("/v1/responses", body).await });
    let job = worker.lease().await;
    worker.answer(&job, &["Hel", "lo"]).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(
        reply.header("x-request-id"),
        format!("req_{}", job.token().job)
    );
    let text = reply.text().await;
    let last = text.split_terminator("\n\n").last().unwrap();
    assert!(
        last.starts_with("event: response.completed\ndata: "),
        "{text}"
    );
    assert!(last.contains(r#""text":"Hello""#), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");

    let asked = tokio::spawn(async move { client.post("/v1/responses", body).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("Hal")).await;
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 1, End::Failed { error }).await;
    let text = asked.await.unwrap().text().await;
    let last = text.split_terminator("\n\n").last().unwrap();
    assert!(last.starts_with("event: error\ndata: "), "{text}");
    assert!(last.contains(r#""code":"engine_failed""#), "{text}");
}

#[tokio::test]
async fn a_response_that_needs_a_memory_is_refused() {
    let server = Server::start().await;
    let client = server.requester().await;
    let _worker = Scripted::ready(&server).await;
    let body = r#"{"model":"m","input":"hi","previous_response_id":"resp_1"}"#;
    let refused = client.post("/v1/responses", body).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let refused = refused.json().await;
    assert_eq!(refused["error"]["type"], "invalid_request_error");
    assert_eq!(refused["error"]["code"], "bad_request");
}

#[tokio::test]
async fn a_clients_timeout_is_the_deadline_of_what_does_not_stream() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let timeout = [("x-stainless-read-timeout", "600")];
    for (body, has_deadline) in [(WHOLE, true), (STREAM, false)] {
        let client = client.clone();
        let path = "/v1/chat/completions";
        let asked =
            tokio::spawn(async move { client.send_with(Method::POST, path, &timeout, body).await });
        let job = worker.lease().await;
        assert_eq!(job.head.deadline.is_some(), has_deadline, "{body}");
        worker.answer(&job, &["Hi"]).await;
        assert_eq!(asked.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn what_would_fail_again_is_not_to_be_retried() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    for (code, again) in [
        (ErrorCode::EngineRefused, "false"),
        (ErrorCode::EngineFailed, "true"),
    ] {
        let client = client.clone();
        let asked = tokio::spawn(async move { client.post("/v1/chat/completions", WHOLE).await });
        let job = worker.lease().await;
        let error = JobError::new(code, "no");
        worker.end(job.token(), 0, End::Failed { error }).await;
        assert_eq!(
            asked.await.unwrap().header("x-should-retry"),
            again,
            "{code}"
        );
    }
}
