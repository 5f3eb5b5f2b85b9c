//! Changes of an engine's models: only with the right key, and only where the machine's owner
//! allows them.

use hearth_tests::scripted_ollama::{Answer, Gate, Step};
use queue::{Ceiling, ModelPatterns, Scope};
use reqwest::Method;

use crate::site::{Carrier, Exchange, Site, bounded, create_key, create_key_within};

const PULL: &str = r#"{"model":"hf.co/a/b:Q4",  "insecure":false}"#;
const PULLED: [&str; 3] = [
    r#"{"status":"pulling manifest"}"#,
    r#"{"status":"pulling 941f","digest":"sha256:941f","total":91727296,  "completed":1}"#,
    r#"{"status":"success"}"#,
];
const COPY: &str = r#"{"source":"tiny","destination":"other"}"#;
const DELETE: &str = r#"{"model":"tiny"}"#;
const CREATE: &str = r#"{"model":"pirate","from":"tiny","system":"You are a pirate."}"#;

async fn site(carrier: Carrier, is_allowed: bool, is_admin: bool) -> Site {
    let mut site = Site::without_worker(carrier).await;
    let allow = |settings: &mut worker::WorkerSettings| settings.allow_model_changes = is_allowed;
    site.add_worker("home", allow).await;
    if is_admin {
        site.key = create_key(&site.store, &[Scope::Admin, Scope::Enqueue]).await;
    }
    site
}

fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Exchange {
    Exchange {
        status: 200,
        kind: "application/x-ndjson".into(),
        body: lines.into_iter().map(|line| format!("{line}\n")).collect(),
    }
}

fn object(status: u16, body: &str) -> Exchange {
    Exchange {
        status,
        kind: "application/json; charset=utf-8".into(),
        body: body.into(),
    }
}

