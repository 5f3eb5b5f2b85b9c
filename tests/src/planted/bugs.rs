//! The bugs, and what must find each of them.

use super::{Bug, Edit, Proof};

const fn unit(of: &'static str, named: &'static str) -> Proof {
    let kind = "--lib";
    Proof::Tests { of, kind, named }
}

const fn through_http(named: &'static str) -> Proof {
    let (of, kind) = ("relay", "--test=it");
    Proof::Tests { of, kind, named }
}

/// All of them.
pub const BUGS: &[Bug] = &[
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
                file: "crates/relay/src/ticket.rs",
                is: "let accepted = self.enqueue(id, caller, order, extras, false).await?;",
                becomes: "let (relay, caller) = (self.clone(), caller.clone());
                    self.tasks.spawn(async move {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        drop(relay.enqueue(id, &caller, order, extras, false).await);
                    });",
            },
            Edit {
                file: "crates/relay/src/ticket.rs",
                is: "Ok((accepted, accepted != id))",
                becomes: "Ok((id, false))",
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
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "anybody-cancels",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: ".filter(|record| owner.owns(&record.job.new.account))\n            .ok_or(QueueError::UnknownJob(id))?;\n        match",
            becomes: ".filter(|record| owner.owns(&record.job.new.account) || true)\n            .ok_or(QueueError::UnknownJob(id))?;\n        match",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "the-queue-has-no-end",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if all.queued >= terms.jobs_max {",
            becomes: "if all.queued > terms.jobs_max.saturating_mul(9) {",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "one-account-takes-all",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if own.jobs >= terms.account_jobs_max {",
            becomes: "if own.jobs > terms.jobs_max {",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "half-an-answer-is-whole",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "if lines > have {",
            becomes: "if lines > have.saturating_add(1_000) {",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "tried-for-ever",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "record.tries >= ATTEMPTS_MAX",
            becomes: "record.tries >= 9 * ATTEMPTS_MAX",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "a-withdrawal-is-forgotten",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "let end = if record.cancelled {",
            becomes: "let end = if record.cancelled && lines > 1_000 {",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "accounts-take-no-turns",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "        self.table.waiting.served(&record.job.new.account);\n",
            becomes: "",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "the-clock-goes-back",
        edits: &[Edit {
            file: "crates/queue/src/machine/mod.rs",
            is: "self.clock = self.clock.max(now);",
            becomes: "self.clock = now;",
        }],
        found_by: unit("queue", "memory::"),
    },
    Bug {
        name: "told-before-the-commit",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/writer.rs",
            is: "        self.conn.prepare_cached(\"COMMIT\")?.execute([])?;\n        Ok(begun.elapsed())",
            becomes: "        Ok(begun.elapsed())",
        }],
        found_by: unit("queue-sqlite", ""),
    },
    Bug {
        name: "erased-and-still-there",
        edits: &[Edit {
            file: "crates/queue-sqlite/src/schema.rs",
            is: "PRAGMA secure_delete = ON;",
            becomes: "PRAGMA secure_delete = OFF;",
        }],
        found_by: unit("queue-sqlite", ""),
    },
    Bug {
        name: "a-token-lives-for-ever",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if now >= claims.exp {",
            becomes: "if now >= claims.exp.saturating_mul(2) {",
        }],
        found_by: unit("relay", "jwt::"),
    },
    Bug {
        name: "any-algorithm",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: ".filter(|_| said == header)",
            becomes: ".filter(|_| !said.is_empty())",
        }],
        found_by: unit("relay", "jwt::"),
    },
    Bug {
        name: "a-refresh-token-opens",
        edits: &[Edit {
            file: "crates/relay/src/jwt.rs",
            is: "if claims.token_type != kind {",
            becomes: "if claims.token_type != kind && claims.iat == 0 {",
        }],
        found_by: unit("relay", "jwt::"),
    },
    Bug {
        name: "a-mistyped-key-is-looked-up",
        edits: &[Edit {
            file: "crates/relay/src/keys.rs",
            is: "(checksum(body) == sum).then_some",
            becomes: "(checksum(body).len() == sum.len()).then_some",
        }],
        found_by: unit("relay", "keys::"),
    },
    Bug {
        name: "a-revoked-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.revoked_at.is_some() {",
            becomes: "if record.revoked_at.is_some_and(|at| at.0 == 0) {",
        }],
        found_by: through_http("doors"),
    },
    Bug {
        name: "an-expired-key-opens",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if record.has_expired(now) {",
            becomes: "if record.has_expired(now) && record.id.is_empty() {",
        }],
        found_by: through_http("ceilings"),
    },
    Bug {
        name: "no-scope-is-asked-for",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if !scopes.contains(&scope) {",
            becomes: "if scopes.is_empty() {",
        }],
        found_by: through_http("matrix"),
    },
    Bug {
        name: "a-key-in-the-path-may-all",
        edits: &[Edit {
            file: "crates/relay/src/auth.rs",
            is: "if place == Place::Header {",
            becomes: "if place == Place::Header && scopes.is_empty() {",
        }],
        found_by: through_http("path_keys"),
    },
    Bug {
        name: "any-header-is-believed",
        edits: &[Edit {
            file: "crates/relay/src/peer.rs",
            is: "if !is_proxy(peer.address) {",
            becomes: "if !is_proxy(peer.address) && headers.is_empty() {",
        }],
        found_by: unit("relay", "peer::"),
    },
    Bug {
        name: "guessing-costs-nothing",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.until = now + wait;\n",
            becomes: "",
        }],
        found_by: unit("relay", "rate::"),
    },
    Bug {
        name: "all-are-remembered",
        edits: &[Edit {
            file: "crates/relay/src/rate.rs",
            is: "            self.old = mem::take(&mut self.young);\n",
            becomes: "            drop(mem::take(&mut self.old));\n",
        }],
        found_by: unit("relay", "rate::"),
    },
    Bug {
        name: "a-webhook-goes-inside",
        edits: &[Edit {
            file: "crates/relay/src/webhook/target.rs",
            is: "        ([169, 254, 0, 0], 16),   // link-local, most clouds' metadata\n",
            becomes: "",
        }],
        found_by: unit("relay", "webhook::"),
    },
    Bug {
        name: "a-path-shows-its-key",
        edits: &[Edit {
            file: "crates/relay/src/target.rs",
            is: "after_k = segment.eq_ignore_ascii_case(\"k\");",
            becomes: "after_k = segment == \"\";",
        }],
        found_by: unit("relay", "target::"),
    },
    Bug {
        name: "a-line-has-no-end",
        edits: &[Edit {
            file: "crates/relay/src/carrier/open.rs",
            is: "if open.partial.len() + part.len() > limits::LINE_MAX {",
            becomes: "if part.len() > limits::LINE_MAX {",
        }],
        found_by: unit("relay", "carrier::"),
    },
    Bug {
        name: "a-sandboxed-page-is-let-in",
        edits: &[Edit {
            file: "crates/status/src/access.rs",
            is: "*origin != \"null\" && *origin != \"*\"",
            becomes: "*origin != \"*\"",
        }],
        found_by: unit("status", "access::"),
    },
    Bug {
        name: "a-refused-program-asks-again",
        edits: &[Edit {
            file: "crates/status/src/approvals.rs",
            is: "if self.refused.iter().any(|(refused, _)| refused == by) {",
            becomes: "if self.refused.len() > 1_000 {",
        }],
        found_by: unit("status", "approvals::"),
    },
    Bug {
        name: "workers-come-back-together",
        edits: &[Edit {
            file: "crates/worker/src/backoff.rs",
            is: "spread.mul_f64(random.clamp(0.0, 1.0))",
            becomes: "spread",
        }],
        found_by: unit("worker", "backoff::"),
    },
    Bug {
        name: "a-broken-engine-is-asked-on",
        edits: &[Edit {
            file: "crates/worker/src/breaker.rs",
            is: "        if self.in_a_row >= Self::IN_A_ROW || often {\n            self.open = true;",
            becomes: "        if self.in_a_row > 9 * Self::IN_A_ROW || often {\n            self.open = true;",
        }],
        found_by: unit("worker", "breaker::"),
    },
];
