//! Answers of a real Ollama, replayed through a relay and a worker. Clients see the same bytes,
//! except for the differences listed here with their reasons.

use std::collections::BTreeMap;

use bytes::Bytes;
use hearth_tests::scripted_ollama::{Answer, Step};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::site::{Carrier, Exchange, Site};

/// 244 exchanges with Ollama 0.33.0-rc2 on its native API.
const RECORDED: &str = include_str!("recorded.jsonl");

const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json; charset=utf-8";
const BARE_JSON: &str = "application/json";

/// The reasons why an answer differs from the recorded one. An exchange that no longer differs must
/// be removed from its list.
const DIFFERENCES: &[(&str, &[&str])] = &[
    (
        "errors of the running stage have a charset too: the relay cannot tell the stages apart",
        &CHARSET,
    ),
    (
        "a request without a model gets the relay's default, or the first one there is",
        &[
            "chat.nomodel",
            "chat.emptyobj",
            "gen.nomodel",
            "gen.emptyobj",
            "embed.nomodel",
            "embeddings.nomodel",
        ],
    ),
    (
        "no stream ends silently: where a model repeats itself, the last line says so",
        &["var.repeatguard", "var.repeatguard.nostream"],
    ),
    (
        "a whole answer to a streaming request is a stream, and one without a last line has failed",
        &["chat.debugrender", "gen.debugrender"],
    ),
    (
        "whether the engine's cloud is off is not the relay's to know: such a model is not there",
        &["chat.cloud", "gen.cloud"],
    ),
    (
        "the version is told as dotted numbers, which every client can compare",
        &["version.get"],
    ),
    (
        "what is no route is told as JSON, which every client can read",
        &["nope.404", "chat.get405", "root.post"],
    ),
    ("there is no cloud account behind a relay", &["status"]),
    (
        "models are changed only where their owner allows it",
        &CHANGES,
    ),
];

const CHARSET: [&str; 7] = [
    "chat.fmtbad",
    "chat.fmtnum",
    "chat.fmtbadschema",
    "gen.fmtbad",
    "gen.fmtnum",
    "gen.fmtbadschema",
    "chat.long.notrunc.noshift.stream",
];

const CHANGES: [&str; 32] = [
    "copy.ok",
    "copy.missing",
    "copy.bad",
    "copy.empty",
    "delete.missing",
    "delete.empty",
    "delete.nobody",
    "delete.ok",
    "delete.again",
    "create.from",
    "create.from.nostream",
    "create.nothing",
    "create.nothing.nostream",
    "create.badname",
    "create.badfrom",
    "create.badblob",
    "create.badparam",
    "create.badtmpl",
    "delete.sys",
    "delete.sys2",
    "delete.q2",
    "blob.head404",
    "blob.headbad",
    "blob.mismatch",
    "blob.ok",
    "blob.again",
    "pull.refused",
    "pull.refused.nostream",
    "pull.bad",
    "pull.empty",
    "push.empty",
    "push.missing",
];

#[derive(Deserialize)]
struct Recorded {
    id: String,
    method: String,
    path: String,
    req: String,
    status: u16,
    r#type: String,
    body: String,
}

impl Recorded {
    fn answer(&self) -> Exchange {
        Exchange {
            status: self.status,
            kind: self.r#type.clone(),
            body: self.body.clone(),
        }
    }

    /// The engine's path for this exchange, and its answer there.
    fn script(&self) -> (&str, Answer) {
        if self.path == "/api/embeddings" {
            let status = if self.status == 500 { 501 } else { self.status };
            let said: Value = serde_json::from_str(&self.body).unwrap();
            let is_empty = said["embedding"].as_array().is_some_and(Vec::is_empty);
            let body = if is_empty {
                r#"{"embeddings":[]}"#
            } else {
                &self.body
            };
            return ("/api/embed", Answer::json(status, body));
        }
        let kind = match self.r#type.as_str() {
            NDJSON => NDJSON,
            BARE_JSON => BARE_JSON,
            _ => JSON,
        };
        let mut answer = Answer::default().then(Step::Head(self.status, Some(kind)));
        for line in self.body.split_inclusive('\n') {
            answer = answer.then(Step::Send(Bytes::copy_from_slice(line.as_bytes())));
        }
        (&self.path, answer.then(Step::Finish))
    }
}

