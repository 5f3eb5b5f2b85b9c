//! Requests about jobs: as a requester, and as an operator if the key is none of a requester's.

use reqwest::{Method, Response, StatusCode, Url};

use crate::credentials::{Client, success};

/// Routes of the jobs that a key with `read` and `enqueue` reaches, and of those that a key with
/// `admin` alone reaches.
const ROOTS: [&str; 2] = ["/api/jobs", "/api/admin/jobs"];

/// Sends a request to one of the routes of jobs. If the key lacks the scope, sends it to the
/// operators' route; if it may not use that either, the first refusal counts.
///
/// # Errors
/// One sentence: the relay cannot be reached, or the reason for its refusal.
pub(super) async fn call(
    client: &Client,
    method: Method,
    rest: &str,
    query: &[(&str, String)],
) -> anyhow::Result<Response> {
    let send = async |root: &str| {
        let mut url: Url = client.url(&format!("{root}{rest}")).parse()?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        client.send(client.http.request(method.clone(), url)).await
    };
    let [of_requesters, of_operators] = ROOTS;
    let first = send(of_requesters).await?;
    if first.status() != StatusCode::FORBIDDEN {
        return success(first).await;
    }
    let second = send(of_operators).await?;
    let is_refused = second.status() == StatusCode::FORBIDDEN;
    success(if is_refused { first } else { second }).await
}
