use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::Desk;

/// Where jobs come from and where their answers go.
///
/// A source takes jobs with [`Desk::lease`], sends what [`Desk::next`] gives it, and tells the
/// desk what its peer acknowledged. It decides nothing about the jobs themselves, so a new kind
/// of server needs one file.
#[async_trait]
pub trait Source: fmt::Debug + Send {
    /// Its name for the owner's eyes, without secrets.
    fn name(&self) -> String;

    /// Keeps the link until `stop`, however often it breaks.
    async fn serve(&mut self, desk: &Arc<Desk>, stop: &CancellationToken);
}

/// Why one session over one carrier ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// It was asked to.
    Stopped,
    /// The owner's machine woke up or changed its network: connect again at once.
    Woken,
    /// The link broke, or never stood.
    Lost {
        /// Something answered at the relay's address at all.
        reached: bool,
        /// What happened.
        problem: String,
    },
    /// This carrier does not get through; another may.
    Blocked(String),
    /// A better carrier shall be tried again.
    Upgrade,
    /// The relay asked for patience.
    Later {
        /// For how long.
        after: Option<Duration>,
        /// What it said.
        problem: String,
    },
    /// The relay goes down and comes again: nobody's fault.
    Restarting {
        /// How long it asks for.
        after: Option<Duration>,
    },
    /// The relay refused the key.
    Unauthorized(String),
    /// Something else than a relay of this protocol answers there.
    NotTheRelay(String),
}
