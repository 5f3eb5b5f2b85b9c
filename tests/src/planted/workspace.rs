use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    pin::pin,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::Value;
use tokio::{process::Command, time::timeout};

use super::{Edit, root};

/// Timeout of a build, even of everything.
const BUILT_WITHIN: Duration = Duration::from_secs(40 * 60);
/// Timeout of the tests, and of a benchmark. A bug that makes a test hang counts as not found:
/// every wait in a test needs a timeout of its own.
const RUN_WITHIN: Duration = Duration::from_secs(5 * 60);

/// A copy of the project in which bugs are planted, with its build output.
#[derive(Debug)]
pub struct Workspace {
    folder: PathBuf,
}

/// A figure of a benchmark, as `hearth-benches --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MeasuredFigure {
    /// The id and description of the figure.
    pub name: String,
    /// Whether it meets its goal, or misses it by at most a fifth.
    pub is_near: bool,
    /// The line for people.
    pub line: String,
}

/// The results of tests.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Number of tests that passed.
    pub passed: usize,
    /// The names of the tests that failed.
    pub failed: Vec<String>,
}

impl Workspace {
    /// A copy in this folder, which is kept for later runs.
    #[must_use]
    pub const fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn copy(&self) -> PathBuf {
        self.folder.join("copy")
    }

    /// Makes the copy equal to the checkout, except for these edits. What is so already keeps its
    /// time, so that a second bug with the same edits is not built again.
    ///
    /// # Errors
    /// If the text of an edit does not occur exactly once.
    pub fn prepare(&self, edits: &[Edit]) -> io::Result<()> {
        let mut planted: HashMap<PathBuf, String> = HashMap::new();
        for edit in edits {
            let file = root().join(edit.file);
            let source = match planted.get(&file) {
                Some(source) => source.clone(),
                None => fs::read_to_string(&file)?,
            };
            let source = edit.plant(&source)?;
            planted.insert(file, source);
        }
        take_over(&root(), &self.copy(), &planted)
    }

    /// Builds and runs these tests of the copy.
    ///
    /// # Errors
    /// If they do not compile, do not end in time, or do not exist.
    pub async fn tests(&self, of: &str, kind: &str, named: &str) -> io::Result<Ran> {
        let package = format!("hearth-{of}");
        let args = ["test", "--no-run", "-p", &package, kind];
        let mut tests = Command::new(self.build(&args).await?);
        tests
            .args([named, "--color=never"])
            .current_dir(self.copy().join("crates").join(of));
        tests.stderr(Stdio::piped());
        let done = finished(tests, RUN_WITHIN).await?;
        Ran::read(&String::from_utf8_lossy(&done.stdout))
    }

    /// Builds the relay of the copy and saves it under this name.
    ///
    /// # Errors
    /// If it does not compile.
    pub async fn relay(&self, name: &str) -> io::Result<PathBuf> {
        let built = self
            .program(&["hearth-tests", "--example", "relay"])
            .await?;
        let relay = self.folder.join(name);
        fs::copy(built, &relay)?;
        Ok(relay)
    }

    /// Builds the benchmarks of the copy and runs one of them, with this relay if it starts one.
    ///
    /// # Errors
    /// If they do not compile, do not end in time, or break off.
    pub async fn figures(
        &self,
        bench: &str,
        relay: Option<&Path>,
    ) -> io::Result<Vec<MeasuredFigure>> {
        let built = self
            .program(&["hearth-benches", "--bin", "hearth-benches"])
            .await?;
        let mut benches = Command::new(built);
        benches.args([bench, "--json"]);
        if let Some(relay) = relay {
            benches.env("HEARTH_RELAY_BIN", relay);
        }
        benches.env(
            "HEARTH_BIN_DIR",
            crate::process::binary("hearth").with_file_name(""),
        );
        benches.stderr(Stdio::piped());
        let done = finished(benches, RUN_WITHIN).await?;
        let text = String::from_utf8_lossy(&done.stdout);
        let figures: Result<Vec<_>, _> = text.lines().map(serde_json::from_str).collect();
        match figures {
            Ok(figures) if !figures.is_empty() => Ok(figures),
            Ok(_) | Err(_) => {
                let why = String::from_utf8_lossy(&done.stderr);
                Err(io::Error::other(format!("the benchmark broke off: {why}")))
            }
        }
    }

