use std::fmt;

use async_trait::async_trait;
use proto::{JobId, Timestamp, WebhookState};
use tokio::sync::watch;

use crate::{Job, QueueError};

/// Where the end of a job is to be told, and what proves who tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// Checked by the relay; checked again before each use.
    pub url: String,
    /// The key of the signature.
    pub secret: Vec<u8>,
}

impl fmt::Debug for NewWebhook {
    /// Neither the secret nor the URL, which may hold one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWebhook").finish_non_exhaustive()
    }
}

/// A webhook and what has become of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where and with which secret.
    pub new: NewWebhook,
    /// Whether it is still to be told.
    pub state: WebhookState,
    /// How often that was tried.
    pub tries: u32,
    /// Not tried before this.
    pub next_at: Timestamp,
    /// Why the last try failed.
    pub error: Option<String>,
}

impl Webhook {
    /// One that was never tried.
    #[must_use]
    pub const fn new(new: NewWebhook) -> Self {
        Self {
            new,
            state: WebhookState::Waiting,
            tries: 0,
            next_at: Timestamp(0),
            error: None,
        }
    }

    /// Notes a try.
    pub fn tried(&mut self, told: Told) {
        self.tries = self.tries.saturating_add(1);
        (self.state, self.error) = match told {
            Told::Delivered => (WebhookState::Delivered, None),
            Told::Failed { again_at, error } => {
                self.next_at = again_at;
                (WebhookState::Waiting, Some(error))
            }
            Told::GivenUp { error } => (WebhookState::GivenUp, Some(error)),
        };
    }
}

/// How a try went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Accepted.
    Delivered,
    /// To be tried again.
    Failed {
        /// Then.
        again_at: Timestamp,
        /// Why. Never holds the URL.
        error: String,
    },
    /// Not to be tried again.
    GivenUp {
        /// Why.
        error: String,
    },
}

/// What there is to tell now, and when to look again.
#[derive(Debug, Clone, Default)]
pub struct DueWebhooks {
    /// Ended jobs, without their bodies, of each account the longest due first.
    pub due: Vec<(Job, Webhook)>,
    /// When the next try of another is due.
    pub next: Option<Timestamp>,
    /// Whether any webhook waits at all, also for the end of its job.
    pub any: bool,
}

/// What is to be told to others when a job ends. Kept and erased with the job.
#[async_trait]
pub trait Webhooks: fmt::Debug + Send + Sync {
    /// The webhook of a job, if it has one.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError>;

    /// The webhooks of ended jobs that are to be tried by now, at most `limit`, and of each account
    /// at most `of_each`: the first of all accounts, then the second of all, and so on.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn due_webhooks(
        &self,
        now: Timestamp,
        limit: usize,
        of_each: usize,
    ) -> Result<DueWebhooks, QueueError>;

    /// Notes how a try went; nothing if the job was erased meanwhile.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn webhook_tried(&self, id: JobId, told: Told) -> Result<(), QueueError>;

    /// Changes whenever jobs have ended.
    fn endings(&self) -> watch::Receiver<u64>;
}
