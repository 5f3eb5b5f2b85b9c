//! Webhooks: requests to a URL when a job has ended, and the trait of a store that keeps them.

use std::fmt;

use async_trait::async_trait;
use proto::{JobId, SecretBytes, Timestamp, WebhookState};
use tokio::sync::watch;

use crate::{Job, QueueError};

/// The URL to call when a job has ended, and the key that signs the call.
#[derive(Clone, PartialEq, Eq)]
pub struct NewWebhook {
    /// URL; checked by the relay when submitted and again before each call.
    pub url: String,
    /// Key of the signature.
    pub secret: SecretBytes,
}

impl fmt::Debug for NewWebhook {
    /// Hides the secret, and the URL, which may contain one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewWebhook").finish_non_exhaustive()
    }
}

/// A webhook with its delivery state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// URL and secret.
    pub new: NewWebhook,
    /// Delivery state.
    pub state: WebhookState,
    /// Number of delivery attempts.
    pub tries: u32,
    /// Time before which no attempt is made.
    pub next_at: Timestamp,
    /// Error of the last attempt.
    pub error: Option<String>,
}

impl Webhook {
    /// A webhook without any attempt.
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

    /// Records the outcome of an attempt.
    pub fn tried(&mut self, told: DeliveryOutcome) {
        self.tries = self.tries.saturating_add(1);
        (self.state, self.error) = match told {
            DeliveryOutcome::Delivered => (WebhookState::Delivered, None),
            DeliveryOutcome::Failed { again_at, error } => {
                self.next_at = again_at;
                (WebhookState::Waiting, Some(error))
            }
            DeliveryOutcome::GivenUp { error } => (WebhookState::GivenUp, Some(error)),
        };
    }
}

/// Outcome of a delivery attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver accepted it.
    Delivered,
    /// The attempt failed; another one follows.
    Failed {
        /// Time of the next attempt.
        again_at: Timestamp,
        /// Reason, without the URL.
        error: String,
    },
    /// The attempt failed for good.
    GivenUp {
        /// Reason, without the URL.
        error: String,
    },
}

/// The webhooks to call now, and the time to check again.
#[derive(Debug, Clone, Default)]
pub struct DueWebhooks {
    /// Ended jobs, without bodies; of each account the longest due first.
    pub due: Vec<(Job, Webhook)>,
    /// Time at which the next other attempt is due.
    pub next: Option<Timestamp>,
    /// Whether any webhook is pending, including those whose job has not ended.
    pub any: bool,
}

/// Storage of webhooks. They are kept and erased with their job.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Webhooks: fmt::Debug + Send + Sync {
    /// Returns the webhook of a job, if it has one.
    async fn webhook(&self, id: JobId) -> Result<Option<Webhook>, QueueError>;

    /// Returns the webhooks of ended jobs that are due, at most `limit`, and at most `of_each` per
    /// account: first one of each account, then the second of each, and so on.
    async fn due_webhooks(
        &self,
        now: Timestamp,
        limit: usize,
        of_each: usize,
    ) -> Result<DueWebhooks, QueueError>;

    /// Records the outcome of an attempt; does nothing if the job was erased.
    async fn webhook_tried(&self, id: JobId, told: DeliveryOutcome) -> Result<(), QueueError>;

    /// Subscribes to a counter that changes whenever jobs have ended.
    fn endings(&self) -> watch::Receiver<u64>;
}
