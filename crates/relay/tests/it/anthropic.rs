//! Anthropic's API: messages, token counts and models.

use http::{Method, StatusCode};
use proto::{End, ErrorCode, JobError, worker::RelayMessage};
use queue::Scope;

use crate::{
    client::Client,
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const STREAM: &str =
    r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const WHOLE: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;

#[tokio::test]
async fn a_message_streams_as_named_events_and_is_named_after_its_job() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/messages", STREAM).await });
    let job = worker.lease().await;
    assert!(job.body.contains(r#""num_predict":9"#), "{}", job.body);
    worker.answer(&job, &["Hel", "lo"]).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.header("content-type"), "text/event-stream");
    let request = format!("req_{}", job.token().job);
    assert_eq!(reply.header("request-id"), request);
    let text = reply.text().await;
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let want = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!(names, want, "{text}");
    assert!(text.contains(r#""usage":{"input_tokens":3,"output_tokens":2}"#));
}

#[tokio::test]
async fn a_whole_message_is_one_object() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/messages", WHOLE).await });
    let job = worker.lease().await;
    worker.answer(&job, &["Hel", "lo"]).await;
    let answer = asked.await.unwrap().json().await;
    assert_eq!(answer["id"], format!("msg_{}", job.token().job));
    assert_eq!(answer["content"][0]["text"], "Hello");
    assert_eq!(answer["stop_reason"], "end_turn");
}

#[tokio::test]
async fn the_key_may_stand_in_either_header_and_a_refusal_has_its_words() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Enqueue]).await;
    let nobody = Client::new(server.base(), None);
    let refused = nobody.post("/v1/messages", WHOLE).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let id = refused.header("request-id").to_owned();
    assert!(id.starts_with("req_"), "{id}");
    let refused = refused.json().await;
    assert_eq!(refused["type"], "error");
    assert_eq!(refused["error"]["type"], "authentication_error");
    assert_eq!(refused["request_id"], id);

    let headers = [
        ("x-api-key", key.as_str()),
        ("anthropic-version", "2023-06-01"),
    ];
    let heard = nobody.send_with(Method::POST, "/v1/messages", &headers, WHOLE);
    let heard = heard.await;
    assert_eq!(heard.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(heard.header("x-should-retry"), "false");
    let heard = heard.json().await;
    assert_eq!(heard["error"]["code"], "no_worker");
    assert_eq!(heard["error"]["type"], "api_error");
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_an_error_event() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/messages", STREAM).await });
    let job = worker.lease().await;
    worker.line(job.token(), 1, &chat("Hal")).await;
    let mut reply = asked.await.unwrap();
    reply.chunk().await.unwrap();
    let error = JobError::new(ErrorCode::EngineFailed, "broke off");
    worker.end(job.token(), 1, End::Failed { error }).await;
    let end = reply.text().await;
    let want = r#"event: error
data: {"type":"error","error":{"type":"api_error","message":"broke off","code":"engine_failed"}"#;
    assert!(end.starts_with(want), "{end}");
    assert!(!end.contains("message_stop"), "{end}");
}

#[tokio::test]
async fn tokens_are_counted_by_a_job_of_one_token() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let body = WHOLE.replace(r#""max_tokens":9,"#, "");
    let asked = tokio::spawn(async move { client.post("/v1/messages/count_tokens", body).await });
    let job = worker.lease().await;
    assert!(job.body.contains(r#""num_predict":1"#), "{}", job.body);
    worker.line(job.token(), 1, CHAT_DONE).await;
    worker.end(job.token(), 1, End::Completed).await;
    assert_eq!(asked.await.unwrap().text().await, r#"{"input_tokens":3}"#);
}

#[tokio::test]
async fn a_requester_who_leaves_a_message_cancels_it() {
    let server = Server::start().await;
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/v1/messages", STREAM).await });
    let job = worker.lease().await;
    asked.abort();
    let token = job.token();
    assert_eq!(worker.next().await, RelayMessage::Cancel { token });
}

#[tokio::test]
async fn a_client_of_anthropic_gets_its_own_list_of_models() {
    let server = Server::start().await;
    let client = server.requester().await;
    let _worker = Scripted::ready(&server).await;
    let version = [("anthropic-version", "2023-06-01")];
    let list = client.send_with(Method::GET, "/v1/models", &version, "");
    let list = list.await.json().await;
    assert_eq!(
        (&list["first_id"], &list["has_more"]),
        (&"m".into(), &false.into())
    );
    let one = client.send_with(Method::GET, "/v1/models/m", &version, "");
    assert_eq!(one.await.json().await["display_name"], "m");
}
