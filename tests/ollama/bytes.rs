//! Requests reach the engine byte for byte, and so do its lines on the way back.

use hearth_tests::scripted_ollama::Answer;

use crate::site::{Carrier, Exchange, Site};

const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json; charset=utf-8";

/// Whitespace, escapes, key orders and numbers that a parser and serializer would change.
const CHAT: &str = concat!(
    r#"{ "model" : "tiny:latest","messages":[{"role":"user","content":"Wie sp\u00e4t? \ud83d\ude00 "#,
    r#"<&> \/", "images":["aGVsbG8="]},{"role":"assistant","content":"","thinking":"hm","#,
    r#""tool_calls":[{"id":"call_1","function":{"name":"f","arguments":{"z":1.50,"a":1e3,"z2":{}}}}]},"#,
    r#"{"role":"tool","tool_name":"f","tool_call_id":"call_1","content":"4C"}],"#,
    "\n  ",
    r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"#,
    r#""format":{"type":"object","properties":{"b":{},"a":{}}},"think":"high","keep_alive":"10m","#,
    r#""options":{"temperature":0.10,"num_ctx":4096,"seed":18446744073709551615,"zzz":null},"#,
    r#""logprobs":true,"top_logprobs":2,"truncate":false,"shift":true,"#,
    r#""unknown":[1, 2,{"deep":[[[]]]}],"stream":STREAM}"#
);

const CHAT_LINES: [&str; 4] = [
    r#"{"model":"tiny:latest","created_at":"2026-11-22T04:07:23.8Z","message":{"role":"assistant","content":"","thinking":"h\u003cm"},"done":false}"#,
    r#"{"model":"tiny:latest",  "message":{"role":"assistant","content":"4\u00b0"},"done":false,"logprobs":[{"token":"4","logprob":-2.1905691623687744,"bytes":[52]}]}"#,
    r#"{"model":"tiny:latest","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_x","function":{"index":0,"name":"f","arguments":{"z":1.50,"a":2}}}]},"done":false,"new_field":{}}"#,
    r#"{"model":"tiny:latest","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":92836952,"eval_count":8}"#,
];

const GENERATE: &str = concat!(
    r#"{"prompt":"a\tb","model":"tiny","suffix":"z","system":"s","template":"{{ .Prompt }}","#,
    r#""context":[1, 2,3],"raw":false,"images":["aGVsbG8="],"format":"json","keep_alive":-1,"#,
    r#""options":{},"think":false,"x":1.50,"stream":STREAM} and what follows"#
);

const GENERATE_LINES: [&str; 2] = [
    r#"{"model":"tiny","response":"\u003cb\u003e","done":false}"#,
    r#"{"model":"tiny","response":"","done":true,"done_reason":"length","context":[1, 2],"eval_count":1}"#,
];

async fn passes_byte_for_byte(carrier: Carrier) {
    let site = Site::start(carrier).await;
    for (path, request, lines) in [
        ("/api/chat", CHAT, &CHAT_LINES[..]),
        ("/api/generate", GENERATE, &GENERATE_LINES[..]),
    ] {
        let request = request.replace("STREAM", "true");
        site.ollama
            .script(path, Answer::lines(lines.iter().copied()));
        let body = lines.iter().map(|line| format!("{line}\n")).collect();
        let want = Exchange {
            status: 200,
            kind: NDJSON.into(),
            body,
        };
        assert_eq!(site.post(path, &request).await, want, "{path}");
        assert_eq!(site.arrived(path), [request], "{path}");
    }
}

#[tokio::test]
async fn requests_and_lines_pass_byte_for_byte_over_the_web_socket() {
    passes_byte_for_byte(Carrier::WebSocket).await;
}

#[tokio::test]
async fn requests_and_lines_pass_byte_for_byte_over_polls() {
    passes_byte_for_byte(Carrier::Polls).await;
}

#[tokio::test]
async fn an_answer_in_one_piece_passes_byte_for_byte() {
    let site = Site::start(Carrier::WebSocket).await;
    let embedded = r#"{"model":"tiny","embeddings":[[0.10,-1e-7]],"total_duration":1}"#;
    let repeated = r#"{"model":"tiny","response":"1111",  "done":true}"#;
    let embed = r#"{"model":"tiny", "input":["a","b"],"truncate":false,"dimensions":2,"x":1.50}"#;
    for (path, request, answer) in [
        ("/api/chat", CHAT, CHAT_LINES[3]),
        ("/api/generate", GENERATE, repeated),
        ("/api/embed", embed, embedded),
    ] {
        let request = request.replace("STREAM", "false");
        site.ollama.script(path, Answer::json(200, answer));
        let want = Exchange {
            status: 200,
            kind: JSON.into(),
            body: answer.into(),
        };
        assert_eq!(site.post(path, &request).await, want, "{path}");
        assert_eq!(site.arrived(path), [request], "{path}");
    }
}

#[tokio::test]
async fn the_older_embeddings_are_asked_of_embed_and_answered_as_before() {
    let site = Site::start(Carrier::WebSocket).await;
    let unsupported =
        r#"{"error":"This server does not support embeddings. Start it with `--embeddings`"}"#;
    for (request, asked, (status, answer), (want_status, want)) in [
        (
            r#"{"model":"tiny","prompt":"h\u00e9","options":{"num_ctx":10 }}"#,
            r#"{"model":"tiny","input":"h\u00e9","options":{"num_ctx":10 }}"#,
            (200, r#"{"model":"tiny","embeddings":[[0.10,-1e-7]]}"#),
            (200, r#"{"embedding":[0.10,-1e-7]}"#),
        ),
        (
            r#"{"model":"tiny","prompt":"","keep_alive":"1h"}"#,
            r#"{"model":"tiny","input":"","keep_alive":"1h"}"#,
            (200, r#"{"model":"tiny","embeddings":[]}"#),
            (200, r#"{"embedding":[]}"#),
        ),
        (
            r#"{"model":"tiny","prompt":"x"}"#,
            r#"{"model":"tiny","input":"x"}"#,
            (501, unsupported),
            (500, unsupported),
        ),
    ] {
        site.ollama
            .script("/api/embed", Answer::json(status, answer));
        let want = Exchange {
            status: want_status,
            kind: JSON.into(),
            body: want.into(),
        };
        assert_eq!(site.post("/api/embeddings", request).await, want);
        assert_eq!(site.arrived("/api/embed").last().unwrap(), asked);
    }
    let reply = site
        .post("/api/embeddings", r#"{"model":"nosuch:1b"}"#)
        .await;
    assert_eq!(reply.status, 404);
    assert_eq!(
        reply.body,
        r#"{"error":"model \"nosuch:1b\" not found, try pulling it first"}"#
    );
}
