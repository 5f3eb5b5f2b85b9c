//! Time limits of an engine.

use proto::limits;
use tokio::time::{Duration, Instant};

/// Timeouts of an engine.
#[derive(Debug, Clone)]
pub struct EngineTimes {
    /// Time to connect.
    pub connect: Duration,
    /// Time to answer a request about the engine itself.
    pub report: Duration,
    /// Time to the first line. It includes loading the model, waiting for other requests, and
    /// processing a long prompt, which on a slow machine takes as long as a whole answer.
    pub first_line: Duration,
    /// Time between two lines. Ollama writes a tool call as one line, when it is complete.
    pub next_line: Duration,
    /// Time to an answer that is not streamed. The worker limits the time of a job, and tells the
    /// requester so, which a timeout here would not.
    pub whole_answer: Duration,
}

impl Default for EngineTimes {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            report: Duration::from_secs(5),
            first_line: Duration::from_secs(30 * 60),
            next_line: Duration::from_secs(10 * 60),
            whole_answer: limits::DEADLINE_MAX,
        }
    }
}

impl EngineTimes {
    /// The limit of the first line.
    pub(crate) const fn to_first_line(&self) -> Limit {
        Limit {
            time: self.first_line,
            option: Some("--first-line-timeout"),
        }
    }

    /// The limit between two lines.
    pub(crate) const fn to_next_line(&self) -> Limit {
        Limit {
            time: self.next_line,
            option: Some("--next-line-timeout"),
        }
    }
}

/// A time limit, and what the owner can do about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) time: Duration,
    /// The option of the agent that sets it.
    option: Option<&'static str>,
}

impl Limit {
    /// A limit that no option sets.
    pub(crate) const fn fixed(time: Duration) -> Self {
        Self { time, option: None }
    }

    /// Begins to count the time.
    pub(crate) fn starting_now(self) -> Deadline {
        Deadline {
            at: Instant::now() + self.time,
            limit: self,
        }
    }

    /// Adds the option that sets the limit to an error.
    pub(crate) fn explain(self, problem: &str) -> String {
        match self.option {
            Some(option) => format!("{problem} (`{option}` of the agent)"),
            None => problem.to_owned(),
        }
    }
}

/// The end of a time limit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) limit: Limit,
}