async fn replayed(carrier: Carrier) {
    let recorded: Vec<Recorded> = RECORDED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |id: &str| recorded.iter().find(|exchange| exchange.id == id).unwrap();
    let mut site = Site::without_worker(carrier).await;
    let models = ["smollm2:135m", "smol-tools:latest", "smol-tag:latest"];
    let more = ["smol-think:latest", "smol-embed:latest", "smol-sys:latest"];
    let names: Vec<_> = models
        .iter()
        .chain(&more)
        .map(|name| (*name, true))
        .collect();
    site.ollama.set_models(&names);
    site.ollama
        .settle("/api/version", of("version.get").script().1);
    site.add_worker("home", |_| {}).await;

    let mut different = BTreeMap::new();
    for exchange in &recorded {
        if ABOUT_MODELS.contains(&exchange.path.as_str()) {
            continue;
        }
        let (path, mut answer) = exchange.script();
        if exchange.status == 404 || !exchange.req.contains(r#""model""#) {
            // The relay answers this by itself; the engine must not be asked.
            answer = Answer::json(418, r#"{"error":"the engine was asked"}"#);
        }
        site.ollama.settle(path, answer);
        let method: Method = exchange.method.parse().unwrap();
        let got = site.ask(method, &exchange.path, &exchange.req).await;
        if got != exchange.answer() {
            different.insert(exchange.id.as_str(), got);
        }
    }
    let listed = DIFFERENCES.iter().flat_map(|(_, ids)| *ids);
    for id in listed {
        assert!(
            different.remove(id).is_some(),
            "{id} is not different: take it out"
        );
    }
    assert!(different.is_empty(), "{different:#?}");
}

/// Answers about models are compared where each engine has one model of the recording.
const ABOUT_MODELS: [&str; 3] = ["/api/tags", "/api/ps", "/api/show"];

#[tokio::test]
async fn recorded_answers_are_the_same_over_the_web_socket() {
    replayed(Carrier::WebSocket).await;
}

#[tokio::test]
async fn recorded_answers_are_the_same_over_polls() {
    replayed(Carrier::Polls).await;
}

#[tokio::test]
async fn what_was_recorded_of_models_is_told_as_it_was() {
    let recorded = RECORDED
        .lines()
        .map(|line| serde_json::from_str::<Recorded>(line).unwrap());
    let recorded: Vec<_> = recorded
        .filter(|exchange| ABOUT_MODELS.contains(&exchange.path.as_str()))
        .collect();
    let of = |id: &str| recorded.iter().find(|exchange| exchange.id == id).unwrap();
    let mut site = Site::without_worker(Carrier::WebSocket).await;
    for id in ["tags.get", "show.name"] {
        let (path, answer) = of(id).script();
        site.ollama.settle(path, answer);
    }
    // The model stays loaded forever, so that it is running whenever this test is.
    let running = of("chat.ps.kaneg")
        .body
        .replace("2026-11-22T", "2319-01-01T");
    site.ollama.settle("/api/ps", Answer::json(200, &running));
    site.add("home", |_| {}).await;
    let shown = &of("show.name").body;
    let model = r#"{"model":"smollm2:135m"}"#;
    site.until(Method::POST, "/api/show", model, |body| body == shown)
        .await;
    site.until(Method::GET, "/api/ps", "", |body| body == running)
        .await;
    let mut compared = 0;
    for exchange in recorded.iter().filter(|exchange| {
        let of_others = ["tags.two", "show.copy", "show.sys", "tags.post405"];
        let id = exchange.id.as_str();
        !of_others.contains(&id) && !id.starts_with("var.") && exchange.path != "/api/ps"
    }) {
        let method: Method = exchange.method.parse().unwrap();
        let got = site.ask(method, &exchange.path, &exchange.req).await;
        assert_eq!(got, exchange.answer(), "{}", exchange.id);
        compared += 1;
    }
    assert!(compared >= 9, "{compared}");
}