    /// Builds a program of the copy, optimised if this one is.
    async fn program(&self, of: &[&str]) -> io::Result<PathBuf> {
        let mut args = vec!["build", "-p"];
        args.extend(of);
        let profile = self.folder.parent();
        if profile.is_some_and(|profile| profile.ends_with("release")) {
            args.push("--release");
        }
        self.build(&args).await
    }

    /// Runs cargo, and returns the path of the last program it built.
    async fn build(&self, args: &[&str]) -> io::Result<PathBuf> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(cargo);
        cargo
            .args(args)
            .args(["--locked", "--quiet"])
            .args(["--message-format", "json-render-diagnostics"])
            // A separate target folder: cargo would confuse the copy's artifacts with the
            // checkout's.
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .stderr(Stdio::inherit())
            .current_dir(self.copy());
        let done = finished(cargo, BUILT_WITHIN).await?;
        let text = String::from_utf8_lossy(&done.stdout);
        let mut built = text.lines().filter_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            Some(PathBuf::from(message["executable"].as_str()?))
        });
        let built = built.next_back().filter(|_| done.status.success());
        built.ok_or_else(|| io::Error::other("the copy does not compile"))
    }
}

impl Ran {
    /// Parses the output of a test program.
    fn read(printed: &str) -> io::Result<Self> {
        let mut ran = Self::default();
        let mut has_ended = false;
        for line in printed.lines() {
            has_ended |= line.starts_with("test result: ");
            let Some((name, result)) = line
                .strip_prefix("test ")
                .and_then(|line| line.rsplit_once(" ... "))
            else {
                continue;
            };
            match result {
                "ok" => ran.passed += 1,
                "FAILED" => ran.failed.push(name.to_owned()),
                _ => {}
            }
        }
        if !has_ended {
            return Err(io::Error::other("the tests broke off"));
        }
        if ran == Self::default() {
            return Err(io::Error::other("no test has such a name"));
        }
        Ok(ran)
    }
}

/// A process group that is killed on drop: a command with what it started, for example the relay of a
/// benchmark.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It may have ended.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs a command with a timeout. It and what it started are killed after that, or when the call is
/// dropped.
async fn finished(mut command: Command, within: Duration) -> io::Result<Output> {
    let group = command.process_group(0).kill_on_drop(true);
    let child = group.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut ending = pin!(child.wait_with_output());
    // Dropped first, while the leader is not reaped yet.
    let mut group = Group(id.and_then(Pid::from_raw));
    let Ok(ended) = timeout(within, &mut ending).await else {
        let why = format!("did not end within {} s", within.as_secs());
        return Err(io::Error::new(io::ErrorKind::TimedOut, why));
    };
    group.0 = None;
    ended
}

