//! Bugs that are planted into a copy of the relay, one at a time, to see that the test that must
//! find each of them does. Nothing of them is in any program that is shipped.

mod bugs;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

pub use self::bugs::BUGS;

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
