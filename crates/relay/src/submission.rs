//! Submitting jobs, and cancelling a job when the requester who waits for it disconnects.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{Dialect, JobId, ModelName, Op, Priority};
use queue::{Extras, JobLog, NewJob, QueueError, Submitted};
use sha2::{Digest as _, Sha256};

use crate::{Relay, auth::Caller, concurrency::Repeat, error::ApiError};

/// Contents of a job to submit.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) op: Op,
    pub(crate) model: ModelName,
    pub(crate) body: Bytes,
    pub(crate) dialect: Dialect,
    pub(crate) priority: Priority,
    pub(crate) wanted_for: Option<Duration>,
}

impl Submission {
    fn fingerprint(&self) -> [u8; 32] {
        fingerprint(self.op, self.model.as_str(), &self.body)
    }
}

/// Returns a digest of a request, which detects an idempotency key that is reused for another one.
pub(crate) fn fingerprint(op: Op, model: &str, body: &[u8]) -> [u8; 32] {
    // Neither an operation nor a model name contains a line feed.
    let mut digest = Sha256::new();
    for part in [op.as_str().as_bytes(), b"\n", model.as_bytes(), b"\n", body] {
        digest.update(part);
    }
    digest.finalize().into()
}

/// A job whose requester waits on an open connection.
#[derive(Debug)]
pub(crate) struct AttendedJob {
    pub(crate) op: Op,
    pub(crate) model: ModelName,
    pub(crate) log: Arc<dyn JobLog>,
    pub(crate) guard: CancelOnDrop,
}

/// Cancels the job on drop, unless it was disarmed: the requester disconnected before the answer
/// was complete.
#[derive(Debug)]
pub(crate) struct CancelOnDrop {
    relay: Relay,
    pub(crate) job: JobId,
    pub(crate) caller: Caller,
    /// Whether only this requester waits for the job, so that its disconnect cancels the job.
    is_attended: bool,
    is_armed: bool,
}

