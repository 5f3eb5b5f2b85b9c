//! Bugs that make the programs slow, large or rude, each with the figure that then misses its goal by
//! far, or with a test if no figure depends on it.

use super::{
    Bug, Edit,
    proof::{of_queue, of_relay, unit},
};

/// Each decision is written and synced by itself.
const NO_GROUP_COMMIT: &[Edit] = &[Edit {
    file: "crates/queue-sqlite/src/inbox.rs",
    is: "let asks = std::mem::take(&mut waiting.asks);
                self.room",
    becomes: "let asks: VecDeque<_> = waiting.asks.pop_front().into_iter().collect();
                self.room",
}];

/// So is each decision, and the log is then copied to the database, whose syncs come on top: on a
/// disk that syncs in a tenth of a millisecond, one sync for each is not enough to be noticed.
const NO_LOG: &[Edit] = &[
    NO_GROUP_COMMIT[0],
    Edit {
        file: "crates/queue-sqlite/src/schema.rs",
        is: "pub(crate) const PAGES: u32 = 4000;",
        becomes: "pub(crate) const PAGES: u32 = 1;",
    },
];

/// All of them.
pub(super) const COSTS: &[Bug] = &[
    Bug {
        name: "a-sync-for-each-submission",
        edits: NO_GROUP_COMMIT,
        found_by: of_queue("commit", "Q1 durable enqueue / group-commit floor, c64"),
    },
    Bug {
        name: "a-sync-for-each-step-of-a-job",
        edits: NO_GROUP_COMMIT,
        found_by: of_queue("cycle", "Q2 durable cycles / naive SQLite"),
    },
    Bug {
        name: "each-waits-for-its-own-sync",
        edits: NO_GROUP_COMMIT,
        found_by: of_queue("commit", "Q4 contended enqueue p50"),
    },
    Bug {
        name: "no-log-for-a-request",
        edits: NO_LOG,
        found_by: of_relay("submit", "H1 POST /api/jobs durable / in memory, c64"),
    },
    Bug {
        name: "no-log-for-the-parts-of-a-life",
        edits: NO_LOG,
        found_by: of_relay("load", "D7 durable job lives"),
    },
    Bug {
        name: "the-last-comes-first",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/inbox.rs",
            is: "let asks = std::mem::take(&mut waiting.asks);
                self.room",
            becomes: "let asks: VecDeque<_> = waiting.asks.pop_back().into_iter().collect();
                self.room",
        }],
        found_by: of_queue("commit", "Q3 enqueue p99 / p50"),
    },
    Bug {
        name: "a-large-buffer-for-each-worker",
        edits: &[Edit {
            file: "crates/relay/src/carrier/socket.rs",
            is: ".read_buffer_size(limits::WS_READ_BUFFER)",
            becomes: ".read_buffer_size(128 * 1024)",
        }],
        found_by: of_relay("idle", "D9 memory"),
    },
    Bug {
        name: "an-overload-is-a-burst",
        edits: &[Edit {
            file: "crates/relay/src/concurrency.rs",
            is: "return inside < self.most.div_ceil(SUSTAINED_DIVISOR);",
            becomes: "return inside < self.most * SUSTAINED_DIVISOR;",
        }],
        // At the present speed no figure of an overload needs the limit.
        found_by: unit(
            "relay",
            "concurrency::",
            "a_burst_may_fill_the_gate_and_of_a_load_that_stands_a_quarter_is_let_in",
        ),
    },
    Bug {
        name: "a-refusal-does-not-say-when",
        edits: &[Edit {
            file: "crates/relay/src/error.rs",
            is: "headers.insert(header::RETRY_AFTER, seconds.into());",
            becomes: "let _ = seconds;",
        }],
        found_by: of_relay("load", "D10 refusals without 429 or 503"),
    },
    Bug {
        name: "who-dawdles-may-stay",
        edits: &[Edit {
            file: "crates/relay/src/listen.rs",
            is: "head: relay.settings.head_patience,",
            becomes: "head: relay.settings.head_patience * 1_000,",
        }],
        found_by: of_relay("slow", "D11 seconds until all of them are gone"),
    },
];
