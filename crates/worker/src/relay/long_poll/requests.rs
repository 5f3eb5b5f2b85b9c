//! The requests of a polling worker, and the meaning of the responses.

use bytes::BytesMut;
use proto::{
    Detail, ErrorCode, LeaseToken, WorkerReport, cause, limits,
    worker::{
        DRAIN_HEADER, DetailsAnswer, DetailsRequest, EndRequest, LeaseAnswer, NackRequest,
        PollAnswer, PollRequest,
    },
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, timeout};

use super::super::{
    Relay,
    http::{Refusal, lost, read_body, unanswered},
};
use crate::{LinkEnd, Outgoing};

/// Timeout of a post, and of a poll in addition to its hold.
const ANSWER: Duration = Duration::from_secs(30);
/// Maximum size of the response to a poll, in bytes: several requests, which escaping may have
/// doubled.
const POLL_ANSWER_MAX: usize = 4 * limits::BODY_MAX;

/// The response to a poll.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) answer: PollAnswer,
    /// Whether the relay is shutting down.
    pub(super) drains: bool,
}

/// Outcome of a post.
pub(super) enum Posted {
    Lines(LeaseAnswer),
    Closed,
    Gone(ErrorCode),
    Gap,
}

pub(super) async fn tell_details(
    relay: &Relay,
    number: u64,
    details: Vec<Detail>,
) -> (u64, Result<DetailsAnswer, LinkEnd>) {
    (number, tell(relay, None, details).await)
}

async fn tell(
    relay: &Relay,
    report: Option<WorkerReport>,
    details: Vec<Detail>,
) -> Result<DetailsAnswer, LinkEnd> {
    let body = DetailsRequest {
        worker: relay.worker.clone(),
        report,
        details,
    };
    let request = relay.endpoint.request(Method::POST, "/details").json(&body);
    let response = send(request.timeout(ANSWER)).await?;
    match response.status() {
        StatusCode::OK => json(response, 1024).await,
        // An older relay, which does not know details.
        StatusCode::NOT_FOUND => Ok(DetailsAnswer {
            report_wanted: false,
        }),
        _ => Err(Refusal::read(response).await.into_link_end()),
    }
}

pub(super) async fn poll(
    relay: &Relay,
    held: Vec<LeaseToken>,
    (free, urgent): (u32, u32),
    hold: Duration,
    number: u64,
    report: Option<WorkerReport>,
) -> (u64, Result<Polled, LinkEnd>) {
    let body = PollRequest {
        worker: relay.worker.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        report,
        free,
        urgent,
        held,
        wait_ms: u64::try_from(hold.as_millis()).unwrap_or(0),
    };
    let request = relay.endpoint.request(Method::POST, "/poll").json(&body);
    let answer = async {
        // The body may take longer: requests are many and large, and the connection may be slow.
        let response = timeout(hold + ANSWER, send(request)).await;
        let response = response.map_err(|_| lost("the relay did not answer in time"))??;
        let drains = response.headers().contains_key(DRAIN_HEADER);
        if response.status() == StatusCode::NO_CONTENT {
            let answer = PollAnswer::default();
            return Ok(Polled { answer, drains });
        }
        if response.status() != StatusCode::OK {
            return Err(Refusal::read(response).await.into_link_end());
        }
        let answer = json(response, POLL_ANSWER_MAX).await?;
        Ok(Polled { answer, drains })
    };
    (number, answer.await)
}

/// Posts the output of a job, and before it the report if that must come first.
pub(super) async fn post(
    relay: &Relay,
    report: Option<WorkerReport>,
    outgoing: Outgoing,
) -> (LeaseToken, Result<Posted, LinkEnd>) {
    let token = outgoing.token();
    if report.is_some()
        && let Err(end) = tell(relay, report, Vec::new()).await
    {
        return (token, Err(end));
    }
    let path = |verb: &str| format!("/jobs/{}/{}/{verb}", token.job, token.attempt);
    let endpoint = &relay.endpoint;
    let posted = match outgoing {
        Outgoing::Lines { first, lines, .. } => {
            let mut body = BytesMut::new();
            for line in lines {
                body.extend_from_slice(&line);
                body.extend_from_slice(b"\n");
            }
            let request = endpoint
                .request(Method::POST, &path(&format!("lines?first={first}")))
                .header(header::CONTENT_TYPE, "application/x-ndjson")
                .body(body.freeze());
            lines_posted(request).await
        }
        Outgoing::End { lines, end, .. } => {
            let request = endpoint.request(Method::POST, &path("end"));
            closing_posted(request.json(&EndRequest { lines, end })).await
        }
        Outgoing::Nack { retry, why, .. } => {
            let request = endpoint.request(Method::POST, &path("nack"));
            let nack = NackRequest {
                retry,
                code: why.code,
                message: why.message,
                engine_status: why.engine_status,
            };
            closing_posted(request.json(&nack)).await
        }
    };
    (token, posted)
}

pub(super) async fn extend(
    relay: &Relay,
    token: LeaseToken,
) -> (LeaseToken, Result<Posted, LinkEnd>) {
    let path = format!("/jobs/{}/{}/extend", token.job, token.attempt);
    let posted = lines_posted(relay.endpoint.request(Method::POST, &path)).await;
    (token, posted)
}

async fn lines_posted(request: RequestBuilder) -> Result<Posted, LinkEnd> {
    let response = send(request.timeout(ANSWER)).await?;
    if response.status().is_success() {
        return Ok(Posted::Lines(json(response, 1024).await?));
    }
    refused(response).await
}

async fn closing_posted(request: RequestBuilder) -> Result<Posted, LinkEnd> {
    let response = send(request.timeout(ANSWER)).await?;
    if response.status().is_success() {
        return Ok(Posted::Closed);
    }
    refused(response).await
}

/// Converts a refusal: one that names the lease ends the lease, any other ends the link.
async fn refused(response: Response) -> Result<Posted, LinkEnd> {
    let refusal = Refusal::read(response).await;
    match refusal.code {
        Some(ErrorCode::ChunkGap) => Ok(Posted::Gap),
        Some(code) if matches!(refusal.status.as_u16(), 400 | 404 | 409 | 413) => {
            Ok(Posted::Gone(code))
        }
        Some(_) | None => Err(refusal.into_link_end()),
    }
}

async fn send(request: RequestBuilder) -> Result<Response, LinkEnd> {
    request.send().await.map_err(|error| unanswered(&error))
}

async fn json<T: DeserializeOwned>(response: Response, max: usize) -> Result<T, LinkEnd> {
    let body = read_body(response, max).await?;
    serde_json::from_slice(&body).map_err(|error| {
        if body.is_empty() {
            lost("the relay's response was empty")
        } else {
            LinkEnd::NotTheRelay(cause(&error))
        }
    })
}