async fn are_changed_only_where(carrier: Carrier, is_allowed: bool, is_admin: bool) {
    let nothing = Exchange {
        status: 200,
        kind: String::new(),
        body: String::new(),
    };
    let site = site(carrier, is_allowed, is_admin).await;
    for (method, path, request, answer, want) in [
        (
            Method::POST,
            "/api/pull",
            PULL,
            Answer::lines(PULLED),
            lines(PULLED),
        ),
        (
            Method::POST,
            "/api/create",
            CREATE,
            Answer::lines(PULLED),
            lines(PULLED),
        ),
        (
            Method::POST,
            "/api/copy",
            COPY,
            Answer::empty(200),
            nothing.clone(),
        ),
        (
            Method::DELETE,
            "/api/delete",
            DELETE,
            Answer::empty(200),
            nothing.clone(),
        ),
    ] {
        site.ollama.script(path, answer);
        let got = site.ask(method.clone(), path, request).await;
        if is_allowed && is_admin {
            assert_eq!(got, want, "{path}");
            assert_eq!(site.arrived(path), [request], "byte for byte");
            let asked = site.ollama.requests_for(path);
            assert_eq!(asked[0].method, method.as_str());
        } else {
            assert_eq!(got.status, 403, "{path}: {}", got.body);
            let what = if is_admin {
                "--allow-model-changes"
            } else {
                "`admin`"
            };
            assert!(got.body.starts_with(r#"{"error":""#), "{}", got.body);
            assert!(got.body.contains(what), "{}", got.body);
            assert!(site.arrived(path).is_empty(), "{path}");
        }
    }
}

#[tokio::test]
async fn an_admin_changes_models_where_their_owner_allows_it() {
    are_changed_only_where(Carrier::WebSocket, true, true).await;
    are_changed_only_where(Carrier::Polls, true, true).await;
}

#[tokio::test]
async fn nobody_else_does_and_nowhere_else() {
    for (is_allowed, is_admin) in [(true, false), (false, true), (false, false)] {
        are_changed_only_where(Carrier::WebSocket, is_allowed, is_admin).await;
    }
}

#[tokio::test]
async fn a_failure_is_a_status_before_the_first_line_and_the_last_line_after_it() {
    let site = site(Carrier::WebSocket, true, true).await;
    let error = r#"{"error":"pull model manifest: file does not exist"}"#;
    let answer = Answer::begin().send_lines([PULLED[0], error]);
    site.ollama.script("/api/pull", answer.then(Step::Finish));
    let got = site.post("/api/pull", PULL).await;
    assert_eq!(got, lines([PULLED[0], error]));

    site.ollama.script("/api/pull", Answer::json(500, error));
    let whole = r#"{"model":"x","stream":false}"#;
    assert_eq!(site.post("/api/pull", whole).await, object(500, error));
    let success = r#"{"status":"success"}"#;
    site.ollama.script("/api/pull", Answer::json(200, success));
    assert_eq!(site.post("/api/pull", whole).await, object(200, success));

    for (method, path, request, status, says) in [
        (
            Method::POST,
            "/api/pull",
            r#"{"model":"a b"}"#,
            400,
            "invalid model name",
        ),
        (Method::POST, "/api/pull", "{}", 400, "invalid model name"),
        (Method::POST, "/api/pull", "", 400, "missing request body"),
        (
            Method::POST,
            "/api/copy",
            "{}",
            400,
            r#"source \"\" is invalid"#,
        ),
        (
            Method::POST,
            "/api/copy",
            r#"{"source":"nosuch"}"#,
            404,
            r#"model \"nosuch\" not found"#,
        ),
        (
            Method::DELETE,
            "/api/delete",
            "{}",
            400,
            "model is required",
        ),
        (
            Method::DELETE,
            "/api/delete",
            r#"{"name":"nosuch"}"#,
            404,
            "model 'nosuch' not found",
        ),
    ] {
        let got = site.ask(method, path, request).await;
        let want = object(status, &format!(r#"{{"error":"{says}"}}"#));
        assert_eq!(got, want, "{path} {request}");
    }
    for files in [
        r#"{"model":"x","files":{"a.gguf":"sha256:00"}}"#,
        r#"{"model":"x","modelfile":"FROM /etc/passwd"}"#,
    ] {
        assert_eq!(site.post("/api/create", files).await.status, 403);
    }
    assert_eq!(site.post("/api/push", DELETE).await.status, 403);
    let job = r#"{"op":"delete","body":{"model":"tiny"}}"#;
    assert_eq!(site.post("/api/jobs", job).await.status, 400);
    assert!(site.arrived("/api/delete").is_empty());
}

#[tokio::test]
async fn a_pull_waits_for_no_slot_takes_none_and_ends_with_whoever_wanted_it() {
    let site = site(Carrier::WebSocket, true, true).await;
    let gate = Gate::default();
    let answer = Answer::begin().send_lines([PULLED[0]]);
    site.ollama
        .script("/api/pull", answer.then(Step::Wait(gate.clone())));
    let mut pull = site.begin(Method::POST, "/api/pull", PULL).await;
    let first = bounded(pull.chunk()).await.unwrap().unwrap();
    assert_eq!(first, format!("{}\n", PULLED[0]));
    let chat = r#"{"model":"tiny","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(site.post("/api/chat", chat).await.status, 200, "meanwhile");
    drop(pull);
    bounded(site.ollama.until_left(1)).await;
}

#[tokio::test]
async fn a_pull_that_stops_before_it_succeeded_has_failed() {
    let site = site(Carrier::WebSocket, true, true).await;
    site.ollama.script("/api/pull", Answer::lines([PULLED[0]]));
    let got = site.post("/api/pull", PULL).await;
    let last = got.body.lines().last().unwrap();
    assert!(last.starts_with(r#"{"error":""#), "{}", got.body);
}

async fn is_told_at_once(carrier: Carrier) {
    let mut site = Site::without_worker(carrier).await;
    site.add_worker("home", |settings| settings.allow_model_changes = true)
        .await;
    let scopes = [Scope::Admin, Scope::Enqueue, Scope::Read];
    site.key = create_key(&site.store, &scopes).await;
    let tiny = r#"{"model":"tiny"}"#;
    site.until(Method::POST, "/api/show", tiny, |body| {
        body.contains("general.architecture")
    })
    .await;

    site.ollama.script("/api/pull", Answer::lines(PULLED));
    let models = [("tiny:latest", false), ("new:1b", false)];
    site.ollama.set_models(&models);
    assert_eq!(site.post("/api/pull", PULL).await, lines(PULLED));
    assert!(site.get("/api/tags").await.body.contains("new:1b"));
    let new = r#"{"model":"new:1b"}"#;
    assert_eq!(site.post("/api/show", new).await.status, 200);
    let chat = r#"{"model":"new:1b","stream":false,"messages":[{"role":"user","content":"x"}]}"#;
    assert_eq!(site.post("/api/chat", chat).await.status, 200);

    site.ollama.script("/api/delete", Answer::empty(200));
    site.ollama.set_models(&models[1..]);
    let deleted = site.ask(Method::DELETE, "/api/delete", tiny).await;
    assert_eq!(deleted.status, 200);
    assert!(!site.get("/api/tags").await.body.contains("tiny"));
    assert_eq!(site.post("/api/show", tiny).await.status, 404);
}

#[tokio::test]
async fn models_are_told_as_they_are_as_soon_as_the_change_is_answered() {
    is_told_at_once(Carrier::WebSocket).await;
}

#[tokio::test]
async fn models_are_told_as_they_are_over_polls_too() {
    is_told_at_once(Carrier::Polls).await;
}

#[tokio::test]
async fn a_change_goes_to_the_agent_that_is_named_if_its_owner_allows_it() {
    let mut site = Site::without_worker(Carrier::WebSocket).await;
    site.add_worker("open", |settings| settings.allow_model_changes = true)
        .await;
    site.add("shut", |_| {}).await;
    let is_online = |body: &str| body.matches("tiny:latest").count() > 0;
    site.until(Method::GET, "/api/tags", "", is_online).await;
    site.key = create_key(&site.store, &[Scope::Admin]).await;
    let ask = async |worker: &str| {
        let request = site
            .http
            .post(format!("http://{}/api/pull", site.relay))
            .bearer_auth(&site.key)
            .header("x-hearth-worker", worker)
            .body(PULL);
        bounded(request.send()).await.unwrap().status().as_u16()
    };
    assert_eq!(ask("shut").await, 403);
    assert_eq!(ask("a b").await, 400);
    assert!(site.arrived("/api/pull").is_empty());
    site.ollama.script("/api/pull", Answer::lines(PULLED));
    assert_eq!(ask("open").await, 200);
}

#[tokio::test]
async fn a_key_changes_no_model_that_it_may_not_ask_for() {
    let mut site = site(Carrier::WebSocket, true, true).await;
    let ceiling = Ceiling {
        models: ModelPatterns::new(vec!["small*".parse().unwrap()]),
        ..Ceiling::default()
    };
    site.key = create_key_within(&site.store, &[Scope::Admin], ceiling).await;
    for (method, path, request) in [
        (Method::POST, "/api/pull", PULL),
        (Method::DELETE, "/api/delete", DELETE),
        (Method::POST, "/api/copy", COPY),
        (
            Method::POST,
            "/api/copy",
            r#"{"source":"small","destination":"tiny"}"#,
        ),
        (
            Method::POST,
            "/api/create",
            r#"{"model":"small","from":"tiny"}"#,
        ),
    ] {
        let got = site.ask(method, path, request).await;
        assert_eq!(got.status, 403, "{request}: {}", got.body);
        assert!(
            got.body.contains("does not permit the model"),
            "{}",
            got.body
        );
        assert!(site.arrived(path).is_empty());
    }
    site.ollama.script("/api/pull", Answer::lines(PULLED));
    let got = site.post("/api/pull", r#"{"model":"small:1b"}"#).await;
    assert_eq!(got.status, 200, "{}", got.body);
}
