//! The relay's metrics, and the listener that serves them to a scraper.
//!
//! The listener is separate from the routes, so that metrics are not exposed publicly by mistake:
//! they contain no secrets, but show how busy the relay is.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use proto::{ErrorCode, Timestamp, admin::WorkerCarrier};
use queue::{Job, Observer};
use serde::Deserialize;
use telemetry::metrics::{CONTENT_TYPE, Now, RelayMetrics};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use crate::{Relay, api::written, error::ApiError, error_format::write_error, loopback};

/// Maximum number of concurrent scrapers; further ones wait to be accepted.
const SCRAPERS_MAX: usize = 16;
/// Maximum time of a scrape, from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest line that is searched for the engine's token counts, in bytes.
const LAST_LINE_MAX: usize = 256 * 1024;
/// Number of dead jobs up to which they are counted.
const DEAD_MAX: usize = 100_000;

/// Updates the metrics from the queue's events.
#[derive(Debug)]
pub(crate) struct Counting(pub(crate) Arc<RelayMetrics>);

impl Observer for Counting {
    fn queued(&self, job: &Job) {
        self.0.queued(job.new.dialect);
    }

    fn lent(&self, now: Timestamp, job: &Job) {
        let is_first = job.attempt == 1;
        self.0.leased(is_first.then(|| now.since(job.created_at)));
    }

    fn first_line(&self, now: Timestamp, job: &Job) {
        self.0.first_line(now.since(job.created_at));
    }

    fn ended(&self, job: &Job, last: Option<&Bytes>) {
        self.0.ended(job.state);
        if let Some((prompt, answer)) = last.and_then(|line| tokens(line)) {
            self.0.tokens(job.new.model.as_str(), prompt, answer);
        }
    }

    fn committed(&self, took: Duration, decisions: usize) {
        self.0.committed(took, decisions);
    }
}

impl Relay {
    async fn numbers(&self) -> Result<Now, ApiError> {
        let counts = self.store.counts();
        let carriers = self.workers.carriers(self.now());
        let workers_by = |carrier| carriers.iter().filter(|one| **one == carrier).count();
        Ok(Now {
            queued: counts.by_priority,
            queued_bytes: counts.queued_bytes,
            leased: counts.leased,
            dead: self.store.count_dead(DEAD_MAX).await?,
            workers_by_socket: workers_by(WorkerCarrier::Websocket),
            workers_by_long_poll: workers_by(WorkerCarrier::LongPoll),
            workers_by_legacy: workers_by(WorkerCarrier::Legacy),
        })
    }
}

/// Returns the engine's token counts of prompt and answer from the last line of a log.
fn tokens(line: &[u8]) -> Option<(u64, u64)> {
    #[derive(Deserialize)]
    struct Last {
        #[serde(default)]
        prompt_eval_count: u64,
        #[serde(default)]
        eval_count: u64,
    }
    if line.len() > LAST_LINE_MAX || !has(line, b"eval_count\"") {
        return None;
    }
    let last: Last = serde_json::from_slice(line).ok()?;
    Some((last.prompt_eval_count, last.eval_count))
}

fn has(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

/// Refuses to serve metrics on an address that other machines can reach, unless `to_all` allows it.
///
/// # Errors
/// One sentence that says so.
pub(crate) fn permitted(address: SocketAddr, to_all: bool) -> io::Result<()> {
    if to_all || address.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "--metrics serves on loopback only, not on {address}, because everyone who reaches it could \
         see the load; listen on 127.0.0.1, or pass --metrics-to-all"
    )))
}

/// Serves `GET /metrics` until the relay stops.
pub async fn serve_metrics(listener: TcpListener, relay: Relay) {
    let stop = relay.stop.clone();
    stop.run_until_cancelled(accept(&listener, &relay)).await;
}

async fn accept(listener: &TcpListener, relay: &Relay) {
    let at = listener.local_addr().ok();
    let at = at.filter(|at| at.ip().to_canonical().is_loopback());
    let places = Arc::new(Semaphore::new(SCRAPERS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((socket, _)) => {
                let (scrape, stop) = (scrape(socket, at, relay.clone()), relay.stop.clone());
                relay.tasks.spawn(async move {
                    stop.run_until_cancelled(timeout(PATIENCE, scrape)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a metrics connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection with one request.
async fn scrape(socket: TcpStream, at: Option<SocketAddr>, relay: Relay) {
    if socket.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let relay = relay.clone();
        async move {
            let path = request.uri().path().to_owned();
            let response = answer(&relay, at, &request).await;
            let response = response.unwrap_or_else(ApiError::into_response);
            Ok::<_, Infallible>(write_error(&path, response))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "metrics connection failed");
    }
}

/// Answers a request. `at` is the listener's address if only this machine reaches it: then web
/// pages of other origins are refused.
async fn answer(
    relay: &Relay,
    at: Option<SocketAddr>,
    request: &Request<Incoming>,
) -> Result<Response, ApiError> {
    if let Some(at) = at {
        loopback::admit(request.headers(), request.uri().authority(), at)?;
    }
    if request.uri().path() != "/metrics" {
        let message = "there is no such path; see /metrics";
        return Err(ApiError::new(ErrorCode::UnknownRoute, message));
    }
    if request.method() != Method::GET {
        let message = "only GET is allowed";
        return Err(ApiError::new(ErrorCode::MethodNotAllowed, message));
    }
    let text = relay.metrics.render(&relay.numbers().await?);
    let mut response = written(CONTENT_TYPE, text);
    let no_store = HeaderValue::from_static("no-store");
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_shown_off_this_machine_only_when_that_was_said() {
        let (here, there) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        assert!(permitted(here, false).is_ok() && permitted(there, true).is_ok());
        let refused = permitted(there, false).unwrap_err().to_string();
        assert!(refused.contains("--metrics-to-all"), "{refused}");
    }
}
