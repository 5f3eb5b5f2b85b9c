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
];

/// The project's own folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Bug {
    /// Builds a relay with this bug and puts it into `folder`, where `copy` is kept for the next.
    ///
    /// # Errors
    /// If the bug has no place any more, or what becomes of it does not compile.
    pub fn build(&self, folder: &Path) -> io::Result<PathBuf> {
        let copy = folder.join("copy");
        take_over(&root(), &copy)?;
        for edit in self.edits {
            let file = copy.join(edit.file);
            let planted = edit.plant(&fs::read_to_string(&file)?)?;
            fs::write(&file, planted)?;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .args([
                "build",
                "--locked",
                "--quiet",
                "-p",
                "hearth-tests",
                "--example",
                "relay",
            ])
            .args(["--message-format", "json-render-diagnostics"])
            // Cargo takes a copy for the checkout itself, and would mix up what is built of them.
            .arg("--target-dir")
            .arg(folder.join("target"))
            .current_dir(&copy);
        if folder
            .parent()
            .is_some_and(|profile| profile.ends_with("release"))
        {
            build.arg("--release");
        }
        let done = build.stderr(std::process::Stdio::inherit()).output()?;
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