/// Makes `copy` equal to `from`, except for the `planted` files. Unchanged files keep their times, so
/// that cargo rebuilds only what changed.
fn take_over(from: &Path, copy: &Path, planted: &HashMap<PathBuf, String>) -> io::Result<()> {
    const LEFT_OUT: &[&str] = &["target", "node_modules"];
    fs::create_dir_all(copy)?;
    let mut taken: HashSet<OsString> = HashSet::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, to) = (entry.file_name(), copy.join(entry.file_name()));
        let shown = name.to_string_lossy();
        if shown.starts_with('.') || LEFT_OUT.contains(&shown.as_ref()) {
            continue;
        }
        taken.insert(name);
        if entry.file_type()?.is_dir() {
            if !to.is_dir() {
                remove(&to)?;
            }
            take_over(&entry.path(), &to, planted)?;
        } else {
            let bytes = match planted.get(&entry.path()) {
                Some(source) => source.clone().into_bytes(),
                None => fs::read(entry.path())?,
            };
            if to.is_dir() {
                remove(&to)?;
            }
            if fs::read(&to).ok().as_ref() != Some(&bytes) {
                fs::write(&to, bytes)?;
            }
        }
    }
    for entry in fs::read_dir(copy)? {
        let entry = entry?;
        // Files that the checkout removed, or that a test of an earlier bug created.
        if !taken.contains(&entry.file_name()) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)
    } else if path.exists() {
        fs::remove_file(path)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn the_copy_becomes_the_checkout_whatever_was_removed_or_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (from, copy) = (folder.path().join("from"), folder.path().join("copy"));
        let write = |at: &Path, text: &str| {
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            fs::write(at, text).unwrap();
        };
        write(&from.join("kept.rs"), "new");
        write(&from.join("was-a-folder"), "text");
        write(&from.join("was-a-file/in.rs"), "text");
        write(&from.join("target/large"), "left out");
        write(&copy.join("kept.rs"), "planted");
        write(&copy.join("removed.rs"), "text");
        write(&copy.join("removed/in.rs"), "text");
        write(&copy.join("was-a-folder/in.rs"), "text");
        write(&copy.join("was-a-file"), "text");
        write(&copy.join("proptest-regressions/in.txt"), "text");
        take_over(&from, &copy, &HashMap::new()).unwrap();
        let mut names: Vec<_> = fs::read_dir(&copy)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["kept.rs", "was-a-file", "was-a-folder"]);
        for (file, text) in [
            ("kept.rs", "new"),
            ("was-a-folder", "text"),
            ("was-a-file/in.rs", "text"),
        ] {
            assert_eq!(fs::read_to_string(copy.join(file)).unwrap(), text);
        }
    }

    #[test]
    fn a_bug_is_planted_once_and_removed_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (from, copy) = (folder.path().join("from"), folder.path().join("copy"));
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join("a.rs"), "sound").unwrap();
        let bug = HashMap::from([(from.join("a.rs"), "planted".to_owned())]);
        let file = copy.join("a.rs");
        take_over(&from, &copy, &bug).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "planted");
        // Far enough back that writing it again would show.
        let before = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        fs::File::options()
            .append(true)
            .open(&file)
            .and_then(|open| open.set_modified(before))
            .unwrap();
        take_over(&from, &copy, &bug).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
        take_over(&from, &copy, &HashMap::new()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "sound");
    }

    #[test]
    fn tests_that_break_off_or_are_not_there_are_no_result() {
        let printed = "running 3 tests\n\
            test a::one ... ok\n\
            test a::two ... FAILED\n\
            test a::three - should panic ... ignored\n\n\
            test result: FAILED. 1 passed; 1 failed; 1 ignored\n";
        let ran = Ran {
            passed: 1,
            failed: vec!["a::two".into()],
        };
        assert_eq!(Ran::read(printed).unwrap(), ran);
        let (broken_off, _) = printed.split_once("test result").unwrap();
        assert!(Ran::read(broken_off).is_err());
        assert!(Ran::read("running 0 tests\n\ntest result: ok. 0 passed\n").is_err());
    }

    #[tokio::test]
    async fn what_does_not_end_is_ended_with_all_that_it_started() {
        let (mut shell, (reader, writer)) = (Command::new("sh"), io::pipe().unwrap());
        shell.args(["-c", "sleep 60 & wait"]).stderr(writer);
        let ended = finished(shell, Duration::from_millis(50)).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // Ends once nobody can write to it any more.
        let read = tokio::task::spawn_blocking(|| io::read_to_string(reader));
        let said = timeout(Duration::from_secs(10), read).await;
        assert_eq!(said.unwrap().unwrap().unwrap(), "");
    }
}
