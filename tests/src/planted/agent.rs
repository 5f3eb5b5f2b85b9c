//! Bugs of the agent: the status hub, and its worker's connection and engine.

use super::{Bug, Edit, proof::unit};

/// All of them.
pub(super) const AGENT: &[Bug] = &[
    Bug {
        name: "a-sandboxed-page-is-let-in",
        edits: &[Edit {
            file: "crates/status/src/access.rs",
            is: "*origin != \"null\" && *origin != \"*\"",
            becomes: "*origin != \"*\"",
        }],
        found_by: unit(
            "status",
            "access::",
            "only_listed_origins_are_let_in_and_null_never_is",
        ),
    },
    Bug {
        name: "a-refused-program-asks-again",
        edits: &[Edit {
            file: "crates/status/src/approvals.rs",
            is: "if self.refused.iter().any(|(refused, _)| refused == by) {",
            becomes: "if self.refused.len() > 1_000 {",
        }],
        found_by: unit(
            "status",
            "approvals::",
            "a_refused_program_is_not_asked_about_again_for_a_while",
        ),
    },
    Bug {
        name: "workers-come-back-together",
        edits: &[Edit {
            file: "crates/worker/src/backoff.rs",
            is: "spread.mul_f64(random.clamp(0.0, 1.0))",
            becomes: "spread",
        }],
        found_by: unit(
            "worker",
            "backoff::",
            "chance_spreads_a_wait_over_its_whole_length",
        ),
    },
    Bug {
        name: "a-broken-engine-is-asked-on",
        edits: &[Edit {
            file: "crates/worker/src/breaker.rs",
            is: "        if self.in_a_row >= Self::IN_A_ROW || often {\n            self.open = true;",
            becomes: "        if self.in_a_row > 9 * Self::IN_A_ROW || often {\n            self.open = true;",
        }],
        found_by: unit(
            "worker",
            "breaker::",
            "five_failures_in_a_row_open_it_and_four_do_not",
        ),
    },
];
