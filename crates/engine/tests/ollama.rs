//! Tests of the Ollama client against a scripted Ollama.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hearth_engine::{Engine as _, EngineError, EngineTimes, Ollama, parse_host};
use proto::{Body, Op};
use tests::scripted_ollama::{Answer, Gate, ScriptedOllama, Step};
use tokio::time::timeout;

const CHAT: &str =
    r#"{"model":"tiny", "messages":[{"role":"user","content":"one two"}],  "x":1.50}"#;
const TOKEN: &str = r#"{"model":"tiny","message":{"role":"assistant","content":"a"},"done":false}"#;
const LAST: &str = r#"{"model":"tiny","message":{"role":"assistant","content":""},"done":true}"#;

async fn scripted() -> (ScriptedOllama, Ollama) {
    let server = ScriptedOllama::start().await.unwrap();
    let client = client(&server, EngineTimes::default());
    (server, client)
}

fn client(server: &ScriptedOllama, times: EngineTimes) -> Ollama {
    Ollama::new(&parse_host(&server.url()).unwrap().url, times).unwrap()
}

async fn ask(client: &Ollama, op: Op, body: &str) -> (Vec<String>, Option<EngineError>) {
    let answer = async {
        let mut lines = match client.start(op, Body(Bytes::from(body.to_owned()))).await {
            Ok(lines) => lines,
            Err(error) => return (Vec::new(), Some(error)),
        };
        let mut got = Vec::new();
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => got.push(String::from_utf8(line.to_vec()).unwrap()),
                Err(error) => {
                    assert!(lines.next().await.is_none(), "an error is the end");
                    return (got, Some(error));
                }
            }
        }
        (got, None)
    };
    timeout(Duration::from_secs(20), answer).await.unwrap()
}

#[tokio::test]
async fn a_request_arrives_byte_for_byte_and_its_lines_come_back_byte_for_byte() {
    let (server, client) = scripted().await;
    server.script("/api/chat", Answer::lines([TOKEN, LAST]));
    assert_eq!(
        ask(&client, Op::Chat, CHAT).await,
        (vec![TOKEN.to_owned(), LAST.to_owned()], None)
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].path, "/api/chat");
    assert_eq!(requests[0].body, CHAT);
}

#[tokio::test]
async fn each_operation_has_its_own_path_and_nothing_else_is_ever_asked() {
    let (server, client) = scripted().await;
    for op in [Op::Chat, Op::Generate, Op::Embed] {
        let body = r#"{"model":"tiny","prompt":"x","messages":[{"content":"x"}],"input":"x"}"#;
        let (lines, error) = ask(&client, op, body).await;
        assert_eq!(error, None, "{op}");
        assert!(!lines.is_empty(), "{op}");
    }
    client.report().await.unwrap();
    let mut paths: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    paths[3..].sort();
    assert_eq!(
        paths,
        [
            "/api/chat",
            "/api/generate",
            "/api/embed",
            "/api/ps",
            "/api/tags",
            "/api/version"
        ]
    );
}

#[tokio::test]
async fn an_answer_in_one_piece_without_a_line_feed_is_one_line() {
    let (server, client) = scripted().await;
    server.script("/api/chat", Answer::json(200, LAST));
    let body = r#"{"model":"tiny","stream":false,"messages":[]}"#;
    assert_eq!(
        ask(&client, Op::Chat, body).await,
        (vec![LAST.to_owned()], None)
    );
}

#[tokio::test]
async fn lines_are_whole_wherever_the_chunks_were_cut() {
    let (server, client) = scripted().await;
    let text = format!("{TOKEN}\n{TOKEN}\r\n\n{LAST}\n");
    let mut answer = Answer::begin();
    for byte in text.bytes() {
        answer = answer.then(Step::Send(Bytes::copy_from_slice(&[byte])));
    }
    server.script("/api/chat", answer.then(Step::Finish));
    let (lines, error) = ask(&client, Op::Chat, CHAT).await;
    assert_eq!(
        (lines.as_slice(), error),
        (&[TOKEN, TOKEN, LAST].map(str::to_owned)[..], None)
    );
}

#[tokio::test]
async fn a_stream_that_ends_without_done_is_broken_whether_it_ended_well_or_was_cut() {
    let (server, client) = scripted().await;
    for end in [Step::Finish, Step::Cut] {
        server.script("/api/chat", Answer::begin().send_lines([TOKEN]).then(end));
        let (lines, error) = ask(&client, Op::Chat, CHAT).await;
        assert_eq!(lines, [TOKEN]);
        assert!(matches!(error, Some(EngineError::Broken(_))), "{error:?}");
    }
}

#[tokio::test]
async fn an_answer_in_one_piece_is_whole_whatever_it_says_of_itself() {
    let (server, client) = scripted().await;
    // Ollama ends in this way when a model repeats itself, and when it shows a rendered prompt.
    let whole = r#"{"model":"tiny","response":"1111","done":false}"#;
    for body in [r#"{"model":"tiny","stream":false}"#, r#"{"model":"tiny"}"#] {
        server.script("/api/generate", Answer::json(200, whole));
        let answer = ask(&client, Op::Generate, body).await;
        assert_eq!(answer, (vec![whole.to_owned()], None), "{body}");
    }
}

