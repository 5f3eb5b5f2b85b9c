//! Real processes, end to end.

mod docs;
mod faults;
mod graph;
mod kills;
mod main_job;
mod pausing;
mod stand;
