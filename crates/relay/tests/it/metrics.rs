//! The metrics that a scraper reads.

use std::time::Duration;

use hearth_relay::RelaySettings;
use http::{Method, StatusCode};
use proto::{ErrorCode, JobError, worker::Retry};
use queue::{Owner, Queue as _, Scope};
use serde_json::json;

use crate::{
    client::Client,
    server::Server,
    worker::{Scripted, report},
};

const CHAT: &str = r#"{"model":"m","messages":[{}]}"#;

async fn scraped(client: &Client) -> String {
    let reply = client.get("/metrics").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(
        reply
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    reply.text().await
}

fn has(text: &str, line: &str) {
    assert!(text.lines().any(|found| found == line), "{line}\n{text}");
}

#[tokio::test]
async fn a_scraper_reads_what_became_of_each_job() {
    let server = Server::start().await;
    let scraper = Client::new(format!("http://{}", server.metrics().await), None);
    let client = server.requester().await;
    let mut worker = Scripted::ready(&server).await;
    let asked = tokio::spawn(async move { client.post("/api/chat", CHAT).await.text().await });
    let job = worker.lease().await;
    let text = scraped(&scraper).await;
    has(&text, "hearth_leased_jobs 1");
    has(&text, r#"hearth_workers{carrier="websocket"} 1"#);
    worker.answer(&job, &["one", "two"]).await;
    asked.await.unwrap();
    let refused = server.nobody().get("/api/jobs").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let in_other_words = server.nobody().get("/api/queries/").await;
    assert_eq!(in_other_words.status, StatusCode::UNAUTHORIZED);
    // No worker serves this account, so its job stays queued.
    let client = server.client("lonely", &[Scope::Enqueue]).await;
    let job =
        r#"{"op":"chat","priority":3,"deadline_ms":60000,"body":{"model":"m","messages":[{}]}}"#;
    assert_eq!(
        client.post("/api/jobs", job).await.status,
        StatusCode::ACCEPTED
    );

    let text = scraped(&scraper).await;
    for line in [
        r#"hearth_jobs_queued_total{dialect="ollama"} 1"#,
        r#"hearth_jobs_queued_total{dialect="native"} 1"#,
        "hearth_leases_total 1",
        "hearth_leased_jobs 0",
        r#"hearth_jobs_ended_total{state="completed"} 1"#,
        "hearth_queue_wait_seconds_count 1",
        "hearth_first_token_seconds_count 1",
        r#"hearth_tokens_total{model="m",kind="prompt"} 3"#,
        r#"hearth_tokens_total{model="m",kind="answer"} 2"#,
        r#"hearth_refused_total{code="unauthorized"} 2"#,
        r#"hearth_queue_jobs{priority="3"} 1"#,
        r#"hearth_queue_jobs{priority="5"} 0"#,
        "hearth_dead_jobs 0",
    ] {
        has(&text, line);
    }
    // A dead job is a failed one that is kept.
    let store = &server.store;
    let query = queue::LeaseQuery {
        worker: "w".parse().unwrap(),
        serve: queue::Serve::All,
        models: queue::Models::Any,
        allowed_models: <_>::default(),
        excluded_models: <_>::default(),
        accepts_model_changes: false,
        request_max: usize::MAX,
    };
    let (now, long) = (proto::Timestamp(0), Duration::from_secs(60));
    let lease = store.lease(now, &query, long).await.unwrap().unwrap();
    let why = JobError::new(ErrorCode::EngineFailed, "it broke");
    store
        .nack(now, lease.token, Retry::Never, why)
        .await
        .unwrap();
    let text = scraped(&scraper).await;
    has(&text, "hearth_dead_jobs 1");
    has(&text, r#"hearth_jobs_ended_total{state="failed"} 1"#);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn workers_are_told_apart_by_their_carrier_in_metrics_and_dashboard_alike() {
    let mut settings = RelaySettings::default();
    settings.legacy_poll_hold = Duration::ZERO;
    // Long enough for all polls on any machine.
    settings.online_after_poll = Duration::from_secs(3600);
    let server = Server::with(settings).await;
    let _socket = Scripted::ready(&server).await;
    let poller = server.client("default", &[Scope::Work]).await;
    let poll = json!({
        "worker": "polls", "version": "0", "report": report(&["m"]), "free": 0, "wait_ms": 0,
    });
    let polled = poller.post("/api/worker/v1/poll", poll.to_string()).await;
    assert_eq!(polled.status, StatusCode::NO_CONTENT);
    let older = server.client("default", &[Scope::Work]).await;
    older.get("/api/ollama/poll").await;
    // This one, too, reports models.
    let status = json!({"providers": [{"availableModels": ["m"], "isEnabled": true}]});
    let reported = older
        .post(
            "/api/bridge/00000000-0000-4000-8000-000000000000/provider-status",
            status.to_string(),
        )
        .await;
    assert_eq!(reported.status, StatusCode::OK);

    let scraper = Client::new(format!("http://{}", server.metrics().await), None);
    let text = scraped(&scraper).await;
    for (carrier, workers) in [("legacy", 2), ("long_poll", 1), ("websocket", 1)] {
        let line = format!(r#"hearth_workers{{carrier="{carrier}"}} {workers}"#);
        has(&text, &line);
    }
    let admin = server.client("staff", &[Scope::Admin]).await;
    let told = admin.get("/api/admin/overview").await.json().await;
    let workers = told["workers"].as_array().unwrap();
    let mut shown: Vec<_> = workers.iter().map(|worker| &worker["carrier"]).collect();
    shown.sort_by_key(|carrier| carrier.to_string());
    let carriers = ["legacy", "legacy", "long_poll", "websocket"];
    assert_eq!(shown, carriers, "{told}");
}

#[tokio::test]
async fn no_account_and_no_job_makes_a_series() {
    let server = Server::start().await;
    let scraper = Client::new(format!("http://{}", server.metrics().await), None);
    let series = async || {
        let text = scraped(&scraper).await;
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    let before = series().await;
    for n in 0..20 {
        let scopes = [Scope::Enqueue, Scope::Read];
        let client = server.client(&format!("account-{n}"), &scopes).await;
        let job = format!(
            r#"{{"op":"chat","deadline_ms":60000,"body":{{"model":"model-{n}","messages":[{{}}]}}}}"#
        );
        let reply = client.post("/api/jobs", job).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED);
    }
    for job in server.store.list(Owner::Anyone, 10).await.unwrap() {
        let now = proto::Timestamp(0);
        server
            .store
            .cancel(now, Owner::Anyone, job.new.id)
            .await
            .unwrap();
    }
    assert_eq!(series().await, before);
    let text = scraped(&scraper).await;
    assert!(
        !text.contains("account-") && !text.contains("model-"),
        "{text}"
    );
}

#[tokio::test]
async fn no_web_page_reads_the_metrics_and_nothing_else_is_served_there() {
    let server = Server::start().await;
    let scraper = Client::new(format!("http://{}", server.metrics().await), None);
    for (header, value, status) in [
        ("origin", "https://elsewhere.example", StatusCode::FORBIDDEN),
        ("host", "elsewhere.example", StatusCode::FORBIDDEN),
        ("accept", "text/plain", StatusCode::OK),
    ] {
        let headers = [(header, value)];
        let reply = scraper
            .send_with(Method::GET, "/metrics", &headers, "")
            .await;
        assert_eq!(reply.status, status, "{header}: {value}");
    }
    assert_eq!(scraper.get("/api/jobs").await.status, StatusCode::NOT_FOUND);
    let posted = scraper.post("/metrics", "").await;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    // The relay's own routes do not serve metrics.
    let reply = server.requester().await.get("/metrics").await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
}
