//! Integration tests of a relay in this process, over real sockets, with a store in memory and
//! scripted workers.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod admin;
mod anthropic;
mod arriving;
mod batches;
mod bounds;
mod bridge;
mod broken_batches;
mod ceilings;
mod chosen_worker;
mod client;
mod cors;
mod doors;
mod endings;
mod engine_down;
mod framing;
mod gated;
mod heartbeats;
mod http_carrier;
mod hygiene;
mod inbox;
mod insecure_dev;
mod late_repeats;
mod lending;
mod limits;
mod login;
mod matrix;
mod metrics;
mod native;
mod ollama;
mod openai;
mod overload;
mod pace;
mod padding;
mod path_keys;
mod people;
mod places;
mod priorities;
mod proxies;
mod proxy;
mod pushes;
mod queries;
mod readers;
mod relay_polling;
mod replays;
mod retries;
mod routing;
mod sending;
mod server;
mod sessions;
mod socket;
mod stopping;
mod tls;
mod tokens;
mod tunnel;
mod webhooks;
mod wire;
mod worker;

use std::time::Duration;

/// Fails the test if `what` takes longer than 20 s.
async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what)
        .await
        .expect("took longer than 20 s")
}
