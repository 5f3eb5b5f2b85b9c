use std::sync::Arc;

use bytes::Bytes;
use proto::{
    End, ErrorCode, JobError, LeaseToken, Timestamp,
    status::LiveJob,
    worker::{LeaseHead, Retry},
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Totals, outbox::Outbox};

/// Most bytes of lines in one [`Outgoing::Lines`], unless a single line is longer.
const BATCH_MAX: usize = 64 * 1024;

/// Longest name of a requester that is shown.
const WHO_MAX: usize = 64;

/// What a source is to tell its peer next.
#[derive(Clone, PartialEq)]
pub enum Outgoing {
    /// New lines of an answer.
    Lines {
        /// The lease.
        token: LeaseToken,
        /// The number of the first.
        first: u64,
        /// The lines, in order.
        lines: Vec<Bytes>,
    },
    /// The job ended; all its lines were given out before.
    End {
        /// The lease.
        token: LeaseToken,
        /// How many lines it has.
        lines: u64,
        /// How it ended.
        end: End,
    },
    /// The job is given back.
    Nack {
        /// The lease.
        token: LeaseToken,
        /// What shall become of it.
        retry: Retry,
        /// Why.
        why: JobError,
    },
}

impl Outgoing {
    /// The lease it is about.
    #[must_use]
    pub const fn token(&self) -> LeaseToken {
        match self {
            Self::Lines { token, .. } | Self::End { token, .. } | Self::Nack { token, .. } => {
                *token
            }
        }
    }
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lines { first, lines, .. } => {
                write!(f, "Lines({} from {first})", lines.len())
            }
            Self::End { lines, end, .. } => write!(f, "End({lines} lines, {end:?})"),
            Self::Nack { retry, why, .. } => write!(f, "Nack({retry:?}, {})", why.code),
        }
    }
}

/// How this worker's part in a job ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ending {
    /// With an answer, or with an engine's refusal.
    End(End),
    /// Without either.
    Nack(Retry, JobError),
}

impl Ending {
    pub(crate) fn nack(retry: Retry, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::Nack(retry, JobError::new(code, message))
    }
}

#[derive(Debug)]
enum Phase {
    Running,
    Ended { ending: Ending, sent: bool },
}

/// One lease on the desk.
#[derive(Debug)]
pub(crate) struct Held {
    head: LeaseHead,
    pub(crate) outbox: Outbox,
    /// It takes no slot, as long as there are not too many such.
    pub(crate) is_urgent: bool,
    phase: Phase,
    /// On this link the relay said that the lease is good.
    pub(crate) confirmed: bool,
    /// When the relay last heard of it.
    pub(crate) renewed: Instant,
    /// Dropped with the engine's answer.
    pub(crate) stop: CancellationToken,
    /// Told when there is room for more lines.
    pub(crate) room: Arc<Notify>,
    started_at: Timestamp,
    first_line: Option<Instant>,
}

impl Held {
    pub(crate) fn new(head: LeaseHead, started_at: Timestamp, stop: CancellationToken) -> Self {
        Self {
            head,
            outbox: Outbox::default(),
            is_urgent: false,
            phase: Phase::Running,
            confirmed: true,
            renewed: Instant::now(),
            stop,
            room: Arc::default(),
            started_at,
            first_line: None,
        }
    }

    pub(crate) const fn is_running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(crate) fn push(&mut self, line: Bytes) {
        self.first_line.get_or_insert_with(Instant::now);
        self.outbox.push(line);
    }

    /// Ends it, unless it ended before; whatever still runs for it is stopped.
    pub(crate) fn end(&mut self, ending: Ending) -> bool {
        if !self.is_running() {
            return false;
        }
        self.give_up(ending);
        true
    }

    /// Ends it so, however it had ended before; whatever still runs for it is stopped.
    pub(crate) fn give_up(&mut self, ending: Ending) {
        self.phase = Phase::Ended {
            ending,
            sent: false,
        };
        self.stop.cancel();
        self.room.notify_one();
    }

    /// A new link: nothing was sent over it yet.
    pub(crate) const fn rewind(&mut self) {
        self.outbox.rewind();
        if let Phase::Ended { sent, .. } = &mut self.phase {
            *sent = false;
        }
    }

    /// What is to be sent next, if anything is; it counts as sent from now on.
    pub(crate) fn next(&mut self) -> Option<Outgoing> {
        if !self.confirmed {
            return None;
        }
        let token = self.head.token;
        if let Phase::Ended {
            ending: Ending::Nack(retry, why),
            sent,
        } = &mut self.phase
        {
            return (!std::mem::replace(sent, true)).then(|| Outgoing::Nack {
                token,
                retry: *retry,
                why: why.clone(),
            });
        }
        if let Some((first, lines)) = self.outbox.take(BATCH_MAX) {
            self.renewed = Instant::now();
            return Some(Outgoing::Lines {
                token,
                first,
                lines,
            });
        }
        match &mut self.phase {
            Phase::Ended {
                ending: Ending::End(end),
                sent,
            } => (!std::mem::replace(sent, true)).then(|| Outgoing::End {
                token,
                lines: self.outbox.last(),
                end: end.clone(),
            }),
            Phase::Ended { .. } | Phase::Running => None,
        }
    }

    /// Counts it among those that are over: well, or because the lease was lost.
    pub(crate) fn count(&self, lost: Option<ErrorCode>, totals: &mut Totals) {
        let total = match &self.phase {
            Phase::Ended { ending, .. } if lost.is_none() => match ending {
                Ending::End(End::Completed) => &mut totals.completed,
                Ending::End(End::Failed { .. }) => &mut totals.failed,
                Ending::End(End::Cancelled) => &mut totals.cancelled,
                Ending::Nack(Retry::Never, why) if why.code == ErrorCode::Cancelled => {
                    &mut totals.cancelled
                }
                Ending::Nack(Retry::Never, _) => &mut totals.failed,
                Ending::Nack(Retry::Now | Retry::AfterMs(_), _) => &mut totals.given_back,
            },
            _ if lost == Some(ErrorCode::Cancelled) => &mut totals.cancelled,
            Phase::Ended { .. } | Phase::Running => &mut totals.given_back,
        };
        *total += 1;
        totals.tokens += self.outbox.last();
    }

    /// The job as the owner sees it while it runs.
    pub(crate) fn live(&self) -> LiveJob {
        let tokens = self.outbox.last();
        let seconds = self
            .first_line
            .map_or(0.0, |first| first.elapsed().as_secs_f32());
        let after_first = u16::try_from(tokens.saturating_sub(1)).unwrap_or(u16::MAX);
        LiveJob {
            id: self.head.token.job,
            who: shown(&self.head.who),
            model: self.head.model.clone(),
            op: self.head.op,
            started_at: self.started_at,
            tokens,
            tokens_per_second: if seconds > 0.0 {
                f32::from(after_first) / seconds
            } else {
                0.0
            },
        }
    }
}

/// A name as it may be shown: a relay could send one that fills every status.
fn shown(who: &str) -> String {
    who.chars()
        .filter(|char| !char.is_control())
        .take(WHO_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_what_steers_a_terminal_taken_out() {
        assert_eq!(shown("laptop"), "laptop");
        assert_eq!(shown(&"ż".repeat(500)), "ż".repeat(WHO_MAX));
        assert_eq!(shown("a\u{1b}[31m\r\n\u{85}b"), "a[31mb");
        let hidden = format!("{}{}", "\n".repeat(100), "x".repeat(100));
        assert_eq!(shown(&hidden), "x".repeat(WHO_MAX));
    }
}
