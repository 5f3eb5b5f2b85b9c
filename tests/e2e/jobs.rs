//! `hearth jobs` against a real relay, as scripts use it.

use std::time::Duration;

use hearth_tests::{
    process::finish,
    test_bed::{TestBed, create_key, read_json, store},
};
use serde_json::{Value, json};

async fn jobs(bed: &TestBed, args: &[&str]) -> (bool, String, String) {
    jobs_with(bed, &bed.requester, args).await
}

async fn jobs_with(bed: &TestBed, key: &str, args: &[&str]) -> (bool, String, String) {
    let mut command = bed.hearth(&["jobs"]);
    command.args(args);
    command
        .env("HEARTH_RELAY", format!("http://{}", bed.address))
        .env("HEARTH_KEY", key);
    let done = finish(command).await;
    (done.status.success(), done.stdout, done.stderr)
}

async fn submitted(bed: &TestBed, deadline: Option<Duration>) -> String {
    let secret = "a secret question";
    let mut job = json!({"op": "chat", "body": {"model": "m", "messages":
        [{"role": "user", "content": secret}]}});
    if let Some(deadline) = deadline {
        job["deadline_ms"] = json!(deadline.as_millis());
    }
    let answer = bed.post("/api/jobs", &job).send().await.unwrap();
    let job: Value = answer.json().await.unwrap();
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn jobs_are_listed_shown_retried_and_cancelled_from_the_command_line() {
    let bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let waiting = submitted(&bed, None).await;
    let dead = submitted(&bed, Some(Duration::from_millis(1))).await;
    // Resolves when the job has ended.
    let events = bed.get(&format!("/api/jobs/{dead}/events")).send().await;
    events.unwrap().text().await.unwrap();

    let (done, listed, hint) = jobs(&bed, &["list", "--limit", "1"]).await;
    assert!(done && listed.starts_with("ID "), "{listed}");
    assert!(
        listed.contains(&dead) && !listed.contains(&waiting),
        "{listed}"
    );
    let cursor = hint.trim().rsplit(' ').next().unwrap();
    let (_, rest, _) = jobs(&bed, &["list", "--after", cursor]).await;
    assert!(rest.contains(&waiting) && !rest.contains(&dead), "{rest}");

    for (filter, is_listed) in [
        (["--op", "chat"], true),
        (["--op", "embed"], false),
        (["--since", "2026-01-01T00:00:00Z"], true),
        (["--until", "2026-01-01T00:00:00Z"], false),
    ] {
        let (done, listed, said) = jobs(&bed, &[&["list"], &filter[..]].concat()).await;
        assert!(
            done && listed.contains(&dead) == is_listed,
            "{listed}{said}"
        );
    }

    let (done, shown, _) = jobs(&bed, &["show", &dead]).await;
    assert!(done && shown.contains("deadline_exceeded"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");

    let (done, made, said) = jobs(&bed, &["retry", &dead]).await;
    assert!(done, "{said}");
    let made = made.trim();
    let (_, shown, _) = jobs(&bed, &["show", "--json", &dead]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["retried_as"], made);
    let (done, _, refused) = jobs(&bed, &["retry", &waiting]).await;
    assert!(!done && refused.contains("job_unfinished"), "{refused}");

    let (done, told, _) = jobs(&bed, &["cancel", &waiting]).await;
    assert!(done && told == format!("cancelled {waiting}\n"), "{told}");
    let (_, listed, _) = jobs(&bed, &["list", "--json", "--state", "cancelled"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["jobs"][0]["id"], waiting.as_str());
    assert_eq!(listed["next"], Value::Null);
}

#[tokio::test]
async fn an_operators_key_lists_shows_retries_and_cancels_the_jobs_of_others() {
    let mut bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let reach = ["--name", "staff", "--account", "staff", "--scope", "admin"];
    let staff = create_key(&bed.home, &reach).await;
    let operator = async |args: &[&str]| jobs_with(&bed, &staff, args).await;
    let id = submitted(&bed, None).await;

    let (done, listed, said) = operator(&["list", "--state", "queued"]).await;
    assert!(done && listed.contains(&id), "{listed}{said}");
    let (done, shown, said) = operator(&["show", &id]).await;
    assert!(done && shown.contains(&id), "{said}");
    assert!(!shown.contains("secret"), "{shown}");
    let (done, told, said) = operator(&["cancel", &id]).await;
    assert!(done && told == format!("cancelled {id}\n"), "{said}");
    let (done, made, said) = operator(&["retry", &id]).await;
    assert!(done, "{said}");
    let (_, shown, _) = jobs(&bed, &["show", "--json", made.trim()]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["state"], &shown["account"]),
        (&json!("queued"), &json!("default"))
    );
    let (done, _, said) = operator(&["show", &"0".repeat(32)]).await;
    assert!(!done && said.contains("unknown_job"), "{said}");

    // The refusal that counts is the one of the requesters' route.
    let (done, _, said) = jobs_with(&bed, &bed.worker, &["cancel", &id]).await;
    assert!(!done && said.contains("scope `enqueue`"), "{said}");

    let new = json!({"name": "ci", "scopes": ["read"]});
    let request = bed
        .http
        .post(bed.url("/api/admin/keys"))
        .bearer_auth(&staff);
    let made = read_json(request.json(&new)).await;
    let path = format!("/api/admin/keys/{}", made["id"].as_str().unwrap());
    let request = bed.http.delete(bed.url(&path)).bearer_auth(&staff);
    assert!(request.send().await.unwrap().status().is_success());
    let relay = bed.relay.as_mut().unwrap();
    relay.says("key revoked").await;
    let log = relay.log();
    for done in [
        "cancelled by request",
        "submitted as a retry",
        "key created",
        "key revoked",
    ] {
        let line = log.lines().find(|line| line.contains(done)).unwrap();
        assert!(line.contains("staff ("), "by whom: {line}");
    }
}

#[tokio::test]
async fn a_key_with_bounds_shows_them_and_reaches_no_further() {
    let bed = TestBed::relay_only("ollama:http://127.0.0.1:1").await;
    let reach = ["--name", "bounded", "--scope", "enqueue", "--scope", "read"];
    let bounds = [
        "--model",
        "qwen*",
        "--max-priority",
        "7",
        "--expires",
        "30d",
    ];
    let key = create_key(&bed.home, &[reach, bounds].concat()).await;
    let list = bed.hearth(&["key", "list", "--store", &store(&bed.home)]);
    let listed = finish(list).await.stdout;
    let line = listed.lines().find(|line| line.contains("bounded"));
    let line = line.unwrap_or_else(|| panic!("{listed}"));
    for told in ["active", "models qwen*", "priorities 7 to 10", "expires 20"] {
        assert!(line.contains(told), "{told}: {line}");
    }
    let list = bed.hearth(&["key", "list", "--json", "--store", &store(&bed.home)]);
    let listed: Value = serde_json::from_str(&finish(list).await.stdout).unwrap();
    let listed = listed.as_array().unwrap().iter();
    let told = listed.clone().find(|key| key["name"] == "bounded").unwrap();
    assert_eq!(
        (&told["models"], &told["max_priority"], &told["revoked_at"]),
        (&json!(["qwen*"]), &json!(7), &Value::Null)
    );
    let ask = async |model: &str, priority: u8| {
        let job = json!({"op": "chat", "priority": priority, "body": {"model": model, "messages":
            [{"role": "user", "content": "?"}]}});
        let request = bed.http.post(bed.url("/api/jobs")).bearer_auth(&key);
        let answer = request.json(&job).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (status, job) = ask("qwen3:4b", 7).await;
    assert_eq!((status, &job["priority"]), (202, &json!(7)), "{job}");
    for (model, priority, code) in [
        ("llama3", 7, "model_forbidden"),
        ("qwen3:4b", 6, "priority_forbidden"),
    ] {
        let (status, refusal) = ask(model, priority).await;
        assert_eq!((status, &refusal["error"]["code"]), (403, &json!(code)));
    }
}