impl Relay {
    /// Queues a job; it is on disk when this returns.
    pub(crate) async fn submit(
        &self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<JobId, ApiError> {
        let extras = Extras {
            idempotency_key: caller.idempotency_key(|| submission.fingerprint()),
            ..Extras::default()
        };
        match self.submit_with(caller, submission, extras).await? {
            Submitted::New(job) => Ok(job.new.id),
            // Its key may be kept longer than the job.
            Submitted::Known(id) => match self.store.account(id).await? {
                Some(_) => Ok(id),
                None => Err(QueueError::Erased(id).into()),
            },
        }
    }

    /// Queues a job with an idempotency key or a webhook of its own.
    pub(crate) async fn submit_with(
        &self,
        caller: &Caller,
        submission: Submission,
        extras: Extras,
    ) -> Result<Submitted, ApiError> {
        let id = self.job_id()?;
        self.enqueue(id, caller, submission, extras, false).await
    }

    /// Queues a job for a requester who waits; from now on a disconnect cancels it. With an
    /// idempotency key the requester may come back for the answer, so that a disconnect cancels
    /// nothing.
    pub(crate) async fn submit_attended(
        &self,
        caller: &Caller,
        submission: Submission,
    ) -> Result<AttendedJob, ApiError> {
        let job = self.job_id()?;
        let idempotency_key = caller.idempotency_key(|| submission.fingerprint());
        let attended = idempotency_key.is_none();
        let mut guard = CancelOnDrop {
            relay: self.clone(),
            job,
            caller: caller.clone(),
            is_attended: attended,
            is_armed: attended,
        };
        let extras = Extras {
            idempotency_key,
            ..Extras::default()
        };
        let (op, model) = (submission.op, submission.model.clone());
        match self
            .enqueue(job, caller, submission, extras, attended)
            .await
        {
            Ok(accepted) => guard.job = accepted.id(),
            Err(refused) => {
                // The job does not exist, so there is nothing to cancel.
                guard.disarm();
                return Err(refused);
            }
        }
        caller.pause_work();
        let log = self.store.log(caller.owner(), guard.job).await?;
        // Its key may be kept longer than the job.
        let log = log.ok_or(QueueError::Erased(guard.job))?;
        Ok(AttendedJob {
            op,
            model,
            log,
            guard,
        })
    }

    /// Returns a new job id.
    pub(crate) fn job_id(&self) -> Result<JobId, ApiError> {
        let mut random = [0; 10];
        random.copy_from_slice(&self.random()?[..10]);
        Ok(JobId::new(self.now(), random))
    }

    /// Cancels a job in a task of its own. The store decides it after what was submitted before.
    fn cancel_later(&self, caller: Caller, job: JobId, why: &'static str) {
        let relay = self.clone();
        self.tasks.spawn(async move {
            match relay.store.cancel(relay.now(), caller.owner(), job).await {
                Ok(()) => tracing::info!(job.id = %job, why, "cancelled"),
                Err(error) if error.is_of_store() => {
                    tracing::warn!(job.id = %job, error = proto::causes(&error), "cannot cancel; the job may go on");
                }
                Err(error) => tracing::debug!(job.id = %job, %error, "nothing to cancel"),
            }
        });
    }

    async fn enqueue(
        &self,
        id: JobId,
        caller: &Caller,
        submission: Submission,
        extras: Extras,
        attended: bool,
    ) -> Result<Submitted, ApiError> {
        if self.drain.is_cancelled() {
            return Err(ApiError::draining());
        }
        let now = self.now();
        let job = NewJob {
            id,
            account: caller.account.clone(),
            who: caller.name.clone(),
            op: submission.op,
            model: submission.model,
            priority: submission.priority,
            body: submission.body.into(),
            dialect: submission.dialect,
            deadline: submission
                .wanted_for
                .or(caller.wanted_for)
                .map(|wanted| now + wanted),
            attended,
            worker: caller.worker.clone(),
        };
        let (op, bytes) = (job.op, job.body.0.len());
        // A repeat finds the job by its key. Without a key the job must not outlive a request that
        // is given up before it was acknowledged.
        let _unacknowledged = extras.idempotency_key.is_none().then(|| CancelIfGivenUp {
            relay: self,
            caller,
            job: id,
        });
        caller.if_repeated(match extras.idempotency_key {
            Some(_) => Repeat::Finds,
            None => Repeat::Only,
        });
        let accepted = if extras.webhook.is_some() {
            let relay = self.clone();
            self.run_to_completion(async move {
                let accepted = relay.store.submit(now, job, extras).await?;
                relay.webhooks.tell();
                Ok(accepted)
            })
            .await?
        } else {
            self.store.submit(now, job, extras).await?
        };
        match &accepted {
            Submitted::New(_) => tracing::info!(job.id = %id, job.op = %op, bytes, "queued"),
            Submitted::Known(before) => tracing::info!(job.id = %before, "submitted again"),
        }
        Ok(accepted)
    }
}

/// Cancels a job on drop if the relay gave the request up that submits it. A client that disconnects
/// does not cancel it: jobs survive that.
struct CancelIfGivenUp<'a> {
    relay: &'a Relay,
    caller: &'a Caller,
    job: JobId,
}

impl Drop for CancelIfGivenUp<'_> {
    fn drop(&mut self) {
        if self.caller.is_given_up() {
            let why = "the request took too long and was given up";
            self.relay.cancel_later(self.caller.clone(), self.job, why);
        }
    }
}

impl CancelOnDrop {
    /// Disarms the cancellation: the answer is complete, so a disconnect cancels nothing.
    pub(crate) const fn disarm(&mut self) {
        self.is_armed = false;
    }

