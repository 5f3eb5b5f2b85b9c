//! The tunnel service's HTTP polling bridge: a desktop registers, polls for requests to its engine,
//! and answers them. The relay keeps no bridges: any well-formed id belongs to the key that shows
//! it.

use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use dialect::bridge::{Answer, EngineRequest, polling};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use proto::{ErrorCode, JobError, WorkerId, WorkerReport, admin::WorkerCarrier, worker::Retry};
use queue::{Extended, LeaseQuery};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::{relay_polling::leased, written};
use crate::{
    Relay,
    auth::{Caller, MayWork, in_headers},
    carrier::{
        arrivals::Arrivals,
        desktop::{ANSWER_WITHIN, end_cancelled, query, settle},
        poll::{held_for, in_parts},
        undelivered::UndeliveredLeases,
    },
    error::ApiError,
    error_format::CODE,
    payload::{Control, Inference, Payload, Poll},
    target::{InPath, InQuery},
    workers::{OnlineId, OnlineWorker, Reported},
};

const JSON: &str = "application/json";
/// Time for which a bridge counts as online after a request; it sends a heartbeat every 60 s.
pub(crate) const ALIVE: Duration = Duration::from_secs(90);
/// Maximum number of waiting jobs that are counted for the state of a bridge.
const COUNTED_MAX: usize = 100;

/// A bridge of a caller.
struct Bridge {
    relay: Relay,
    caller: Caller,
    worker: WorkerId,
    id: OnlineId,
}

impl Bridge {
    fn new(relay: Relay, caller: Caller, id: &str) -> Result<Self, ApiError> {
        let worker = Some(id).filter(|id| polling::is_id(id));
        let worker = worker.and_then(|id| WorkerId::new(format!("bridge-{id}")).ok());
        let worker =
            worker.ok_or_else(|| ApiError::new(ErrorCode::UnknownJob, polling::UNKNOWN))?;
        Ok(Self {
            id: OnlineId::Poll(caller.key_id().to_owned(), worker.clone()),
            relay,
            caller,
            worker,
        })
    }

    /// Records that the bridge is online for this long.
    fn keep_online(&self, for_: Duration) -> Result<(), ApiError> {
        let Self { relay, caller, .. } = self;
        relay.workers.admit(&self.id, relay.now())?;
        let online = OnlineWorker {
            until: Some(relay.now() + for_),
            ..OnlineWorker::of(caller, WorkerCarrier::Legacy)
        };
        relay.workers.register(self.id.clone(), online);
        relay.workers.seen(&self.id, relay.now(), Some(1));
        Ok(())
    }

    /// Records a sign of life between two polls, which renews the leases of the bridge: it may work
    /// on several requests.
    async fn heard(&self) -> Result<(), ApiError> {
        let (relay, now) = (&self.relay, self.relay.now());
        let length = relay.settings.legacy_lease;
        for token in relay.workers.lent(&self.id, now) {
            match relay.store.extend(now, token, length).await {
                // The bridge cannot be told; its answer will be dropped as late.
                Ok(Extended::Cancelled) => end_cancelled(relay, token).await?,
                Ok(Extended::Active) => continue,
                Err(error) if error.is_of_store() => continue,
                // The lease has ended.
                Err(_) => {}
            }
            relay.workers.returned(&self.id, token);
        }
        self.keep_online(ALIVE)
    }

    fn query(&self, reported: &Reported) -> LeaseQuery {
        query(&self.caller, &self.worker, reported.report.as_deref())
    }

    /// What the desktop told of itself.
    fn reported(&self) -> Reported {
        self.relay.workers.reported(&self.id, self.relay.now())
    }

    /// Leases one job, if there is one.
    async fn lease(&self, arrivals: &Arrivals) -> Result<Option<UndeliveredLeases>, ApiError> {
        let query = self.query(&self.reported());
        let length = self.relay.settings.legacy_lease;
        let mut lent = self.relay.lease_many(arrivals, query, length, 1).await?;
        let Some(lease) = lent.leases().first() else {
            return Ok(None);
        };
        let (token, job) = (lease.token, &lease.job);
        if EngineRequest::of(token, job.op, &job.body.0).is_some() {
            return Ok(Some(lent));
        }
        // No route accepts a body that is not UTF-8.
        lent.forget(token);
        let why = JobError::new(ErrorCode::BadRequest, "the request is not UTF-8");
        let now = self.relay.now();
        self.relay.store.nack(now, token, Retry::Never, why).await?;
        Ok(None)
    }

    /// Waits for a job.
    async fn held(&self, hold: Duration) -> Result<Option<UndeliveredLeases>, ApiError> {
        self.keep_online(hold + ALIVE)?;
        let until = Instant::now() + hold;
        let mut arrivals = Arrivals::of(&self.relay, self.caller.claimant());
        loop {
            arrivals.mark_seen();
            if let Some(lent) = self.lease(&arrivals).await? {
                return Ok(Some(lent));
            }
            tokio::select! {
                arrived = timeout_at(until, arrivals.changed()) => match arrived {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return Ok(None),
                },
                () = self.relay.drain.cancelled() => return Ok(None),
            }
        }
    }