#[tokio::test]
async fn an_error_line_within_a_stream_is_the_end_with_its_words() {
    let (server, client) = scripted().await;
    let died = "an error was encountered while running the model: unexpected EOF";
    let line = format!(r#"{{"error":"{died}"}}"#);
    server.script("/api/chat", Answer::lines([TOKEN, line.as_str()]));
    let (lines, error) = ask(&client, Op::Chat, CHAT).await;
    assert_eq!(lines, [TOKEN]);
    assert_eq!(error, Some(EngineError::Failed(died.into())));
}

#[tokio::test]
async fn every_kind_of_refusal_is_told_apart() {
    let (server, client) = scripted().await;
    let refused = |status, message: &str| EngineError::Refused {
        status,
        message: message.into(),
    };
    let wrapped =
        r#"{"error":"{\"error\":{\"code\":400,\"message\":\"too long\",\"type\":\"t\"}}"}"#;
    let busy = "server busy, please try again.  maximum pending requests exceeded";
    for (answer, expected) in [
        (
            Answer::json(404, r#"{"error":"model 'x' not found"}"#),
            refused(404, "model 'x' not found"),
        ),
        (
            Answer::json(400, wrapped),
            refused(
                400,
                r#"{"error":{"code":400,"message":"too long","type":"t"}}"#,
            ),
        ),
        (
            Answer::json(500, "plain words\n"),
            refused(500, "plain words"),
        ),
        (
            Answer::empty(403),
            refused(403, "HTTP 403 without a reason"),
        ),
        (
            Answer::json(503, &format!(r#"{{"error":"{busy}"}}"#)),
            EngineError::Busy(busy.into()),
        ),
        (
            Answer::empty(502),
            EngineError::Unavailable("HTTP 502 without a reason".into()),
        ),
        (
            Answer::empty(302),
            EngineError::Unavailable(
                "HTTP 302: something other than an engine answers there".into(),
            ),
        ),
    ] {
        server.script("/api/chat", answer);
        assert_eq!(
            ask(&client, Op::Chat, CHAT).await,
            (Vec::new(), Some(expected))
        );
    }
}

#[tokio::test]
async fn an_answer_that_is_not_ollamas_is_broken_and_never_quoted() {
    let (server, client) = scripted().await;
    for body in ["<html>secret</html>", "{\"secret\":", "[]", "\"secret\""] {
        server.script("/api/chat", Answer::lines([body]));
        let (lines, error) = ask(&client, Op::Chat, CHAT).await;
        assert!(lines.is_empty());
        let Some(EngineError::Broken(problem)) = error else {
            panic!("{body}: {error:?}");
        };
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[tokio::test]
async fn a_line_without_end_is_cut_off_at_its_limit() {
    let (server, client) = scripted().await;
    let mut answer = Answer::begin();
    for _ in 0..9 {
        answer = answer.then(Step::Send(Bytes::from(vec![b'x'; 1024 * 1024])));
    }
    server.script("/api/chat", answer);
    let (_, error) = ask(&client, Op::Chat, CHAT).await;
    assert_eq!(error, Some(EngineError::TooLong));
    timeout(Duration::from_secs(5), server.until_left(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_whole_answer_that_is_too_long_is_refused_for_good() {
    let (server, client) = scripted().await;
    let vector = "0.123456789,".repeat(800_000);
    let answer = format!(r#"{{"embeddings":[[{vector}0]]}}"#);
    server.script("/api/embed", Answer::json(200, &answer));
    let (lines, error) = ask(&client, Op::Embed, r#"{"model":"tiny","input":"x"}"#).await;
    assert_eq!((lines, error), (vec![], Some(EngineError::TooLong)));
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_unavailable() {
    let (mut server, client) = scripted().await;
    server.go_down().await;
    let (_, error) = ask(&client, Op::Chat, CHAT).await;
    assert!(
        matches!(error, Some(EngineError::Unavailable(_))),
        "{error:?}"
    );
    let report = client.report().await;
    assert!(
        matches!(report, Err(EngineError::Unavailable(_))),
        "{report:?}"
    );
    server.come_back().await.unwrap();
    assert!(client.report().await.unwrap().engine_up);
}

#[tokio::test]
async fn silence_before_the_first_line_and_between_lines_is_bounded() {
    let server = ScriptedOllama::start().await.unwrap();
    let short = Duration::from_millis(50);
    let first = client(
        &server,
        EngineTimes {
            first_line: short,
            ..EngineTimes::default()
        },
    );
    for silent in [Answer::after(&Gate::default()), Answer::begin()] {
        server.script("/api/chat", silent);
        let (_, error) = ask(&first, Op::Chat, CHAT).await;
        // The engine is up, and may have been working.
        assert!(matches!(error, Some(EngineError::Broken(_))), "{error:?}");
    }
    let next = client(
        &server,
        EngineTimes {
            next_line: short,
            ..EngineTimes::default()
        },
    );
    server.script("/api/chat", Answer::begin().send_lines([TOKEN]));
    let (lines, error) = ask(&next, Op::Chat, CHAT).await;
    assert_eq!(lines, [TOKEN]);
    assert!(matches!(error, Some(EngineError::Broken(_))), "{error:?}");
}

#[tokio::test]
async fn a_request_in_one_piece_is_given_longer_than_a_stream() {
    let server = ScriptedOllama::start().await.unwrap();
    let client = client(
        &server,
        EngineTimes {
            first_line: Duration::from_millis(50),
            ..EngineTimes::default()
        },
    );
    let gate = Gate::default();
    let late = Answer::after(&gate).then_all(Answer::lines([LAST]));
    server.script("/api/generate", late.clone());
    server.script("/api/chat", late);
    let whole = ask(&client, Op::Generate, r#"{"model":"tiny","stream":false}"#);
    let streamed = async {
        let (_, error) = ask(&client, Op::Chat, CHAT).await;
        gate.open();
        error
    };
    let (whole, streamed) = tokio::join!(whole, streamed);
    assert_eq!(whole, (vec![LAST.to_owned()], None));
    assert!(
        matches!(streamed, Some(EngineError::Broken(_))),
        "{streamed:?}"
    );
}

#[tokio::test]
async fn the_limits_of_answers_are_not_those_of_changes_of_models() {
    let server = ScriptedOllama::start().await.unwrap();
    let client = client(
        &server,
        EngineTimes {
            first_line: Duration::from_millis(50),
            next_line: Duration::from_millis(50),
            ..EngineTimes::default()
        },
    );
    let (first, next) = (Gate::default(), Gate::default());
    let pulled = Answer::after(&first)
        .then_all(Answer::begin().send_lines([r#"{"status":"pulling manifest"}"#]))
        .then(Step::Wait(next.clone()))
        .send_lines([r#"{"status":"success"}"#])
        .then(Step::Finish);
    server.script("/api/pull", pulled);
    // Each of these answers is given up meanwhile.
    server.script("/api/chat", Answer::after(&Gate::default()));
    server.script("/api/chat", Answer::begin().send_lines([TOKEN]));
    let answers = async {
        for gate in [first, next] {
            let (_, error) = ask(&client, Op::Chat, CHAT).await;
            assert!(matches!(error, Some(EngineError::Broken(_))), "{error:?}");
            gate.open();
        }
    };
    let pull = ask(&client, Op::Pull, r#"{"model":"tiny"}"#);
    let ((lines, error), ()) = tokio::join!(pull, answers);
    assert_eq!((lines.len(), error), (2, None));
}

#[tokio::test]
async fn dropping_the_lines_stops_the_engine_and_so_does_dropping_the_request() {
    let (server, client) = scripted().await;
    server.script("/api/chat", Answer::begin().send_lines([TOKEN]));
    let mut lines = client.start(Op::Chat, Body::from(CHAT)).await.unwrap();
    lines.next().await.unwrap().unwrap();
    drop(lines);
    timeout(Duration::from_secs(5), server.until_left(1))
        .await
        .unwrap();

    server.script("/api/chat", Answer::after(&Gate::default()));
    let silent = client.start(Op::Chat, Body::from(CHAT));
    tokio::select! {
        _ = silent => panic!("it was to be silent"),
        () = server.until_asked("/api/chat", 2) => {}
    }
    timeout(Duration::from_secs(5), server.until_left(2))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_finished_answer_is_not_an_abandoned_one() {
    let (server, client) = scripted().await;
    for _ in 0..5 {
        ask(&client, Op::Chat, CHAT).await;
    }
    assert_eq!(server.left(), 0);
}

#[tokio::test]
async fn a_report_names_every_model_and_which_are_loaded() {
    let (server, client) = scripted().await;
    server.set_models(&[
        ("tiny:latest", true),
        ("big:7b", false),
        ("not a name", false),
    ]);
    let report = client.report().await.unwrap();
    let models: Vec<_> = report
        .models
        .iter()
        .map(|m| (m.name.as_str(), m.loaded))
        .collect();
    assert_eq!(models, [("tiny:latest", true), ("big:7b", false)]);
    assert_eq!(report.engine_version, "0.33.0");
    assert_eq!(client.kind(), report.engine);
    let tag = report.models[0].tag.get();
    assert!(tag.contains(r#""parameter_size":"134.52M""#), "{tag}");
}

#[tokio::test]
async fn something_else_at_ollamas_address_is_not_taken_for_one() {
    let (server, client) = scripted().await;
    server.script("/api/version", Answer::json(200, "<html>Welcome</html>"));
    let report = client.report().await;
    assert!(
        matches!(report, Err(EngineError::Unavailable(_))),
        "{report:?}"
    );
}
