//! A question as a job: handed in once, however often it is sent, and withdrawn when nobody waits
//! for it any more.

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
    /// The relay knows by it that it has the job already.
    name: String,
    taken: Cell<Taken>,
}

/// Whether the relay has the job.
#[derive(Debug, Clone, Copy)]
enum Taken {
    No,
    /// It was sent, and not answered.
    Perhaps,
    Yes(JobId),
}

impl<'a> Submission<'a> {
    /// # Errors
    /// If the system has nothing random for its name.
    pub(super) fn new(client: &'a Client, body: Value) -> anyhow::Result<Self> {
        let name = SystemWorld.random()?;
        Ok(Self {
            client,
            body,
            name: proto::hex::encode(&name),
            taken: Cell::new(Taken::No),
        })
    }

    /// Its id, once the relay named it.
    pub(super) fn job(&self) -> Option<JobId> {
        match self.taken.get() {
            Taken::Yes(job) => Some(job),
            Taken::No | Taken::Perhaps => None,
        }
    }

    /// Hands it in.
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
        let job = view.context("the relay's answer is not Hearth's")?.id;
        self.taken.set(Taken::Yes(job));
        Ok(job)
    }

    /// Withdraws it; false if the relay never had it. Where that is not known, it is sent once more:
    /// the same submission finds the same job.
    ///
    /// # Errors
    /// One sentence; the job may go on.
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
