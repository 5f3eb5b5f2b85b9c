//! Real processes, end to end.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

mod docs;
mod faults;
mod full;
mod graph;
mod hostile;
mod jobs;
mod kills;
mod logs;
mod main_job;
mod nginx;
mod pages;
mod pair;
mod pausing;
mod private;
mod run;
mod stops;
mod subscribers;
mod syncs;
mod tls;
mod users;
