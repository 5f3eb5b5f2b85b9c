//! Wrong keys, failing engines, taken ports: a typed error for the client, and the truth on the
//! hub.

use hearth_tests::{
    process::{PATIENCE, finish},
    scripted_ollama::{Answer, Step},
    test_bed::{TestBed, create_key, hearth, store},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

const LINE: &str = r#"{"model":"tiny","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"half"},"done":false}"#;

fn question() -> Value {
    json!({ "model": "tiny", "messages": [{ "role": "user", "content": "x" }] })
}

#[tokio::test]
async fn a_wrong_a_missing_and_a_revoked_key_are_refused_with_a_code() {
    let bed = TestBed::relay_only("ollama").await;
    let url = bed.url("/api/jobs");
    for request in [
        bed.http.get(&url),
        bed.http.get(&url).bearer_auth("hearth_no_key"),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 401);
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "unauthorized");
    }

    let spare = create_key(&bed.home, &["--name", "spare", "--scope", "read"]).await;
    let ask = || bed.http.get(&url).bearer_auth(&spare).send();
    assert_eq!(ask().await.unwrap().status(), 200);
    let list = finish(hearth(
        &bed.home,
        &["key", "list", "--store", &store(&bed.home)],
    ))
    .await;
    assert!(list.stdout.contains("spare"), "{}", list.stdout);
    assert!(!list.stdout.contains(&spare), "a list shows no secret");
    let revoke = ["key", "revoke", "--store", &store(&bed.home), "spare"];
    assert!(finish(hearth(&bed.home, &revoke)).await.status.success());
    assert_eq!(
        ask().await.unwrap().status(),
        401,
        "revoked while the relay runs"
    );
    let again = finish(hearth(&bed.home, &revoke)).await;
    assert!(!again.status.success(), "there is nothing left to revoke");
    assert!(again.stderr.contains("spare"), "{}", again.stderr);
}

#[tokio::test]
async fn the_store_holds_no_key_in_clear() {
    let bed = TestBed::relay_only("ollama").await;
    let secret = bed.requester.split('_').nth(2).unwrap();
    let raw: [u8; 32] = proto::hex::decode(secret).unwrap();
    let forms = [secret.as_bytes(), &raw];
    for file in std::fs::read_dir(bed.home.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for form in forms {
                let found = bytes.windows(form.len()).any(|part| part == form);
                assert!(!found, "{} holds a key", path.display());
            }
        }
    }
}

