//! The Responses API without stored state: each request contains the whole conversation.

mod answer;
mod input;
mod request;

pub use answer::ResponseAnswer;
pub use request::ResponseRequest;

#[cfg(test)]
mod tests;
