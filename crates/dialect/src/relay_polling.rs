//! The polling relay (`/api/ollama/*`, its documented dialect): a prompt in, a text out, no stream.

mod answer;
mod poll;
mod request;
mod status;

pub use answer::{ACKNOWLEDGED, Answer, lines, text};
pub use poll::{PolledRequest, poll_id, polled, token};
pub use request::{MAX_TOKENS, Request, TEMPERATURE};
pub use status::{Progress, queued, status};

#[cfg(test)]
mod tests;
