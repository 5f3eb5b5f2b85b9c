//! The status hub on port 6001 and its client.
//!
//! One snapshot, encoded once per change, pushed to every socket; a slow reader skips, it never
//! slows anybody. Whoever shows the local token may also give commands. Nothing wakes up while
//! nothing changes.

mod access;
mod bind;
mod bucket;
mod dial;
mod door;
mod follow;
mod holder;
mod hub;
mod message;
mod place;
pub mod private_file;
mod server;
mod socket;
mod token;
mod upgrade;

pub use access::{Access, Refusal};
pub use bind::{BindError, Bound, Refused, bind_loopback};
pub use follow::{AskError, Link, Subscriber, SubscriberHandle};
pub use holder::{Holder, holder};
pub use hub::{Snapshot, StatusHub};
pub use place::{HubAddress, Places};
pub use server::{Answer, Limits, Request, StatusServer};
pub use token::{LocalToken, TokenError};

/// The hub's port, and the one it takes when that is held by somebody else.
pub const PORTS: [u16; 2] = [6001, 6000];
