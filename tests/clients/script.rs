//! A client's script as a process.
//!
//! It writes one JSON object per line: `{"case":NAME,"ok":true}`,
//! `{"case":NAME,"ok":false,"why":TEXT}`, or a request to the stage, `{"do":NAME,…}`, which is
//! answered on its standard input by `{"ok":VALUE}` or `{"error":TEXT}`.

use std::{path::Path, process::Stdio, time::Duration};

use hearth_tests::process::cache;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

/// The environment of a script, which carries out its requests.
pub(crate) trait Stage {
    /// A command whose environment names the relays.
    fn command(&self, program: &Path) -> Command;

    /// Carries out a request of a script.
    ///
    /// # Errors
    /// The reason of the failure, for the script to fail with.
    async fn act(&self, wish: &Value) -> Result<Value, String>;
}

/// Timeout for all cases of a client, on a busy machine.
const BOUND: Duration = Duration::from_secs(150);

/// Passes the address and key of a relay with a scripted engine to a script.
pub(crate) fn environment(command: &mut Command, url: &str, key: &str) {
    command.env("SCRIPTED_RELAY", url).env("SCRIPTED_KEY", key);
}

/// The interpreter and script of a client.
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

/// The results of a script.
#[derive(Debug)]
pub(crate) struct Report {
    client: Client,
    passed: Vec<String>,
    failed: Vec<(String, String)>,
    /// The script's standard error.
    stderr: String,
    /// The exit status, unless it is 0.
    end: Option<String>,
}

impl Report {
    /// Checks that exactly these cases were run, and that all passed.
    ///
    /// # Panics
    /// With the client's own messages, if not.
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

/// Runs these cases, or all that need not be named.
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
            // If the script has exited meanwhile, its exit status tells why.
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
