//! The Responses API without its memory: each request brings the whole conversation.

mod answer;
mod input;
mod request;

pub use answer::ResponseAnswer;
pub use request::ResponseRequest;

#[cfg(test)]
mod tests;