#[tokio::test]
async fn without_any_key_the_relay_starts_only_when_told_to_on_loopback() {
    let home = hearth_tests::process::Home::new();
    let start = |listen: &str, more: &[&str]| {
        let mut command = hearth(
            &home,
            &["relay", "--store", &store(&home), "--listen", listen],
        );
        command.args(more);
        command
    };
    let refused = finish(start("127.0.0.1:0", &[])).await;
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("hearth key create"),
        "{}",
        refused.stderr
    );
    let open = finish(start("0.0.0.0:0", &["--insecure-dev"])).await;
    assert!(!open.status.success());
    assert!(open.stderr.contains("loopback"), "{}", open.stderr);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let (bed, _ollama) = TestBed::scripted().await;
    let send = async |path: &str, body: String| {
        let url = bed.url(path);
        let request = bed.http.post(url).bearer_auth(&bed.requester).body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (status, body) = send("/api/jobs", "{".into()).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("malformed_json")),
        "{body}"
    );

    let unknown = json!({ "op": "chat", "body": { "model": "nobody:1b", "messages": [] } });
    let (status, body) = send("/api/jobs", unknown.to_string()).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (404, &json!("unknown_model")),
        "{body}"
    );

    let ollama = json!({ "model": "nobody:1b", "messages": [{ "role": "user", "content": "x" }] });
    let (status, body) = send("/api/chat", ollama.to_string()).await;
    assert_eq!(
        (status, &body["error"]),
        (404, &json!("model 'nobody:1b' not found")),
        "{body}"
    );

    let huge = " ".repeat(proto::limits::BODY_MAX + 1);
    let (status, body) = send("/api/jobs", huge).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (413, &json!("too_large")),
        "{body}"
    );

    // The size is only announced: the request is refused before its body is read.
    let mut socket = TcpStream::connect(bed.address).await.unwrap();
    let (host, key) = (bed.address, &bed.requester);
    let length = proto::limits::BODY_MAX + 1;
    let head = format!(
        "POST /api/jobs HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = socket.read_to_string(&mut answer);
    timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains(r#""code":"too_large""#), "{answer}");
}

#[tokio::test]
async fn a_foreign_job_and_an_absent_one_look_alike() {
    let (bed, ollama) = TestBed::scripted().await;
    let job = bed.submit("x").await.unwrap();
    ollama.until_asked("/api/chat", 1).await;
    let args = [
        "--name",
        "stranger",
        "--scope",
        "read",
        "--scope",
        "enqueue",
        "--account",
        "else",
    ];
    let stranger = create_key(&bed.home, &args).await;
    let look = async |id: &str, method: reqwest::Method, path: &str| {
        let url = bed.url(&format!("/api/jobs/{id}{path}"));
        let answer = bed
            .http
            .request(method, url)
            .bearer_auth(&stranger)
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (status, answer.text().await.unwrap().replace(id, "ID"))
    };
    let (foreign, absent) = (job.to_string(), "0".repeat(32));
    for (method, path) in [
        (reqwest::Method::GET, ""),
        (reqwest::Method::GET, "/events"),
        (reqwest::Method::DELETE, ""),
    ] {
        let (theirs, nobodys) = (
            look(&foreign, method.clone(), path).await,
            look(&absent, method, path).await,
        );
        assert_eq!(theirs, nobodys);
        assert_eq!(theirs.0, 404);
    }
}

#[tokio::test]
async fn an_engine_that_dies_mid_stream_is_a_typed_error_never_a_silent_end() {
    let (bed, ollama) = TestBed::scripted().await;
    let dying = || Answer::begin().send_lines([LINE]).then(Step::Cut);

    ollama.script("/api/chat", dying());
    let text = bed
        .post("/api/chat", &question())
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(last["error"].is_string(), "{text}");

    ollama.script("/api/chat", dying());
    let mut body = question();
    body["stream"] = json!(true);
    let answer = bed
        .post("/v1/chat/completions", &body)
        .send()
        .await
        .unwrap();
    let text = answer.text().await.unwrap();
    assert!(
        text.contains(r#""error":{"#) && !text.contains("[DONE]"),
        "{text}"
    );

    ollama.script("/api/chat", dying());
    let job = bed.submit("x").await.unwrap();
    let answered = bed.answer(job).await;
    assert_eq!(answered.ends[0]["state"], "failed", "{answered:?}");
    assert_eq!(
        answered.ends[0]["error"]["code"], "engine_failed",
        "{answered:?}"
    );
}

#[tokio::test]
async fn an_engine_that_is_down_stops_leasing_and_the_job_waits_for_it() {
    let (bed, mut ollama) = TestBed::scripted().await;
    ollama.go_down().await;
    let job = bed.submit("x").await.unwrap();
    bed.until("engine_offline").await;
    let status = bed.status().await;
    assert_eq!(
        status["relay"]["state"], "up",
        "only the broken hop is named: {status}"
    );
    assert_eq!(status["engine"]["state"], "down");
    ollama.come_back().await.unwrap();
    let answered = bed.answer(job).await;
    assert_eq!(answered.ends[0]["state"], "completed", "{answered:?}");
    bed.until("ready").await;
}

#[tokio::test]
async fn a_requester_that_leaves_stops_the_engine() {
    let (bed, ollama) = TestBed::scripted().await;
    let gate = hearth_tests::scripted_ollama::Gate::default();
    ollama.script(
        "/api/chat",
        Answer::begin().send_lines([LINE]).then(Step::Wait(gate)),
    );
    let mut answer = bed.post("/api/chat", &question()).send().await.unwrap();
    assert!(
        answer.chunk().await.unwrap().is_some(),
        "the first token came"
    );
    drop(answer);
    tokio::time::timeout(PATIENCE, ollama.until_left(1))
        .await
        .unwrap();
    bed.until("ready").await;
}

#[tokio::test]
async fn a_cut_link_is_shown_and_heals_and_the_job_goes_on() {
    let (mut bed, _ollama) = TestBed::scripted().await;
    bed.kill_relay().await;
    bed.until("relay_offline").await;
    bed.start_relay().await;
    bed.until("ready").await;
}