    /// Arms the cancellation again: the requester has its answer, but the job would run once more
    /// for no one.
    pub(crate) const fn rearm(&mut self) {
        self.is_armed = self.is_attended;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        // At a shutdown the relay closes the connection, not the requester.
        if !self.is_armed || self.relay.stop.is_cancelled() {
            return;
        }
        let why = "the requester disconnected";
        self.relay.cancel_later(self.caller.clone(), self.job, why);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use axum::extract::FromRequestParts as _;
    use proto::{JobState, Timestamp};
    use queue::{MemoryQueue, NewWebhook, Owner, Queue as _, Store, Webhooks as _};
    use queue_sqlite::SqliteQueue;

    use super::*;
    use crate::{RelaySettings, SystemWorld, auth::MayEnqueue};

    fn settings() -> RelaySettings {
        RelaySettings {
            insecure_dev: true,
            ..RelaySettings::default()
        }
    }

    async fn relay(store: Arc<dyn Store>) -> (Relay, Caller) {
        relay_with(store, settings()).await
    }

    async fn relay_with(store: Arc<dyn Store>, settings: RelaySettings) -> (Relay, Caller) {
        let relay = Relay::new(store, settings, Arc::new(SystemWorld));
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let caller = MayEnqueue::from_request_parts(&mut parts, &relay).await;
        (relay, caller.unwrap().0)
    }

    fn submission() -> Submission {
        Submission {
            op: Op::Chat,
            model: ModelName::new("m").unwrap(),
            body: Bytes::from_static(b"{}"),
            dialect: Dialect::Ollama,
            priority: Priority::default(),
            wanted_for: None,
        }
    }

    #[tokio::test]
    async fn a_refused_job_is_not_cancelled() {
        let (relay, caller) = relay(Arc::new(MemoryQueue::default())).await;
        while relay.submit(&caller, submission()).await.is_ok() {}
        relay
            .submit_attended(&caller, submission())
            .await
            .unwrap_err();
        assert!(relay.tasks.is_empty(), "a task to cancel it was started");
    }

    #[tokio::test]
    async fn a_requester_who_leaves_while_his_job_is_written_cancels_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteQueue::open(&folder.path().join("queue.db"), Timestamp(0)).unwrap();
        let store = Arc::new(store);
        let (relay, caller) = relay(store.clone()).await;
        let mut attended = Box::pin(relay.submit_attended(&caller, submission()));
        let polled = attended
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        drop((polled, attended));
        relay.tasks.close();
        let cancelled = tokio::time::timeout(Duration::from_secs(10), relay.tasks.wait());
        cancelled.await.unwrap();
        let jobs = store.list(Owner::Anyone, 2).await.unwrap();
        let states: Vec<_> = jobs.iter().map(|job| job.state).collect();
        assert_eq!(states, [JobState::Cancelled]);
        store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_webhook_is_told_also_if_who_wished_it_left_while_his_job_was_written() {
        let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = receiver.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteQueue::open(&folder.path().join("queue.db"), Timestamp(0)).unwrap();
        let store = Arc::new(store);
        let settings = RelaySettings {
            webhook_allow: vec![address.to_string().parse().unwrap()],
            ..settings()
        };
        let (relay, caller) = relay_with(store.clone(), settings).await;
        relay.tasks.spawn(crate::webhook::deliver(relay.clone()));
        // The task first finds no webhook, and sleeps.
        for _ in 0..8 {
            store.due_webhooks(Timestamp(0), 1, 1).await.unwrap();
        }
        let extras = Extras {
            webhook: Some(NewWebhook {
                url: format!("http://{address}/hook"),
                secret: proto::SecretBytes::new(vec![7; 32]),
            }),
            ..Extras::default()
        };
        let mut submitted = Box::pin(relay.submit_with(&caller, submission(), extras));
        let polled = submitted
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        drop((polled, submitted));
        let told = async {
            let jobs = loop {
                let jobs = store.list(Owner::Anyone, 1).await.unwrap();
                if !jobs.is_empty() {
                    break jobs;
                }
                tokio::task::yield_now().await;
            };
            let (owner, id) = (Owner::Anyone, jobs[0].new.id);
            store.cancel(relay.now(), owner, id).await.unwrap();
            receiver.accept().await.unwrap();
        };
        tokio::time::timeout(Duration::from_secs(10), told)
            .await
            .expect("nobody was told");
        relay.stop.cancel();
        store.close().await.unwrap();
    }
}
