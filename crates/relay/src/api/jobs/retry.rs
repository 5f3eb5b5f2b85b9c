//! `POST /api/jobs/{id}/retry`: submits the request of a failed or cancelled job again.

use axum::{extract::State, response::Response};
use proto::{Dialect, ErrorCode, JobId, JobState};
use queue::{Extras, IdempotencyKey, Job, Submitted};

use super::submit::{accepted, known};
use crate::{
    Relay,
    auth::{Caller, MayEnqueue},
    error::ApiError,
    intake::Attendance,
    payload::Control,
    submission::Submission,
    target::InPath,
};

/// `POST /api/jobs/{id}/retry`. Responds like a submission; repeated calls return the same new job.
pub(in crate::api) async fn retry(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<JobId>,
    _: Control,
) -> Result<Response, ApiError> {
    again(&relay, &caller, id).await
}

/// Submits a job again that the caller may see.
pub(in crate::api) async fn again(
    relay: &Relay,
    caller: &Caller,
    id: JobId,
) -> Result<Response, ApiError> {
    let job = relay.store.get(caller.owner(), id).await?;
    let job = job.ok_or_else(ApiError::unknown_job)?;
    let idempotency_key = IdempotencyKey::retry(id);
    let before = relay
        .store
        .submitted(&job.new.account, &idempotency_key.key)
        .await?;
    if let Some((retried, _)) = before {
        return known(relay, caller, retried).await;
    }
    let mut submission = anew(&job)?;
    submission.priority = caller.ceiling.lowered(submission.priority);
    let mut requester = caller.clone();
    requester.account = job.new.account.clone();
    requester.worker = job.new.worker.clone();
    let model = Some(job.new.model.as_str());
    relay.choose_model(&requester, job.new.op, model, Attendance::Kept)?;
    let extras = Extras {
        idempotency_key: Some(idempotency_key),
        ..Extras::default()
    };
    match relay.submit_with(&requester, submission, extras).await? {
        Submitted::New(retried) => {
            let by = caller.in_log();
            tracing::info!(job.id = %retried.new.id, of = %id, by, "submitted as a retry");
            Ok(accepted(relay, *retried, None))
        }
        Submitted::Known(retried) => known(relay, caller, retried).await,
    }
}

/// Builds the new job from the old one, with a deadline of the same length.
fn anew(job: &Job) -> Result<Submission, ApiError> {
    if job.new.op.changes_models() {
        // The right to read a job does not include the right to change models.
        let message = "a job that changes models cannot be retried; send the request again";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    match job.state {
        JobState::Failed | JobState::Cancelled => {}
        JobState::Queued | JobState::Leased => {
            return Err(ApiError::new(
                ErrorCode::JobUnfinished,
                "the job is still waiting or running; only failed or cancelled jobs can be retried",
            ));
        }
        JobState::Completed => {
            return Err(ApiError::new(
                ErrorCode::JobEnded,
                "the job is completed; fetch its answer, or submit the request again",
            ));
        }
    }
    if job.new.body.0.is_empty() {
        return Err(ApiError::new(
            ErrorCode::RequestErased,
            "the job's request was erased; submit it as a new job",
        ));
    }
    let wanted_for = job.new.deadline.map(|at| at.since(job.created_at));
    Ok(Submission {
        op: job.new.op,
        model: job.new.model.clone(),
        body: job.new.body.0.clone(),
        dialect: Dialect::Native,
        priority: job.new.priority,
        wanted_for,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use proto::{Account, ModelName, Op, Priority, Timestamp};
    use queue::NewJob;

    use super::*;

    fn job(state: JobState, body: &'static str) -> Job {
        Job {
            new: NewJob {
                id: JobId([1; 16]),
                account: Account::new("a").unwrap(),
                who: "laptop".into(),
                op: Op::Chat,
                model: ModelName::new("m").unwrap(),
                priority: Priority::new(2).unwrap(),
                body: Bytes::from_static(body.as_bytes()).into(),
                dialect: Dialect::OpenAi,
                deadline: Some(Timestamp(9_000)),
                attended: true,
                worker: None,
            },
            state,
            attempt: 1,
            created_at: Timestamp(4_000),
            finished_at: Some(Timestamp(5_000)),
            error: None,
            is_erased: false,
        }
    }

    #[test]
    fn a_job_is_made_anew_as_it_was_for_as_long_as_it_was_wanted() {
        let submission = anew(&job(JobState::Failed, "{}")).unwrap();
        assert_eq!(submission.wanted_for, Some(Duration::from_secs(5)));
        assert_eq!(
            (submission.priority.level(), &*submission.body),
            (2, &b"{}"[..])
        );
        assert!(anew(&job(JobState::Cancelled, "{}")).is_ok());
    }

    #[test]
    fn a_change_of_models_is_not_made_anew() {
        let mut pull = job(JobState::Failed, "{}");
        pull.new.op = Op::Pull;
        assert_eq!(anew(&pull).unwrap_err().code, ErrorCode::Forbidden);
    }

    #[test]
    fn what_is_not_over_what_was_answered_and_what_was_erased_is_not_made_anew() {
        for (state, body, code) in [
            (JobState::Queued, "{}", ErrorCode::JobUnfinished),
            (JobState::Leased, "{}", ErrorCode::JobUnfinished),
            (JobState::Completed, "{}", ErrorCode::JobEnded),
            (JobState::Failed, "", ErrorCode::RequestErased),
        ] {
            let refused = anew(&job(state, body)).unwrap_err();
            assert_eq!(refused.code, code, "{state:?}");
        }
    }
}
