//! The hub and its client on real sockets.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod approvals;
mod assistant;
mod broken;
mod deltas;
mod fanout;
mod follow;
mod foreign;
mod gate;
mod guesses;
mod hub;
mod neighbour;
mod peer;
mod publishers;
mod room;
mod support;
mod v1;
