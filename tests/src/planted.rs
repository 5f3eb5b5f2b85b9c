//! Bugs that are planted into a copy of the relay, one at a time, to see that the test that must
//! find each of them does. Nothing of them is in any program that is shipped.

mod bugs;
mod ground;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use self::{
    bugs::BUGS,
    ground::{Ground, Ran},
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
        /// The one of them that must fail, whichever others do.
        by: &'static str,
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

/// The project's own folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_planted_bug_still_has_its_place() {
        for edit in BUGS.iter().flat_map(|bug| bug.edits) {
            let source = fs::read_to_string(root().join(edit.file)).unwrap();
            let planted = edit.plant(&source).unwrap();
            assert_ne!(planted, source);
        }
    }

    #[test]
    fn every_test_that_must_find_a_bug_is_there() {
        let mut sources = String::new();
        let mut folders = vec![root().join("crates")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|kind| kind == "rs") {
                    sources += &fs::read_to_string(path).unwrap();
                }
            }
        }
        for bug in BUGS {
            if let Proof::Tests { by, .. } = bug.found_by {
                assert!(sources.contains(&format!("fn {by}(")), "{by}");
            }
        }
    }
}