    /// Returns the response to a poll with this job. It is given back unless it is sent in full.
    fn delivered(&self, lent: UndeliveredLeases) -> Result<Response, ApiError> {
        let lease = lent.leases().first().ok_or_else(ApiError::internal)?;
        let (token, job, now) = (lease.token, &lease.job, self.relay.now());
        let request = EngineRequest::of(token, job.op, &job.body.0);
        let length = self.relay.settings.legacy_lease;
        let until = now + length;
        let until = job.deadline.map_or(until, |deadline| deadline.min(until));
        let query = self.query(&self.reported());
        let has_more = self.relay.store.waiting(&query, 1) > 0;
        let body = polling::polled(request.as_ref(), has_more, now, until);
        self.keep_online(length)?;
        let relay = &self.relay;
        relay.workers.lend(&self.id, token, now + ANSWER_WITHIN);
        tracing::info!(job.id = %token.job, job.attempt = token.attempt, "leased to a bridge");
        Ok(in_parts(relay, &self.caller, body, vec![lent], length))
    }

    async fn answered(&self, id: &str, answer: &Answer) -> Result<Response, ApiError> {
        // An answer is taken also if the key has too many pollers: a bridge does not repeat it.
        let _ = self.keep_online(ALIVE);
        let relay = &self.relay;
        let (token, job) = leased(relay, &self.caller, id).await?;
        relay.workers.returned(&self.id, token);
        match settle(relay, token, job.new.op, answer).await {
            Ok(()) => {}
            Err(error) if error.is_late() => {
                tracing::info!(
                    job.id = %token.job, job.attempt = token.attempt, "late answer dropped"
                );
            }
            Err(error) => return Err(error.into()),
        }
        Ok(written(JSON, polling::RECEIVED))
    }
}

/// `POST /api/bridge/register`.
pub(super) async fn register(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    headers: HeaderMap,
    Payload(body): Control,
) -> Result<Response, ApiError> {
    if !polling::is_registration(&body) {
        let mut response = written(JSON, polling::MISSING_FIELDS);
        *response.status_mut() = StatusCode::BAD_REQUEST;
        let code = HeaderValue::from_static(ErrorCode::BadRequest.as_str());
        response.headers_mut().insert(CODE, code);
        return Ok(response);
    }
    let id = polling::new_id(relay.random_16()?);
    Bridge::new(relay, caller, &id)?.keep_online(ALIVE)?;
    let key = in_headers(&headers).unwrap_or_default();
    let mut response = written(JSON, polling::registered(&id, key));
    // It repeats the key.
    let unkept = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, unkept);
    Ok(response)
}

#[derive(Deserialize)]
pub(super) struct Hold {
    /// Milliseconds; as text, because a nonsensical one is not worth a lost poll.
    timeout: Option<String>,
}

/// `GET /api/bridge/{id}/poll?timeout=MS`: leases a job, although it is a GET, as the bridge
/// requires.
pub(super) async fn poll(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(id): InPath<String>,
    InQuery(Hold { timeout }): InQuery<Hold>,
) -> Result<Response, ApiError> {
    let asked = timeout.and_then(|timeout| timeout.parse().ok());
    let asked = asked.map_or(Duration::MAX, Duration::from_millis);
    let hold = held_for(asked, relay.settings.poll_hold, || relay.fraction());
    let bridge = Bridge::new(relay, caller, &id)?;
    match bridge.held(hold).await? {
        Some(lent) => bridge.delivered(lent),
        None => {
            let now = bridge.relay.now();
            Ok(written(JSON, polling::polled(None, false, now, now)))
        }
    }
}

/// `POST /api/bridge/{id}/response`: answers 200 even if the lease was lost, because bridges never
/// retry.
pub(super) async fn response(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(id): InPath<String>,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let bridge = Bridge::new(relay, caller, &id)?;
    let answer = Answer::parse(&body)?;
    let missing = || ApiError::new(ErrorCode::BadRequest, polling::NO_REQUEST_ID);
    let id = answer.id.clone().ok_or_else(missing)?;
    bridge.answered(&id, &answer).await
}

/// `POST /api/bridge/respond/{id}/{request}`, as the service's document has it.
pub(super) async fn respond(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath((id, request)): InPath<(String, String)>,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let bridge = Bridge::new(relay, caller, &id)?;
    bridge.answered(&request, &Answer::parse(&body)?).await
}

/// `POST /api/bridge/{id}/heartbeat`.
pub(super) async fn heartbeat(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(id): InPath<String>,
    _: Control,
) -> Result<Response, ApiError> {
    let bridge = Bridge::new(relay, caller, &id)?;
    bridge.heard().await?;
    Ok(written(JSON, polling::alive(bridge.relay.now())))
}

/// `POST /api/bridge/{id}/provider-status`: the models of the desktop. An empty list changes
/// nothing: engines that are down list none.
pub(super) async fn provider_status(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(id): InPath<String>,
    Payload(body): Poll,
) -> Result<Response, ApiError> {
    let bridge = Bridge::new(relay, caller, &id)?;
    let models = polling::models(&body)?;
    bridge.heard().await?;
    if !models.is_empty() {
        let report: WorkerReport = bridge.caller.permitted(polling::report(models));
        bridge.relay.workers.report(&bridge.id, report.into());
    }
    Ok(written(JSON, polling::updated(bridge.relay.now())))
}

/// `GET /api/bridge/{id}/status`.
pub(super) async fn status(
    State(relay): State<Relay>,
    MayWork(caller): MayWork,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let bridge = Bridge::new(relay, caller, &id)?;
    let reported = bridge.reported();
    let waiting = bridge.query(&reported);
    let models = reported.report.as_ref().map(|report| &*report.models);
    let state = polling::BridgeState {
        id: &id,
        seen: reported.seen,
        is_online: reported.is_online,
        models: models.unwrap_or_default(),
        waiting: bridge.relay.store.waiting(&waiting, COUNTED_MAX),
    };
    let body: Bytes = polling::status(&state);
    Ok(written(JSON, body).into_response())
}
