//! Processes of a test: started by it, observed through their output, ended by their own id.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// Timeout of every wait of a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The path of a program of this workspace, in `HEARTH_BIN_DIR` or else in cargo's target folder.
///
/// # Panics
/// If it has not been built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder = std::env::var_os("HEARTH_BIN_DIR").map_or_else(beside_this_test, PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run ./x test",
        path.display()
    );
    path
}

fn beside_this_test() -> PathBuf {
    let this = std::env::current_exe().expect("a test has a path");
    let folder = this.parent().expect("a test lies in a folder");
    let is_test = folder.file_name().is_some_and(|name| name == "deps");
    let above = folder.parent().filter(|_| is_test);
    above.unwrap_or(folder).to_owned()
}

/// The user's own cache, for files that are fetched once per machine.
#[must_use]
pub fn cache() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let named = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    named.or_else(home)
}

/// A home folder for one test, which keeps the user's own untouched.
#[derive(Debug)]
pub struct Home(tempfile::TempDir);

impl Home {
    /// An empty home.
    ///
    /// # Panics
    /// If the temporary folder cannot be created.
    #[must_use]
    #[expect(
        clippy::new_without_default,
        reason = "making a folder is more than a default"
    )]
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder can be made"))
    }

    /// The path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A command with this home, and without the user's relay, key, engine and display.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("HEARTH_")
                || name.starts_with("OLLAMA_")
                || name.ends_with("_proxy")
            {
                command.env_remove(name.as_ref());
            }
        }
        command
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", self.path().join("data"))
            .env("XDG_CONFIG_HOME", self.path().join("config"))
            .env("XDG_STATE_HOME", self.path().join("state"))
            .env(
                "XDG_CACHE_HOME",
                cache().unwrap_or_else(|| self.path().join("cache")),
            )
            .env("LANG", "C.UTF-8")
            .env_remove("DISPLAY")
            .env_remove("WAYLAND_DISPLAY")
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
    }
}

/// A running program with a log of its output lines.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: watch::Receiver<Vec<String>>,
    readers: JoinSet<()>,
}

impl Process {
    /// Starts a program.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let (say, said) = watch::channel(Vec::new());
        let mut readers = JoinSet::new();
        if let Some(out) = child.stdout.take() {
            readers.spawn(collect(out, say.clone()));
        }
        if let Some(out) = child.stderr.take() {
            readers.spawn(collect(out, say));
        }
        Self {
            name: name.to_owned(),
            child,
            said,
            readers,
        }
    }

    /// Waits for a line that contains `part`, and returns what follows it up to the next blank.
    ///
    /// # Panics
    /// If the program ends or [`PATIENCE`] runs out first; the message contains its output.
    pub async fn says(&mut self, part: &str) -> String {
        let found = |lines: &Vec<String>| {
            lines.iter().find_map(|line| {
                let (_, rest) = line.split_once(part)?;
                Some(
                    rest.split_whitespace()
                        .next()
                        .unwrap_or_default()
                        .to_owned(),
                )
            })
        };
        let mut said = self.said.clone();
        let why = match timeout(PATIENCE, said.wait_for(|lines| found(lines).is_some())).await {
            Ok(Ok(lines)) => return found(&lines).unwrap_or_default(),
            Ok(Err(_)) => "ended without saying",
            Err(_) => "never said",
        };
        panic!("{} {why} {part:?}:\n{}", self.name, self.log())
    }

    /// The lines so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.said.borrow().join("\n")
    }

    /// Its process id, while it is running.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Panics
    /// If the system refuses.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    pub async fn terminate(mut self) -> ExitStatus {
        self.ask_to_end();
        self.wait().await
    }

    /// Asks it to stop (SIGTERM).
    ///
    /// # Panics
    /// If the system refuses.
    pub fn ask_to_end(&self) {
        self.signal("TERM");
    }

    /// Sends SIGHUP, as if its terminal were closed.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn hang_up(&self) {
        self.signal("HUP");
    }

    /// Suspends it (SIGSTOP), as a machine that goes to sleep does.
    ///
    /// # Panics
    /// If the system refuses.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Resumes it (SIGCONT).
    ///
    /// # Panics
    /// If the system refuses.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let Some(id) = self.child.id() else { return };
        let sent = std::process::Command::new("kill")
            .args([&format!("-{signal}"), &id.to_string()])
            .status();
        let name = &self.name;
        assert!(
            sent.is_ok_and(|status| status.success()),
            "{name} cannot be sent {signal}"
        );
    }

    /// Waits until it has ended by itself and all of its output is read.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`].
    pub async fn wait(&mut self) -> ExitStatus {
        let Ok(status) = timeout(PATIENCE, self.child.wait()).await else {
            panic!("{} does not end:\n{}", self.name, self.log())
        };
        // The last lines may still be in the pipe.
        let heard = async { while self.readers.join_next().await.is_some() {} };
        let _ = timeout(PATIENCE, heard).await;
        status.expect("a child can be waited for")
    }
}

/// Fails the test if the program panicked: a client would only have seen a closed connection.
impl Drop for Process {
    fn drop(&mut self) {
        let log = self.log();
        let panicked = log.lines().find(|line| line.contains("panicked at"));
        if let Some(line) = panicked.filter(|_| !std::thread::panicking()) {
            panic!("{} panicked: {line}\n{log}", self.name);
        }
    }
}

async fn collect(out: impl AsyncRead + Unpin, say: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(out).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        say.send_modify(|said| said.push(line));
    }
}

/// The results of a finished program.
#[derive(Debug)]
pub struct Finished {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Runs a program to its end.
///
/// # Panics
/// If it cannot be started or does not end within [`PATIENCE`].
pub async fn finish(mut command: Command) -> Finished {
    let done: Result<io::Result<_>, _> = timeout(PATIENCE, command.output()).await;
    let output = done
        .expect("the program ends in time")
        .expect("the program starts");
    Finished {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[should_panic(expected = "the relay panicked: thread 'x' panicked at")]
    async fn a_program_that_panicked_fails_its_test() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo \"thread 'x' panicked at lib.rs:1\" >&2"]);
        Process::start("the relay", command).wait().await;
    }
}
