//! Bugs that are planted into a copy of the relay, one at a time, to see that the test that must
//! find each of them does. Nothing of them is in any program that is shipped.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// Which proof must find a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Kills of relay and agents.
    Kills,
    /// Power cuts.
    PowerCuts,
    /// Tests of one package whose names begin so, in its library or its folder of tests.
    Tests {
        /// The package, without `hearth-`.
        of: &'static str,
        /// `--lib`, or `--test=it`.
        kind: &'static str,
        /// What their names begin with.
        named: &'static str,
    },
}

const fn unit(of: &'static str, named: &'static str) -> Proof {
    let kind = "--lib";
    Proof::Tests { of, kind, named }
}

const fn through_http(named: &'static str) -> Proof {
    let (of, kind) = ("relay", "--test=it");
    Proof::Tests { of, kind, named }
}

/// One bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// What is wrong then.
    pub name: &'static str,
    /// What is changed for that.
    pub edits: &'static [Edit],
    /// What finds it.
    pub found_by: Proof,
}

/// A text of one source file, and what is put in its place.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// The file.
    pub file: &'static str,
    /// What stands there, once.
    pub is: &'static str,
    /// What shall stand there.
    pub becomes: &'static str,
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

/// The project's own folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Bug {
    /// Plants the bug into the copy of the project in `folder`, which is kept for the next; how
    /// cargo is called there.
    fn plant(&self, folder: &Path) -> io::Result<Command> {
        let copy = folder.join("copy");
        take_over(&root(), &copy)?;
        for edit in self.edits {
            let file = copy.join(edit.file);
            let planted = edit.plant(&fs::read_to_string(&file)?)?;
            fs::write(&file, planted)?;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            // Cargo takes a copy for the checkout itself, and would mix up what is built of them.
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .stderr(std::process::Stdio::inherit())
            .current_dir(&copy);
        Ok(cargo)
    }

    /// Runs these tests on a copy with this bug; the names of those that failed.
    ///
    /// # Errors
    /// If the bug has no place any more, what becomes of it does not compile, or no test is named
    /// so.
    pub fn test(
        &self,
        folder: &Path,
        of: &str,
        kind: &str,
        named: &str,
    ) -> io::Result<Vec<String>> {
        let mut test = self.plant(folder)?;
        let package = format!("hearth-{of}");
        test.args(["test", "--locked", "--quiet", "-p", &package, kind, named])
            .args(["--", "--format=pretty"]);
        let done = test.output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        if !said.contains("test result: ") || said.contains("running 0 tests") {
            return Err(io::Error::other(
                "the copy does not compile, or has no such test",
            ));
        }
        let failed = said.lines().filter_map(|line| {
            let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
            Some(name.to_owned())
        });
        Ok(failed.collect())
    }

    /// Builds a relay with this bug and puts it into `folder`.
    ///
    /// # Errors
    /// If the bug has no place any more, or what becomes of it does not compile.
    pub fn build(&self, folder: &Path) -> io::Result<PathBuf> {
        let mut build = self.plant(folder)?;
        build
            .args(["build", "--locked", "--quiet", "-p", "hearth-tests"])
            .args(["--example", "relay"])
            .args(["--message-format", "json-render-diagnostics"]);
        if folder
            .parent()
            .is_some_and(|profile| profile.ends_with("release"))
        {
            build.arg("--release");
        }
        let done = build.output()?;
        let text = String::from_utf8_lossy(&done.stdout);
        let mut built = text.lines().filter_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        let built = built.next_back().filter(|_| done.status.success());
        let built = built.ok_or_else(|| io::Error::other("the copy does not compile"))?;
        let relay = folder.join(self.name);
        fs::copy(built, &relay)?;
        Ok(relay)
    }
}

impl Edit {
    fn plant(&self, source: &str) -> io::Result<String> {
        let places = source.matches(self.is).count();
        if places == 1 {
            return Ok(source.replacen(self.is, self.becomes, 1));
        }
        let (is, file) = (self.is, self.file);
        let why = format!("a planted bug has {places} places in {file}, not one: {is}");
        Err(io::Error::other(why))
    }
}

/// Makes `copy` equal to the checkout, so that cargo finds changed only what is.
fn take_over(from: &Path, copy: &Path) -> io::Result<()> {
    const LEFT_OUT: &[&str] = &["target", "node_modules"];
    fs::create_dir_all(copy)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, to) = (entry.file_name(), copy.join(entry.file_name()));
        let name = name.to_string_lossy();
        if name.starts_with('.') || LEFT_OUT.contains(&name.as_ref()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            take_over(&entry.path(), &to)?;
        } else {
            let bytes = fs::read(entry.path())?;
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_still_has_its_place() {
        for edit in BUGS.iter().flat_map(|bug| bug.edits) {
            let source = fs::read_to_string(root().join(edit.file)).unwrap();
            let planted = edit.plant(&source).unwrap();
            assert_ne!(planted, source);
        }
    }
}
