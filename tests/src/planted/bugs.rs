//! The bugs, each with the test that must find it.

use super::{Bug, Edit, Proof};

const fn unit(of: &'static str, named: &'static str, by: &'static str) -> Proof {
    let kind = "--lib";
    Proof::Tests {
        of,
        kind,
        named,
        by,
    }
}

const fn through_http(named: &'static str, by: &'static str) -> Proof {
    let (of, kind) = ("relay", "--test=it");
    Proof::Tests {
        of,
        kind,
        named,
        by,
    }
}

/// The random operations on the queue, compared with its plain model.
const OPERATIONS: Proof = Proof::Tests {
    of: "queue",
    kind: "--test=operations",
    named: "the_queue_does",
    by: "the_queue_does_what_the_plain_words_say",
};

/// All bugs.
pub(super) const BUGS: &[Bug] = &[
    Bug {
        name: "no-fencing",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if record.loan.is_some() && record.job.attempt == token.attempt {",
            becomes: "if record.loan.is_some() {",
        }],
        found_by: Proof::Kills,
    },
    Bug {
        name: "answer-before-commit",
        edits: &[
            Edit {
                file: "crates/relay/src/submission.rs",
                is: "self.enqueue(id, caller, submission, extras, false).await",
                becomes: "let (relay, caller) = (self.clone(), caller.clone());
                    self.tasks.spawn(async move {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        drop(relay.enqueue(id, &caller, submission, extras, false).await);
                    });
                    Ok(Submitted::Known(id))",
            },
            Edit {
                file: "crates/relay/src/api/jobs/submit.rs",
                is: "let job = job.ok_or_else(ApiError::unknown_job)?;",
                becomes: "let Some(job) = job else {
                        let soon = format!(r#\"{{\"id\":\"{id}\"}}\"#);
                        return Ok((StatusCode::ACCEPTED, soon).into_response());
                    };",
            },
        ],
        found_by: Proof::Kills,
    },
    Bug {
        name: "no-fsync",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/schema.rs",
            is: "PRAGMA synchronous = FULL;",
            becomes: "PRAGMA synchronous = NORMAL;",
        }],
        found_by: Proof::PowerCuts,
    },
    Bug {
        name: "an-attempt-is-not-counted",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "record.job.attempt.saturating_add(1)",
            becomes: "record.job.attempt.max(1)",
        }],
        found_by: unit(
            "queue",
            "memory::",
            "the_late_worker_cannot_finish_a_job_that_was_handed_on",
        ),
    },
    Bug {
        name: "anybody-cancels",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: ".filter(|record| owner.owns(&record.job.new.account))\n            .ok_or(QueueError::UnknownJob(id))?;\n        match",
            becomes: ".filter(|record| owner.owns(&record.job.new.account) || true)\n            .ok_or(QueueError::UnknownJob(id))?;\n        match",
        }],
        found_by: unit("queue", "memory::", "another_account_sees_nothing"),
    },
    Bug {
        name: "the-queue-has-no-end",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if all.queued >= limits.jobs_max {",
            becomes: "if all.queued > limits.jobs_max.saturating_mul(9) {",
        }],
        found_by: unit("queue", "memory::", "the_queue_as_a_whole_has_bounds"),
    },
    Bug {
        name: "one-account-takes-all",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if own.jobs >= limits.account_jobs_max {",
            becomes: "if own.jobs > limits.jobs_max {",
        }],
        found_by: unit("queue", "memory::", "an_account_has_a_share_of_the_queue"),
    },
    Bug {
        name: "half-an-answer-is-whole",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if lines > have {",
            becomes: "if lines > have.saturating_add(1_000) {",
        }],
        found_by: unit("queue", "memory::", "an_end_with_missing_lines_is_refused"),
    },
    Bug {
        name: "tried-for-ever",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "record.tries >= self.limits.attempts_max",
            becomes: "record.tries >= 9 * self.limits.attempts_max",
        }],
        found_by: unit(
            "queue",
            "memory::",
            "a_job_given_back_too_often_fails_with_the_last_reason",
        ),
    },
    Bug {
        name: "a-withdrawal-is-forgotten",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "let end = if record.cancelled {",
            becomes: "let end = if record.cancelled && lines > 1_000 {",
        }],
        found_by: unit(
            "queue",
            "memory::",
            "a_cancelled_job_ends_as_cancelled_whatever_its_worker_says",
        ),
    },
    Bug {
        name: "accounts-take-no-turns",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "        self.table.waiting.served(&record.job.new.account);\n",
            becomes: "",
        }],
        found_by: unit("queue", "memory::", "accounts_take_turns"),
    },
    Bug {
        name: "the-clock-goes-back",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "self.clock = self.clock.max(now);",
            becomes: "self.clock = now;",
        }],
        found_by: unit(
            "queue",
            "memory::",
            "a_step_back_of_the_clock_expires_nothing",
        ),
    },
    Bug {
        name: "a-lost-lease-costs-no-attempt",
        edits: &[Edit {
            file: "crates/queue/src/machine/due.rs",
            is: "            lost.tries += 1;\n",
            becomes: "",
        }],
        found_by: OPERATIONS,
    },
    Bug {
        name: "any-worker-does",
        edits: &[Edit {
            file: "crates/queue/src/machine/waiting.rs",
            is: "            worker: new.worker.clone(),",
            becomes: "            worker: None,",
        }],
        found_by: OPERATIONS,
    },
    Bug {
        name: "told-before-the-commit",
        // Reads stay correct: the lines are in the transaction, which stays open for some groups.
        edits: &[
            Edit {
                file: "crates/queue-sqlite/src/writer.rs",
                is: "        self.conn.prepare_cached(\"BEGIN IMMEDIATE\")?.execute([])?;",
                becomes: "        if self.conn.is_autocommit() {
            self.conn.prepare_cached(\"BEGIN IMMEDIATE\")?.execute([])?;
        }",
            },
            Edit {
                file: "crates/queue-sqlite/src/writer.rs",
                is: "        self.conn.prepare_cached(\"COMMIT\")?.execute([])?;\n",
                becomes: "        static GROUPS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
        if GROUPS.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 64 == 0 {
            self.conn.prepare_cached(\"COMMIT\")?.execute([])?;
        }
",
            },
        ],
        found_by: unit(
            "queue-sqlite",
            "",
            "a_killed_process_keeps_what_it_acknowledged",
        ),
    },
    Bug {
        name: "erased-and-still-there",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/schema.rs",
            is: "PRAGMA secure_delete = ON;",
            becomes: "PRAGMA secure_delete = OFF;",
        }],
        found_by: unit(
            "queue-sqlite",
            "",
            "an_erased_prompt_and_its_answer_are_nowhere_in_the_files_of_a_relay_that_goes_on",
        ),
    },
    Bug {
        name: "a-token-lives-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if now >= claims.exp {",
            becomes: "if now >= claims.exp.saturating_mul(2) {",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "a_token_is_read_back_until_its_time_has_passed",
        ),
    },
    Bug {
        name: "any-algorithm",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: ".filter(|_| said == header)",
            becomes: ".filter(|_| !said.is_empty())",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "no_other_header_is_read_even_if_it_is_signed",
        ),
    },
    Bug {
        name: "a-refresh-token-opens",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if claims.token_type != kind {",
            becomes: "if claims.token_type != kind && claims.iat == 0 {",
        }],
        found_by: unit(
            "relay",
            "jwt::",
            "a_token_is_read_back_until_its_time_has_passed",
        ),
    },
    Bug {
        name: "a-mistyped-key-is-looked-up",
        edits: &[Edit {
            file: "crates/relay/src/keys.rs",
            is: "(checksum(body) == sum).then_some",
            becomes: "(checksum(body).len() == sum.len()).then_some",
        }],
        found_by: unit("relay", "keys::", "a_mistyped_key_is_not_a_key"),
    },
    Bug {
        name: "a-revoked-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.revoked_at.is_some() {",
            becomes: "if record.revoked_at.is_some_and(|at| at.0 == 0) {",
        }],
        found_by: through_http(
            "doors",
            "no_route_is_open_to_a_missing_a_wrong_or_a_revoked_key",
        ),
    },
    Bug {
        name: "an-expired-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.has_expired(now) {",
            becomes: "if record.has_expired(now) && record.id.is_empty() {",
        }],
        found_by: through_http("ceilings", "an_expired_key_opens_nothing_and_is_told_why"),
    },
    Bug {
        name: "no-scope-is-asked-for",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if !scopes.contains(&scope) {",
            becomes: "if scopes.is_empty() {",
        }],
        found_by: through_http(
            "matrix",
            "every_route_lets_in_whom_the_document_says_and_nobody_else",
        ),
    },
    Bug {
        name: "a-key-in-the-path-may-all",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if location == KeyLocation::Header {",
            becomes: "if location == KeyLocation::Header && scopes.is_empty() {",
        }],
        found_by: through_http(
            "path_keys",
            "a_key_in_the_path_may_only_ask_and_read_whatever_its_scopes",
        ),
    },
    Bug {
        name: "any-header-is-believed",
        edits: &[Edit {
            file: "crates/relay/src/peer.rs",
            is: "if !is_proxy(peer.address) {",
            becomes: "if !is_proxy(peer.address) && headers.is_empty() {",
        }],
        found_by: unit(
            "relay",
            "peer::",
            "only_listed_proxies_are_believed_and_only_as_far_as_they_saw",
        ),
    },
    Bug {
        name: "guessing-costs-nothing",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.until = now + wait;\n",
            becomes: "",
        }],
        found_by: unit(
            "relay",
            "rate::",
            "who_fails_too_often_waits_and_each_time_twice_as_long",
        ),
    },
    Bug {
        name: "all-are-remembered",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.older = mem::take(&mut self.newer);\n",
            becomes: "            drop(mem::take(&mut self.older));\n",
        }],
        found_by: unit("relay", "rate::", "only_so_many_are_remembered"),
    },
    Bug {
        name: "a-webhook-goes-inside",
        edits: &[Edit {
            file: "crates/relay/src/webhook/target.rs",
            is: "        ([169, 254, 0, 0], 16),   // link-local, most clouds' metadata\n",
            becomes: "",
        }],
        found_by: unit("relay", "webhook::", "no_address_inside_is_public"),
    },
    Bug {
        name: "a-path-shows-its-key",
        edits: &[Edit {
            file: "crates/relay/src/target.rs",
            is: "after_k = segment.eq_ignore_ascii_case(\"k\");",
            becomes: "after_k = segment == \"\";",
        }],
        found_by: unit(
            "relay",
            "target::",
            "a_path_is_shown_without_what_may_be_a_key",
        ),
    },
    Bug {
        name: "a-line-has-no-end",
        edits: &[Edit {
            file: "crates/relay/src/carrier/leases.rs",
            is: "if open.partial.len() + part.len() > limits::LINE_MAX {",
            becomes: "if part.len() > limits::LINE_MAX {",
        }],
        found_by: unit(
            "relay",
            "carrier::",
            "a_line_over_the_limit_breaks_the_protocol_before_it_is_kept",
        ),
    },
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
    Bug {
        name: "a-prompt-in-the-log",
        edits: &[Edit {
            file: "crates/relay/src/submission.rs",
            is: "let (op, bytes) = (job.op, job.body.0.len());",
            becomes: "let (op, bytes) = (job.op, job.body.0.len());
                tracing::info!(body = %String::from_utf8_lossy(&job.body.0));",
        }],
        found_by: Proof::Kills,
    },
    Bug {
        name: "no-room-is-kept-free",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/reserve.rs",
            is: "        if self.is_used() {\n            return false;\n        }\n        tracing::error",
            becomes: "        if self.is_used() || self.bytes > 0 {\n            return false;\n        }\n        tracing::error",
        }],
        found_by: unit(
            "queue-sqlite",
            "tests::disk::",
            "on_a_full_disk_what_runs_ends_and_new_jobs_are_refused_until_there_is_room",
        ),
    },
    Bug {
        name: "anybody-reads",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/sqlite/jobs.rs",
            is: "Ok(job.filter(|job| owner.owns(&job.new.account)))",
            becomes: "Ok(job.filter(|job| owner.owns(&job.new.account) || true))",
        }],
        found_by: unit("queue-sqlite", "tests::", "another_account_sees_nothing"),
    },
    Bug {
        name: "a-head-may-take-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/listen.rs",
            is: "head: relay.settings.head_patience,",
            becomes: "head: relay.settings.head_patience * 1_000,",
        }],
        found_by: through_http(
            "arriving",
            "who_dawdles_over_head_body_or_answer_is_cut_and_others_are_served",
        ),
    },
    Bug {
        name: "no-request-is-shed",
        edits: &[Edit {
            file: "crates/relay/src/concurrency.rs",
            is: "        inside < self.most\n",
            becomes: "        inside < self.most.max(1_000_000)\n",
        }],
        found_by: through_http(
            "overload",
            "when_there_is_too_much_to_do_requests_are_shed_but_health_and_workers_get_through",
        ),
    },
    Bug {
        name: "a-bad-login-breaks-its-handler",
        edits: &[Edit {
            file: "crates/relay/src/api/sessions.rs",
            is: "    ApiError::new(ErrorCode::BadRequest, message)",
            becomes: "    ApiError::new(ErrorCode::Internal, message)",
        }],
        found_by: Proof::Hostile,
    },
    Bug {
        name: "a-token-in-the-url",
        edits: &[Edit {
            file: "crates/relay/src/pipeline.rs",
            is: "NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))",
            becomes: "NAMES.iter().any(|known| name.len() > 99 && name.eq_ignore_ascii_case(known))",
        }],
        found_by: unit("relay", "pipeline::", "a_token_in_the_query_is_found_by_name"),
    },
];
