//! Requests that name their priority in a header.

use http::{Method, StatusCode};
use proto::Priority;
use queue::{Ceiling, Scope};

use crate::{
    chosen_worker::ROUTES,
    client::{Client, Reply},
    server::Server,
    worker::Scripted,
};

async fn post(client: &Client, path: &str, priority: &str, body: &str) -> Reply {
    let headers = [("x-hearth-priority", priority)];
    let body = body.to_owned();
    client.send_with(Method::POST, path, &headers, body).await
}

#[tokio::test]
async fn every_route_that_makes_a_job_takes_its_priority_as_far_as_the_key_permits() {
    let server = Server::start().await;
    let _worker = Scripted::serving(&server, "default", &["m"], 0).await;
    let client = server.requester().await;
    let ceiling = Ceiling {
        priority: Priority::new(7),
        ..Ceiling::default()
    };
    let scopes = [Scope::Enqueue, Scope::Read];
    let low = server.limited_key("default", &scopes, ceiling, None).await;
    let low = Client::new(server.base(), Some(low));
    for (path, body) in ROUTES {
        // Without a message it would only load the model, before all other jobs.
        let messages = r#""messages":[{"role":"user","content":"x"}]"#;
        let body = body.replace(r#""messages":[]"#, messages);
        for (client, priority, status, code) in [
            (&client, "0", StatusCode::BAD_REQUEST, "bad_request"),
            (&client, "high", StatusCode::BAD_REQUEST, "bad_request"),
            (&low, "6", StatusCode::FORBIDDEN, "priority_forbidden"),
        ] {
            let reply = post(client, path, priority, &body).await;
            let told = (reply.status, reply.header("x-hearth-error"));
            assert_eq!(told, (status, code), "{path} {priority}");
        }
        for (client, priority, level) in [(&client, "2", 2), (&low, "9", 9)] {
            let asked = tokio::spawn({
                let (client, body) = (client.clone(), body.clone());
                async move { post(&client, path, priority, &body).await }
            });
            server.until(|counts| counts.queued == 1).await;
            let jobs = client.get("/api/jobs?state=queued").await.json().await;
            assert_eq!(jobs[0]["priority"], level, "{path}");
            let job = format!("/api/jobs/{}", jobs[0]["id"].as_str().unwrap());
            let ended = client.send(Method::DELETE, &job, "").await;
            assert_eq!(ended.status, StatusCode::NO_CONTENT);
            asked.await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_priority_in_a_jobs_own_request_counts_before_that_of_the_header() {
    let server = Server::start().await;
    let client = server.requester().await;
    let body = r#"{"op":"chat","priority":3,"body":{"model":"m","messages":[]}}"#;
    let made = post(&client, "/api/jobs", "8", body).await;
    assert_eq!(made.json().await["priority"], 3);
}
