//! Other durable queues that Hearth's is compared with, where installed. Each runs in its own
//! folder, listens on a socket there, and ends with the measurement.

use std::{
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Output,
    time::Instant,
};

use anyhow::Context as _;
use hearth_tests::process::Process;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    process::Command,
    task::JoinSet,
};

use crate::cycle::{SLICE, per_second};

/// Redis with an append-only file that is synced before each answer.
pub(crate) struct Redis {
    process: Process,
    folder: TempDir,
}

impl Redis {
    /// Starts it; `None` if it is not installed.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        let Some(program) = find("redis-server", &[]) else {
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(program);
        command
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--unixsocket", "redis.sock"])
            .current_dir(folder.path())
            .kill_on_drop(true);
        let mut process = Process::start("Redis", command);
        process.says("eady to accept connections").await;
        Ok(Some(Self { process, folder }))
    }

    /// Cycles per second, with one list of waiting and one of running jobs, and one of answers for
    /// each caller.
    pub(crate) async fn slice(&self, callers: usize) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for n in 0..callers {
            let socket = self.folder.path().join("redis.sock");
            tasks.spawn(async move {
                let mut line = Line(BufReader::new(UnixStream::connect(socket).await?));
                let mut count = 0;
                while begun.elapsed() < SLICE {
                    let body = format!("{n} {count} {}", "x".repeat(200));
                    line.ask(&["LPUSH", "waiting", &body]).await?;
                    let claim = ["LMOVE", "waiting", "running", "RIGHT", "LEFT"];
                    let claimed = line.ask(&claim).await?.context("a job waits")?;
                    let answers = format!("answers {n}");
                    line.ask(&["RPUSH", &answers, r#"{"done":true}"#]).await?;
                    line.ask(&["LREM", "running", "1", &claimed]).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            });
        }
        let mut count = 0;
        while let Some(done) = tasks.join_next().await {
            count += done??;
        }
        Ok(per_second(count, begun))
    }

    pub(crate) async fn end(self) {
        self.process.terminate().await;
    }
}

/// A connection to Redis, by <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
struct Line(BufReader<UnixStream>);

impl Line {
    /// Sends a command, and returns the text of the reply.
    async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Option<String>> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.write_all(text.as_bytes()).await?;
        let mut head = String::new();
        self.0.read_line(&mut head).await?;
        let head = head.trim_end();
        anyhow::ensure!(head.starts_with([':', '$', '+']), "Redis said {head:?}");
        let Some(length) = head.strip_prefix('$') else {
            return Ok(None);
        };
        let Ok(length) = length.parse::<usize>() else {
            return Ok(None);
        };
        let mut body = vec![0; length + 2];
        self.0.read_exact(&mut body).await?;
        body.truncate(length);
        Ok(Some(String::from_utf8(body)?))
    }
}

/// `PostgreSQL`, with one transaction per step, driven by its own `pgbench`.
pub(crate) struct Postgres {
    process: Process,
    folder: TempDir,
    pgbench: PathBuf,
}

/// The usual queue in `PostgreSQL`. A claim that finds no job, because all were taken meanwhile,
/// counts too.
const SCRIPT: &str = "\
\\set seq 0
INSERT INTO jobs (state, body) VALUES (0, repeat('x', 200));
UPDATE jobs SET state = 1 WHERE seq = (SELECT seq FROM jobs WHERE state = 0 ORDER BY seq LIMIT 1 \
FOR UPDATE SKIP LOCKED) RETURNING seq \\aset
UPDATE jobs SET state = 2, line = 'done' WHERE seq = :seq;
";
const TABLE: &str = "CREATE TABLE jobs (seq BIGSERIAL PRIMARY KEY, state SMALLINT NOT NULL, \
    body TEXT NOT NULL, line TEXT); CREATE INDEX waiting ON jobs (seq) WHERE state = 0;";

impl Postgres {
    /// Starts it; `None` if it is not installed.
    ///
    /// # Errors
    /// If it is installed and does not start.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        let folders = versions(Path::new("/usr/lib/postgresql"));
        let find = |name| find(name, &folders);
        let (Some(initdb), Some(server)) = (find("initdb"), find("postgres")) else {
            return Ok(None);
        };
        let (Some(pgbench), Some(psql)) = (find("pgbench"), find("psql")) else {
            return Ok(None);
        };
        let Some(folder) = owned()? else {
            return Ok(None);
        };
        let data = folder.path().join("data");
        let mut init = as_nobody(&initdb, folder.path())?;
        init.arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "bench"]);
        done(init.output().await?)?;
        let mut start = as_nobody(&server, folder.path())?;
        start.arg("-D").arg(&data).arg("-k").arg(folder.path());
        start.args(["-c", "listen_addresses=", "-c", "max_connections=100"]);
        let mut process = Process::start("PostgreSQL", start);
        process.says("ready to accept connections").await;
        let mut table = Command::new(psql);
        table.arg("-h").arg(folder.path());
        table.args(["-U", "bench", "-d", "postgres", "-c", TABLE]);
        done(table.output().await?)?;
        tokio::fs::write(folder.path().join("cycle.sql"), SCRIPT).await?;
        Ok(Some(Self {
            process,
            folder,
            pgbench,
        }))
    }

    /// Cycles per second, without the time for connecting.
    pub(crate) async fn slice(&self, callers: usize) -> anyhow::Result<f64> {
        let mut bench = Command::new(&self.pgbench);
        bench.arg("-h").arg(self.folder.path());
        bench.args(["-U", "bench", "-n", "-j", "2", "-M", "prepared"]);
        bench.args(["-c", &callers.to_string()]);
        bench.args(["-T", &SLICE.as_secs().to_string()]);
        bench.arg("-f").arg(self.folder.path().join("cycle.sql"));
        bench.arg("postgres");
        let said = done(bench.output().await?)?;
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = "));
        let rate = rate.and_then(|rate| rate.split_whitespace().next());
        Ok(rate.context("pgbench says how fast it was")?.parse()?)
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        // The callers need not end first.
        self.process.terminate().await;
        self.folder.close()?;
        Ok(())
    }
}

/// A folder owned by the user as whom `PostgreSQL` runs, which refuses to run as root; `None` if
/// there is no such user.
fn owned() -> io::Result<Option<TempDir>> {
    let folder = tempfile::tempdir()?;
    if folder.path().metadata()?.uid() != 0 {
        return Ok(Some(folder));
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let mut fields = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let Some(user) = fields.find(|user| user.first() == Some(&"postgres")) else {
        return Ok(None);
    };
    let id = |n: usize| user.get(n).and_then(|id| id.parse().ok());
    chown(folder.path(), id(2), id(3))?;
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    Ok(Some(folder))
}

/// A command that runs as the owner of the folder.
fn as_nobody(program: &Path, folder: &Path) -> io::Result<Command> {
    let owner = folder.metadata()?;
    let mut command = Command::new(program);
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir(folder).kill_on_drop(true);
    Ok(command)
}

fn done(output: Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let first: String = said.lines().take(3).collect();
    anyhow::ensure!(output.status.success(), "{first}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The installed versions, newest first.
fn versions(root: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<_> = found.map(|version| version.path().join("bin")).collect();
    found.sort();
    found.reverse();
    found
}

/// The path of a program in these folders, or else in `PATH`.
fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().cloned().chain(std::env::split_paths(&path));
    let mut programs = folders.map(|folder| folder.join(name));
    programs.find(|program| program.is_file())
}
