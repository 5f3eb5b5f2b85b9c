//! The routes of the polling protocol, for its requesters and workers.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use dialect::relay_polling::{ACKNOWLEDGED, Answer, PolledRequest, Progress, Request, production};
use http::{HeaderValue, Method, StatusCode};
use proto::{
    Dialect, End, ErrorCode, JobError, JobId, JobState, LeaseToken, ModelName, Op, Priority,
    WorkerId, admin::WorkerCarrier, worker::Retry,
};
use queue::{Job, Lease, LeaseQuery, Models, QueueError};
use tokio::time::{Instant, timeout_at};

use super::written;
use crate::{
    Relay,
    auth::{Caller, MayEnqueue, MayPoll, MayRead, serves},
    carrier::arrivals::Arrivals,
    error::ApiError,
    error_format::CODE,
    intake::Attendance,
    payload::{Inference, Payload},
    position::set_position_header,
    submission::Submission,
    target::InPath,
    whole_answer::AnswerBuffer,
    workers::{OnlineId, OnlineWorker},
};

const JSON: &str = "application/json";
/// Default model of the polling protocol, for a request that names none while no model is known.
const MODEL: &str = "qwen2.5:7b";

/// `GET /api/ollama/poll`: leases a job, although it is a GET, as the protocol's workers require.
pub(super) async fn poll(
    State(relay): State<Relay>,
    MayPoll(caller): MayPoll,
) -> Result<Response, ApiError> {
    Ok(match held(&relay, &caller).await? {
        Some(request) => {
            let body = dialect::relay_polling::polled(&request);
            written(JSON, relay.sending.counted(&caller.claimant(), body))
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// `GET /api/v1/ollama/poll`: always answers 200, as the other worker of the protocol requires.
pub(super) async fn poll_job(
    State(relay): State<Relay>,
    MayPoll(caller): MayPoll,
) -> Result<Response, ApiError> {
    Ok(match held(&relay, &caller).await? {
        Some(request) => {
            let body = production::polled_job(&request);
            written(JSON, relay.sending.counted(&caller.claimant(), body))
        }
        None => written(JSON, production::NO_JOB),
    })
}

/// Waits for a job that the polling protocol can express.
async fn held(relay: &Relay, caller: &Caller) -> Result<Option<PolledRequest>, ApiError> {
    let worker = WorkerId::new(format!("legacy-{}", caller.key_id()));
    let worker = worker.map_err(|_| ApiError::internal())?;
    let id = OnlineId::Poll(caller.key_id().to_owned(), worker.clone());
    register(relay, &id, caller, relay.settings.online_after_poll);

    caller.pause_work();
    let until = Instant::now() + relay.settings.legacy_poll_hold;
    let mut arrivals = Arrivals::of(relay, caller.claimant());
    loop {
        arrivals.mark_seen();
        let query = LeaseQuery {
            worker: worker.clone(),
            serve: caller.serve.clone(),
            models: Models::AnyBut(relay.hidden_from_pollers.all()),
            allowed_models: caller.ceiling.models.clone(),
            excluded_models: BTreeSet::new(),
            accepts_model_changes: false,
            request_max: usize::MAX,
        };
        let length = relay.settings.legacy_lease;
        if let Some(lease) = relay.lease(&arrivals, &query, length).await? {
            if let Some(request) = said(relay, &lease) {
                register(relay, &id, caller, length);
                tracing::info!(job.id = request.id, "leased to a polling worker");
                return Ok(Some(request));
            }
            give_back(relay, &lease).await?;
            if Instant::now() < until {
                continue;
            }
            return Ok(None);
        }
        tokio::select! {
            arrived = timeout_at(until, arrivals.changed()) => match arrived {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            },
            () = relay.drain.cancelled() => return Ok(None),
        }
    }
}

/// Returns a job to the queue that the polling protocol cannot express. It is leased only to other
/// workers from now on.
async fn give_back(relay: &Relay, lease: &Lease) -> Result<(), ApiError> {
    relay.hidden_from_pollers.add(lease.token.job);
    let why = JobError::new(
        ErrorCode::EngineRefused,
        "the polling protocol cannot express this job",
    );
    let now = relay.now();
    relay.store.nack(now, lease.token, Retry::Now, why).await?;
    Ok(())
}

fn register(relay: &Relay, id: &OnlineId, caller: &Caller, for_: Duration) {
    let online = OnlineWorker {
        until: Some(relay.now() + for_),
        ..OnlineWorker::of(caller, WorkerCarrier::Legacy)
    };
    relay.workers.register(id.clone(), online);
    relay.workers.seen(id, relay.now(), None);
}

fn said(relay: &Relay, lease: &Lease) -> Option<PolledRequest> {
    let job = &lease.job;
    PolledRequest::of(lease.token, job.op, &job.model, &job.body.0, relay.now())
}

/// `POST /api/ollama/response`: answers 200 even if the lease was lost, because the protocol's
/// workers never retry.
pub(super) async fn response(
    State(relay): State<Relay>,
    MayPoll(caller): MayPoll,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    answered(&relay, &caller, &Answer::parse(&body)?).await
}

/// `POST /api/v1/ollama/response`.
pub(super) async fn job_response(
    State(relay): State<Relay>,
    MayPoll(caller): MayPoll,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    answered(&relay, &caller, &production::answer(&body)?).await
}

async fn answered(relay: &Relay, caller: &Caller, answer: &Answer) -> Result<Response, ApiError> {
    let (token, job) = leased(relay, caller, &answer.id).await?;
    match settle(relay, token, &job, answer).await {
        Ok(()) => {}
        Err(error) if error.is_late() => {
            tracing::info!(job.id = %token.job, job.attempt = token.attempt, "late answer dropped");
        }
        Err(error) => return Err(error.into()),
    }
    Ok(written(JSON, ACKNOWLEDGED))
}

/// Returns the lease and the job that an answer names, if the caller may answer for it.
pub(super) async fn leased(
    relay: &Relay,
    caller: &Caller,
    id: &str,
) -> Result<(LeaseToken, Job), ApiError> {
    let token = dialect::relay_polling::token(id).ok_or_else(ApiError::unknown_job)?;
    let job = relay.store.get(queue::Owner::Anyone, token.job).await?;
    let job = job.filter(|job| serves(&caller.serve, &job.new.account));
    Ok((token, job.ok_or_else(ApiError::unknown_job)?))
}

async fn settle(
    relay: &Relay,
    token: LeaseToken,
    job: &Job,
    answer: &Answer,
) -> Result<(), QueueError> {
    let now = relay.now();
    let (lines, end) = match answer.outcome() {
        Ok(text) => {
            let model = &job.new.model;
            let lines = dialect::relay_polling::lines(job.new.op, model, text, now);
            let count = lines.len() as u64;
            relay.store.append(now, token, 1, lines.into()).await?;
            (count, End::Completed)
        }
        Err(reason) => {
            let error = JobError::new(ErrorCode::EngineFailed, reason).bounded();
            (0, End::Failed { error })
        }
    };
    relay.store.complete(now, token, lines, end).await
}

/// `POST /api/ollama/request`.
pub(super) async fn request(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let request = Request::parse(&body)?;
    let named = request.model.as_deref().filter(|model| !model.is_empty());
    let model = model(&relay, &caller, named)?;
    let submission = Submission {
        op: Op::Chat,
        body: request.native(&model),
        model,
        dialect: Dialect::RelayPolling,
        priority: caller.priority(None, Priority::DEFAULT)?,
        wanted_for: None,
    };
    let model = submission.model.clone();
    let id = relay.submit(&caller, submission).await?;
    let mut response = written(JSON, dialect::relay_polling::queued(id));
    *response.status_mut() = StatusCode::ACCEPTED;
    set_position_header(&mut response, relay.place(&caller.account, &model, id));
    Ok(response)
}

/// Chooses the model for a request whose answer is fetched later.
pub(super) fn model(
    relay: &Relay,
    caller: &Caller,
    named: Option<&str>,
) -> Result<ModelName, ApiError> {
    let chosen = relay.choose_model(caller, Op::Chat, named, Attendance::Kept);
    match chosen {
        // No online worker reports its models: use the protocol's own default.
        Err(error)
            if named.is_none()
                && matches!(
                    error.code,
                    ErrorCode::BadRequest | ErrorCode::NoWorker | ErrorCode::EngineUnavailable
                ) =>
        {
            let usual = ModelName::new(MODEL).map_err(|_| ApiError::internal())?;
            caller.permit(&usual).map(|()| usual)
        }
        chosen => chosen,
    }
}

/// `GET /api/ollama/status/{id}`.
pub(super) async fn status(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    method: Method,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let job = match id.parse::<JobId>() {
        Ok(job) => relay.store.get(caller.owner(), job).await?,
        Err(_) => None,
    };
    let Some(job) = job else {
        let body = dialect::relay_polling::status(&id, &Progress::NotFound);
        let mut response = written(JSON, body);
        *response.status_mut() = StatusCode::NOT_FOUND;
        let code = HeaderValue::from_static(ErrorCode::UnknownJob.as_str());
        response.headers_mut().insert(CODE, code);
        return Ok(response);
    };
    let reason = job
        .error
        .as_ref()
        .map_or("the request was cancelled", |e| &e.message);
    let progress = match job.state {
        JobState::Queued => Progress::Queued,
        JobState::Leased => Progress::Processing,
        JobState::Failed | JobState::Cancelled => Progress::Error(reason),
        JobState::Completed => {
            let log = relay.store.log(caller.owner(), job.new.id).await?;
            let log = log.ok_or_else(ApiError::unknown_job)?;
            let mut answer = AnswerBuffer::new(&relay, log, &caller);
            answer.complete().await?;
            relay.fetched_by(&method, job.new.id);
            let progress = Progress::Completed {
                response: dialect::relay_polling::text(&answer.lines),
                model: &job.new.model,
            };
            let body = dialect::relay_polling::status(&id, &progress);
            return Ok(written(JSON, answer.held(body)));
        }
    };
    Ok(written(
        JSON,
        dialect::relay_polling::status(&id, &progress),
    ))
}
