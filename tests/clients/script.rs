//! One client's script as a process: it tells what it finds, and asks the stage for what it needs.
//!
//! It writes one JSON object a line: `{"case":NAME,"ok":true}`, `{"case":NAME,"ok":false,"why":TEXT}`,
//! or a wish, `{"do":NAME,…}`, which is answered on its standard input by `{"ok":VALUE}` or
//! `{"error":TEXT}`.

use std::{path::Path, process::Stdio, time::Duration};

use hearth_tests::process::cache;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

/// Where a script plays, and who does what it wishes.
pub(crate) trait Stage {
    /// A program that knows where the relays are.
    fn command(&self, program: &Path) -> Command;

    /// Does what a script wishes.
    ///
    /// # Errors
    /// Why it cannot be done, for the script to fail with.
    async fn act(&self, wish: &Value) -> Result<Value, String>;
}

/// How long a client may take for all its cases on a machine that is busy with other things.
const BOUND: Duration = Duration::from_secs(150);

/// Tells a script where a relay with a scripted engine is.
pub(crate) fn environment(command: &mut Command, url: &str, key: &str) {
    command.env("SCRIPTED_RELAY", url).env("SCRIPTED_KEY", key);
}

/// Which program runs which script.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    script: &'static str,
    language: Language,
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Python,
    Node,
}

impl Client {
    pub(crate) const fn python(script: &'static str) -> Self {
        let language = Language::Python;
        Self { script, language }
    }

    pub(crate) const fn node(script: &'static str) -> Self {
        let language = Language::Node;
        Self { script, language }
    }

    fn command(self, stage: &impl Stage) -> Command {
        let (folder, lock) = match self.language {
            Language::Python => ("python", "requirements.txt"),
            Language::Node => ("node", "package-lock.json"),
        };
        let pins = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("clients")
            .join(folder);
        let installed = cache().unwrap().join("hearth/clients").join(folder);
        let read = |folder: &Path| std::fs::read(folder.join(lock)).ok();
        assert_eq!(
            read(&installed),
            read(&pins),
            "the clients are not installed as pinned: run scripts/fetch-clients.sh"
        );
        let program = match self.language {
            Language::Python => installed.join("bin/python3"),
            Language::Node => "node".into(),
        };
        let mut command = stage.command(&program);
        command
            .arg(pins.join(self.script))
            .env("NODE_PATH", installed.join("node_modules"))
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// What a script found.
#[derive(Debug)]
pub(crate) struct Report {
    client: Client,
    passed: Vec<String>,
    failed: Vec<(String, String)>,
    /// What it wrote beside its report.
    stderr: String,
    /// How it ended, if not well.
    end: Option<String>,
}

impl Report {
    /// Every case that is wanted was tried and passed, and there was no other.
    ///
    /// # Panics
    /// With the client's own words, if not.
    pub(crate) fn check(&self, wanted: &[&str]) {
        let mut wrong: Vec<String> = self
            .failed
            .iter()
            .map(|(case, why)| format!("{case}: {why}"))
            .collect();
        let tried = |name: &str| {
            self.passed.iter().any(|case| case == name)
                || self.failed.iter().any(|(case, _)| case == name)
        };
        wrong.extend(
            wanted
                .iter()
                .filter(|case| !tried(case))
                .map(|case| format!("{case}: was not tried")),
        );
        let unknown = self
            .passed
            .iter()
            .filter(|case| !wanted.contains(&case.as_str()));
        wrong.extend(unknown.map(|case| format!("{case}: is not on the list")));
        wrong.extend(self.end.iter().map(|end| format!("{end}\n{}", self.stderr)));
        assert!(
            wrong.is_empty(),
            "{}:\n{}",
            self.client.script,
            wrong.join("\n")
        );
    }
}

/// Runs these cases, or all that do not want to be named.
pub(crate) async fn run(client: Client, cases: &[&str], stage: &impl Stage) -> Report {
    let mut command = client.command(stage);
    command.args(cases);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!("{} does not start: {error}", client.script);
    });
    let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut errors = child.stderr.take().unwrap();
    let mut reader = JoinSet::new();
    reader.spawn(async move {
        let mut text = String::new();
        errors.read_to_string(&mut text).await.ok();
        text
    });
    let mut report = Report {
        client,
        passed: Vec::new(),
        failed: Vec::new(),
        stderr: String::new(),
        end: None,
    };
    if timeout(BOUND, talk(&mut report, stdin, stdout, stage))
        .await
        .is_err()
    {
        report.end = Some(format!("was not through after {BOUND:?}"));
        child.kill().await.unwrap();
    } else {
        report.end = ended(&mut child).await;
    }
    report.stderr = reader.join_next().await.unwrap().unwrap();
    report
}

async fn talk(report: &mut Report, mut stdin: ChildStdin, stdout: ChildStdout, stage: &impl Stage) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("{} wrote what is no report: {line}", report.client.script);
        });
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        if said.get("do").is_some() {
            let answer = match stage.act(&said).await {
                Ok(value) => json!({ "ok": value }),
                Err(error) => json!({ "error": error }),
            };
            // A script that went away meanwhile says why by how it ended.
            stdin.write_all(format!("{answer}\n").as_bytes()).await.ok();
        } else if said["ok"] == true {
            report.passed.push(text("case"));
        } else {
            report.failed.push((text("case"), text("why")));
        }
    }
}

async fn ended(child: &mut Child) -> Option<String> {
    let status = child.wait().await.unwrap();
    (!status.success()).then(|| format!("ended with {status}"))
}
