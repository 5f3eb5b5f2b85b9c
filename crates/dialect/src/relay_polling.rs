//! The polling relay: a prompt in, a text out, no stream.
//!
//! The modules implement `/api/ollama/*` as documented; `production` implements the variant that
//! the original poller really uses.

mod answer;
mod poll;
pub mod production;
mod request;
mod status;

pub use answer::{ACKNOWLEDGED, Answer, lines, text};
pub use poll::{PolledRequest, poll_id, polled, token};
pub use request::{MAX_TOKENS, Request, TEMPERATURE};
pub use status::{Progress, queued, status};

#[cfg(test)]
mod tests;
