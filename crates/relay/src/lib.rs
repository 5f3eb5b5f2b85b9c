//! The relay: keeps jobs in a durable queue, leases them to workers, and streams their answers.
//!
//! Requesters speak the native API or one of the dialects in `dialect`; workers see only Ollama's
//! format. Every answer is read from the job's log, so a requester, a worker and this process may
//! each disconnect or restart and continue.

mod api;
mod app;
mod args;
mod auth;
mod batch;
mod bounds;
mod budget;
mod carrier;
mod concurrency;
mod config;
mod connections;
mod cors;
mod drain;
mod error;
mod error_format;
#[cfg(test)]
mod error_page;
mod exempt;
mod fixed;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod headers;
mod hint;
mod intake;
mod jwt;
pub mod keys;
mod listen;
mod loopback;
mod metrics;
mod multipart;
mod offer;
mod open;
mod overview;
mod pages;
mod payload;
mod peer;
mod pipeline;
mod position;
mod public_url;
mod push;
mod queue_limits;
mod rate;
mod request_id;
mod request_options;
mod revocation;
mod routing;
mod sending;
mod serve;
mod session;
mod settings;
mod stall_timeout;
mod stream;
mod submission;
mod tail;
mod tally;
mod target;
mod throttle;
mod tls;
mod unread;
mod upkeep;
pub mod users;
mod webhook;
mod whole_answer;
mod workers;
mod world;

pub use app::Relay;
pub use args::Args;
pub use bounds::BoundsArgs;
pub use carrier::echo;
pub use config::{Config, ConfigError};
pub use metrics::serve_metrics;
pub use open::{OpenError, check_store_exists, open, open_keys, open_users};
pub use peer::Network;
pub use public_url::PublicUrl;
pub use push::PushUrl;
pub use queue_limits::QueueLimitArgs;
pub use serve::serve;
pub use settings::RelaySettings;
pub use tls::TlsFiles;
pub use webhook::Allowed as WebhookAllowed;
pub use world::{SystemWorld, World};
