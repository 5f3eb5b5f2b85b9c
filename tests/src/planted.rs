//! Bugs that are planted in a copy of the project, one at a time, to check that a test finds each
//! of them. No shipped program contains them.

mod agent;
mod costs;
mod proof;
mod queue;
mod relay;
mod workspace;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::{
    proof::Proof,
    workspace::{MeasuredFigure, Ran, Workspace},
};

/// All bugs.
pub fn bugs() -> impl Iterator<Item = &'static Bug> {
    let all = [queue::QUEUE, relay::RELAY, agent::AGENT, costs::COSTS];
    all.into_iter().flatten()
}

/// One bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// The resulting misbehaviour.
    pub name: &'static str,
    /// The changes of the source.
    pub edits: &'static [Edit],
    /// The test that finds it.
    pub found_by: Proof,
}

/// A replacement in one source file.
#[derive(Debug, Clone, Copy)]
pub struct Edit {
    /// The file.
    pub file: &'static str,
    /// The text to replace, which occurs once.
    pub is: &'static str,
    /// The replacement.
    pub becomes: &'static str,
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

/// The project's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_planted_bug_still_has_its_place() {
        for edit in bugs().flat_map(|bug| bug.edits) {
            let source = fs::read_to_string(root().join(edit.file)).unwrap();
            let planted = edit.plant(&source).unwrap();
            assert_ne!(planted, source);
        }
    }

    #[test]
    fn every_test_that_must_find_a_bug_is_there() {
        let mut sources = Vec::new();
        let mut folders = vec![root().join("crates"), root().join("benches/src")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    let source = fs::read_to_string(&path).unwrap();
                    sources.push((path.with_extension(""), source));
                }
            }
        }
        let suites = root().join("crates/queue/src/conformance");
        for bug in bugs() {
            let (of, named, by) = match bug.found_by {
                Proof::Tests { of, named, by, .. } => (of, named, by),
                Proof::Figure { named, .. } => {
                    // What it is compared with, and the number of callers, are filled in.
                    let name = named.split(" / ").next().unwrap_or(named);
                    let is_there = sources.iter().any(|(_, source)| source.contains(name));
                    assert!(is_there, "no benchmark has a figure {named}");
                    continue;
                }
                Proof::Kills | Proof::PowerCuts | Proof::Hostile | Proof::Erasure => continue,
            };
            let package = root().join("crates").join(of);
            let is_there = sources.iter().any(|(file, source)| {
                let in_package = file.strip_prefix(&package);
                let module = in_package.map(|file| file.to_string_lossy().replace('/', "::"));
                let is_found = module.is_ok_and(|module| format!("{module}::{by}").contains(named));
                // A macro makes tests of the conformance suites in each store.
                (is_found || file.starts_with(&suites)) && source.contains(&format!("fn {by}("))
            });
            assert!(is_there, "{by} is not in {named} of {of}");
        }
    }
}
