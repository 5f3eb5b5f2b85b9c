//! The status hub on port 6001 and its client.
//!
//! One snapshot is encoded once per change and written to every socket by one task. A slow reader
//! misses intermediate statuses and does not delay others. Clients with the local token may also
//! send commands. While nothing changes, no task wakes up.

mod access;
mod approvals;
mod arrivals;
mod asking;
mod bind;
mod bucket;
mod caller;
mod connection;
mod dial;
#[cfg(feature = "fuzz")]
pub mod echo;
mod fields;
mod fit;
mod follow;
mod foreign;
mod frames;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod hub;
mod legacy;
mod neighbour;
mod peer;
mod pipe;
mod place;
mod port_owner;
mod printable;
pub mod private_file;
mod proof;
mod publishers;
mod readers;
mod request;
mod server;
mod socket_slots;
mod sockets;
mod token;
mod token_check;
mod upgrade;
mod v1;
mod web;
mod world;

pub use access::{Access, Refusal};
pub use approvals::{Approvals, Consent};
pub use arrivals::{Arrival, Arrivals, IdentifiedGuard};
pub use bind::{BindError, Bound, PortInUse, bind_loopback};
pub use follow::{AskError, Link, Subscriber, SubscriberHandle};
pub use hub::{Snapshot, StatusHub, VoiceActivity};
pub use neighbour::follow_neighbour;
pub use place::{HubAddress, Places, Ports};
pub use port_owner::{PortOwner, is_foreign, port_owner, port_user};
pub use printable::{is_printable, strip_control_chars};
pub use request::request;
pub use server::{Answer, Limits, Request, StatusServer};
pub use token::{LocalToken, TokenError};
pub use world::World;

/// The hub's default port, and the fallback if another program holds it.
pub const PORTS: [u16; 2] = [6001, 6000];
/// The default port of the local HTTP server, and the fallback if another program holds it.
pub const HTTP_PORTS: [u16; 2] = [5001, 5000];
