//! `POST /api/jobs`: a job is accepted once it is on disk, and only once per idempotency key.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use proto::{Dialect, ErrorCode, JobId, JobView, Priority, SubmitJob, WebhookRequest, WebhookView};
use queue::{Extras, Job, NewWebhook, QueueError, QueuePosition, Submitted, Webhook};

use super::{placed, view, webhook_view};
use crate::{
    Relay,
    auth::{Caller, MayEnqueue},
    error::ApiError,
    headers,
    intake::Attendance,
    payload::{Inference, Payload},
    position::set_position_header,
    request_options,
    submission::{Submission, fingerprint},
    webhook::{self, Secret},
};

/// `POST /api/jobs`.
pub(in crate::api) async fn submit(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    Payload(body): Inference,
) -> Result<Response, ApiError> {
    let job: SubmitJob = serde_json::from_slice(&body).map_err(|error| {
        let code = if error.is_data() {
            ErrorCode::BadRequest
        } else {
            ErrorCode::MalformedJson
        };
        ApiError::new(code, error.to_string())
    })?;
    drop(body);
    if job.op.changes_models() {
        let message = "jobs cannot change models; use Ollama's routes, for example /api/pull";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let wanted_for = job.deadline_ms.map(Duration::from_millis);
    let wanted_for = wanted_for.map(request_options::deadline).transpose()?;
    let native = Bytes::from(String::from(Box::<str>::from(job.body)));
    let head = dialect::ollama::request_head(job.op, &native)?;
    let asked = head.model.as_deref();
    let idempotency_key =
        caller.idempotency_key(|| fingerprint(job.op, asked.unwrap_or_default(), &native));
    if let Some(idempotency_key) = &idempotency_key
        && let Some((id, before)) = relay
            .store
            .submitted(&caller.account, &idempotency_key.key)
            .await?
    {
        // A known key returns its job, even if no worker could run it now.
        idempotency_key.check_same(&before)?;
        return known(&relay, &caller, id).await;
    }
    let webhook = job.webhook.map(|wanted| new_webhook(&relay, &wanted));
    let (webhook, webhook_shown) = webhook.transpose()?.unzip();
    let model = relay.choose_model(&caller, job.op, asked, Attendance::Kept)?;
    let native = match asked {
        Some(_) => native,
        None => dialect::ollama::with_model(&native, &model)?,
    };
    let submission = Submission {
        op: job.op,
        model,
        body: native,
        dialect: Dialect::Native,
        priority: caller.priority(job.priority, Priority::DEFAULT)?,
        wanted_for,
    };
    let extras = Extras {
        idempotency_key,
        webhook,
    };
    match relay.submit_with(&caller, submission, extras).await? {
        Submitted::New(job) => Ok(accepted(&relay, *job, webhook_shown)),
        Submitted::Known(id) => known(&relay, &caller, id).await,
    }
}

/// Creates the requested webhook, and its view, which contains the secret only if it was generated
/// here.
fn new_webhook(
    relay: &Relay,
    wanted: &WebhookRequest,
) -> Result<(NewWebhook, WebhookView), ApiError> {
    let bad = |why: &str| ApiError::new(ErrorCode::BadRequest, why);
    webhook::check(&wanted.url, &relay.settings.webhook_allow).map_err(bad)?;
    let (secret, shown) = match &wanted.secret {
        Some(given) => {
            let secret = Secret::parse(given.expose());
            let why = "a webhook's secret must be whsec_ followed by base64 of 24 to 64 bytes";
            (secret.ok_or_else(|| bad(why))?, None)
        }
        None => {
            let made = Secret::new(relay.random()?);
            (made.clone(), Some(made))
        }
    };
    let webhook = NewWebhook {
        url: wanted.url.clone(),
        secret: secret.into_bytes(),
    };
    let view = WebhookView {
        secret: shown.map(|secret| secret.reveal()),
        ..webhook_view(Webhook::new(webhook.clone()))
    };
    Ok((webhook, view))
}

/// Returns the response for a new job.
pub(super) fn accepted(relay: &Relay, job: Job, webhook: Option<WebhookView>) -> Response {
    let place = relay.place(&job.new.account, &job.new.model, job.new.id);
    told(view(job), webhook, place)
}

/// Returns the response for a job that was submitted before with the same idempotency key, which
/// may be kept longer than its job.
pub(super) async fn known(relay: &Relay, caller: &Caller, id: JobId) -> Result<Response, ApiError> {
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or(QueueError::Erased(id))?;
    let place = relay.place(&job.new.account, &job.new.model, id);
    let webhook = relay.store.webhook(id).await?.map(webhook_view);
    let mut response = told(view(job), webhook, place);
    let replayed = HeaderValue::from_static("true");
    response.headers_mut().insert(headers::REPLAYED, replayed);
    Ok(response)
}

fn told(job: JobView, webhook: Option<WebhookView>, place: Option<QueuePosition>) -> Response {
    let job = JobView { webhook, ..job };
    let mut response = (StatusCode::ACCEPTED, Json(placed(job, place))).into_response();
    set_position_header(&mut response, place);
    response
}
