//! The tunnel service's desktops as workers: requests of the engine's API go to them, and whole
//! HTTP answers come back.
//!
//! `polling` implements the HTTP polling bridge, `tunnel` the messages of the WebSocket. The code
//! of the original programs counts where its document says otherwise.

mod answer;
pub mod polling;
mod request;
#[cfg(test)]
mod tests;
pub mod tunnel;

pub use answer::{Answer, Failure, Outcome};
pub use request::EngineRequest;
