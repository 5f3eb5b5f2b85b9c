//! [`Source`], where jobs come from, and the reasons why a link ends.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::JobTable;

/// The connection through which jobs arrive and answers leave.
///
/// A source adds jobs with [`JobTable::lease`], sends what [`JobTable::next`] returns, and records
/// what its peer acknowledged. It decides nothing about the jobs themselves.
#[async_trait]
pub trait Source: fmt::Debug + Send {
    /// Name for the owner, without secrets.
    fn name(&self) -> String;

    /// Keeps a link up until `stop`; reconnects whenever it breaks.
    async fn serve(&mut self, table: &Arc<JobTable>, stop: &CancellationToken);
}

/// Reason why a session over one carrier ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkEnd {
    /// The worker stops.
    Stopped,
    /// The machine resumed from suspend, or its network changed: reconnect at once.
    Woken,
    /// The link broke, or could not be established.
    Lost {
        /// Whether a server answered at the relay's address.
        reached: bool,
        /// Description of the problem.
        problem: String,
    },
    /// This carrier is blocked; another one may work.
    Blocked(String),
    /// A better carrier is to be tried again.
    Upgrade,
    /// The relay asked to wait.
    Later {
        /// Requested time.
        after: Option<Duration>,
        /// Message of the relay.
        problem: String,
    },
    /// The relay restarts; this is not a failure.
    Restarting {
        /// Requested time.
        after: Option<Duration>,
    },
    /// The relay refused the key.
    Unauthorized(String),
    /// What answers is not a relay, or a relay of another version.
    NotTheRelay(String),
}
