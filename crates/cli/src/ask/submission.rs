//! A question as a job: submitted at most once, however often the request is repeated, and
//! cancelled when it is no longer waited for.

use std::cell::Cell;

use anyhow::Context as _;
use proto::{JobId, JobView};
use relay::{SystemWorld, World as _};
use serde_json::Value;

use crate::credentials::{Client, PATIENCE, refused_by_relay};

/// One job of this program.
#[derive(Debug)]
pub(super) struct Submission<'a> {
    client: &'a Client,
    body: Value,
    /// The idempotency key, by which the relay recognizes a repeated request.
    name: String,
    taken: Cell<Taken>,
}

/// Whether the relay has the job.
#[derive(Debug, Clone, Copy)]
enum Taken {
    No,
    /// The request was sent, and not answered.
    Perhaps,
    Yes(JobId),
}

impl<'a> Submission<'a> {
    /// A submission with a random idempotency key.
    ///
    /// # Errors
    /// If the system's random number generator fails.
    pub(super) fn new(client: &'a Client, body: Value) -> anyhow::Result<Self> {
        let name = SystemWorld.random()?;
        Ok(Self {
            client,
            body,
            name: proto::hex::encode(&name),
            taken: Cell::new(Taken::No),
        })
    }

    /// The job's id, once the relay has sent it.
    pub(super) fn job(&self) -> Option<JobId> {
        match self.taken.get() {
            Taken::Yes(job) => Some(job),
            Taken::No | Taken::Perhaps => None,
        }
    }

    /// Submits the job.
    ///
    /// # Errors
    /// One sentence that names the broken hop.
    pub(super) async fn submit(&self) -> anyhow::Result<JobId> {
        self.taken.set(Taken::Perhaps);
        let request = self.client.http.post(self.client.url("/api/jobs"));
        let request = request.header("idempotency-key", &self.name);
        let sent = request.json(&self.body).timeout(PATIENCE).send().await;
        let answer = match sent {
            Ok(answer) => answer,
            Err(error) => {
                if error.is_connect() {
                    self.taken.set(Taken::No);
                }
                return Err(error).with_context(|| self.client.unreachable());
            }
        };
        if !answer.status().is_success() {
            return Err(match refused_by_relay(answer).await {
                Ok(refusal) => {
                    self.taken.set(Taken::No);
                    refusal
                }
                Err(unknown) => unknown,
            });
        }
        let view = answer.json::<JobView>().await;
        let job = view
            .context("the response is not a Hearth relay's; check --relay")?
            .id;
        self.taken.set(Taken::Yes(job));
        Ok(job)
    }

    /// Cancels the job; false if the relay never had it. If that is unknown, the request is
    /// repeated first, which returns the same job.
    ///
    /// # Errors
    /// One sentence; the job may still run.
    pub(super) async fn withdraw(&self) -> anyhow::Result<bool> {
        let job = match self.taken.get() {
            Taken::No => return Ok(false),
            Taken::Perhaps => self.submit().await?,
            Taken::Yes(job) => job,
        };
        let url = self.client.url(&format!("/api/jobs/{job}"));
        self.client.ask(self.client.http.delete(url)).await?;
        Ok(true)
    }
}
