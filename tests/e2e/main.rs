//! Real processes, end to end.

mod docs;
mod graph;
