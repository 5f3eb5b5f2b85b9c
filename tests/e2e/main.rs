//! Real processes, end to end.

mod graph;
