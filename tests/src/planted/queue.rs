//! Bugs of the queue and its log.

use super::{
    Bug, Edit, Proof,
    proof::{OPERATIONS, unit},
};

/// All of them.
pub(super) const QUEUE: &[Bug] = &[
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
                is: "let job = job.ok_or(QueueError::Erased(id))?;",
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
            file: "crates/queue/src/machine/room.rs",
            is: "if all.queued >= limits.jobs_max {",
            becomes: "if all.queued > limits.jobs_max.saturating_mul(9) {",
        }],
        found_by: unit("queue", "memory::", "the_queue_as_a_whole_has_bounds"),
    },
    Bug {
        name: "one-account-takes-all",
        edits: &[Edit {
            file: "crates/queue/src/machine/room.rs",
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
        name: "what-is-erased-stays-in-the-files",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/schema.rs",
            is: "PRAGMA secure_delete = ON;",
            becomes: "PRAGMA secure_delete = OFF;",
        }],
        found_by: Proof::Erasure,
    },
    Bug {
        name: "waiting-makes-nothing-more-urgent",
        edits: &[Edit {
            file: "crates/queue/src/machine/waiting.rs",
            is: "filter(|(at, _)| *at <= now)",
            becomes: "filter(|(at, _)| *at <= now && at.0 == 0)",
        }],
        found_by: unit("queue", "memory::", "waiting_makes_a_job_more_urgent"),
    },
    Bug {
        name: "a-stolen-token-keeps-its-session",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/sessions.rs",
            is: "                conn.execute(\"DELETE FROM sessions WHERE id = ?1\", [id.0])?;
                return Ok(Renewed::Reused);",
            becomes: "                return Ok(Renewed::Reused);",
        }],
        found_by: unit(
            "queue-sqlite",
            "tests::",
            "a_token_that_was_shown_before_ends_the_session",
        ),
    },
    Bug {
        name: "a-copied-token-key-stays",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/users.rs",
            is: "ON CONFLICT DO UPDATE SET value = excluded.value",
            becomes: "ON CONFLICT DO NOTHING",
        }],
        found_by: unit(
            "queue-sqlite",
            "tests::",
            "logging_all_out_replaces_the_token_key_and_ends_every_session",
        ),
    },
];
