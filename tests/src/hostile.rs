//! Requests that mean no good: what schemathesis makes of the relay's own OpenAPI document, and
//! requests written byte by byte. The relay may refuse them in any way but by breaking.

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
    task::JoinSet,
    time::timeout,
};

use crate::{
    chance::Chance,
    process::{Home, cache},
    proxy::Proxy,
    scripted_ollama::ScriptedOllama,
};

/// What came of an assault.
#[derive(Debug, Default)]
pub struct Assault {
    /// How many requests were sent.
    pub requests: usize,
    /// Each way in which the relay broke, or went against its own document.
    pub broken: Vec<String>,
    /// What refusals said: nothing secret may be in it.
    pub said: Vec<String>,
}

impl Assault {
    /// Takes in another.
    pub fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.broken.extend(other.broken);
        self.said.extend(other.said);
    }
}

impl fmt::Display for Assault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken = self.broken.len();
        write!(f, "{} hostile requests, {broken} findings", self.requests)?;
        for finding in self.broken.iter().take(10) {
            write!(f, "\n  {finding}")?;
        }
        Ok(())
    }
}

/// Where schemathesis is installed.
///
/// # Errors
/// If it is not installed as pinned.
fn schemathesis() -> io::Result<(PathBuf, PathBuf)> {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/hostile");
    let installed = cache().unwrap_or_default().join("hearth/clients/hostile");
    let read = |folder: &Path| std::fs::read(folder.join("requirements.txt")).ok();
    if read(&installed) == read(&pins) {
        return Ok((pins, installed));
    }
    Err(io::Error::other(
        "schemathesis is not installed as pinned: run scripts/fetch-clients.sh",
    ))
}

/// Has schemathesis send about so many requests to each operation of the relay's document, with
/// this key or none. Polls are left out: they are held, as they must be.
///
/// # Errors
/// If schemathesis is not installed as pinned or does not end in time.
pub async fn by_the_document(
    relay: SocketAddr,
    key: Option<&str>,
    examples: u32,
    seed: u64,
    patience: Duration,
) -> io::Result<Assault> {
    let (pins, installed) = schemathesis()?;
    let counted = Proxy::start(relay, Duration::ZERO).await?;
    let url = format!("http://{}/openapi.json", counted.address());
    let home = Home::new();
    let mut command: Command = home.command(installed.join("bin/python3"));
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(pins.join("schemathesis.toml"))
        .args(["run", &url, "--no-color", "--phases", "fuzzing"])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args([
            "--checks",
            "content_type_conformance,response_schema_conformance",
        ])
        .args([
            "--exclude-path-regex",
            // They wait, or never end.
            "(poll|admin/events)$",
            "--no-shrink",
            "--continue-on-failure",
        ])
        .args(["--generation-database", "none", "--warnings", "off"])
        .args(["--suppress-health-check", "all", "--request-timeout", "60"])
        .args([
            "--max-examples",
            &examples.to_string(),
            "--seed",
            &seed.to_string(),
        ])
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &pins)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(home.path());
    if let Some(key) = key {
        command.args(["--header", &format!("Authorization: Bearer {key}")]);
    }
    let done = timeout(patience, command.output())
        .await
        .map_err(|_| io::Error::other(format!("schemathesis was not through in {patience:?}")))??;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let mut assault = Assault {
        requests: counted.requests(),
        ..Assault::default()
    };
    if !done.status.success() {
        let from = said
            .find("= ERRORS =")
            .or_else(|| said.find("= FAILURES ="));
        let report = said[from.unwrap_or(0)..].to_owned();
        let errors = String::from_utf8_lossy(&done.stderr);
        assault.broken.push(format!("{report}{errors}"));
    }
    Ok(assault)
}

/// The paths of a relay's document, each with its methods.
///
/// # Errors
/// If it cannot be read.
pub async fn operations(
    http: &reqwest::Client,
    relay: SocketAddr,
) -> io::Result<Vec<(String, String)>> {
    let url = format!("http://{relay}/openapi.json");
    let answer = http.get(url).send().await.map_err(io::Error::other)?;
    let document: Value = answer.json().await.map_err(io::Error::other)?;
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    let each = paths.into_iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().cloned().unwrap_or_default();
        methods
            .into_iter()
            .map(move |(method, _)| (method.to_uppercase(), path.clone()))
    });
    // These wait for work, or never end, as they must.
    let never_ends = |path: &str| path.ends_with("/poll") || path.ends_with("/admin/events");
    Ok(each.filter(|(_, path)| !never_ends(path)).collect())
}

/// All that a worker ever asks of an engine: that it answers, and what it is and has.
const OF_USE: [&str; 7] = [
    "/api/chat",
    "/api/generate",
    "/api/embed",
    "/api/tags",
    "/api/ps",
    "/api/show",
    "/api/version",
];

/// What an engine was asked for beside that.
#[must_use]
pub fn paths_beyond_use(ollama: &ScriptedOllama) -> Vec<String> {
    let asked = ollama.requests().into_iter().map(|request| request.path);
    asked
        .filter(|path| !OF_USE.contains(&path.as_str()))
        .collect()
}

/// How long one request may take.
const ONE: Duration = Duration::from_secs(30);
/// How many are under way at once.
const AT_ONCE: usize = 24;

/// Sends so many requests that are wrong in some way or another, with one of these keys or none.
pub async fn by_hand(
    relay: SocketAddr,
    keys: &[String],
    operations: &[(String, String)],
    count: usize,
    seed: u64,
) -> Assault {
    let mut chance = Chance::new(seed);
    let mut assault = Assault::default();
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        if tasks.len() >= AT_ONCE {
            assault.take(tasks.join_next().await);
        }
        let request = request(&mut chance, keys, operations);
        tasks.spawn(async move {
            let answer = timeout(ONE, send(relay, &request)).await;
            (request, answer.ok())
        });
    }
    while let Some(answered) = tasks.join_next().await {
        assault.take(Some(answered));
    }
    assault
}

type Answered = Result<(Vec<u8>, Option<Vec<u8>>), tokio::task::JoinError>;

impl Assault {
    fn take(&mut self, answered: Option<Answered>) {
        let Some(Ok((request, answer))) = answered else {
            return;
        };
        self.requests += 1;
        let told = || String::from_utf8_lossy(&request[..request.len().min(600)]).into_owned();
        let Some(answer) = answer else {
            self.broken
                .push(format!("no end within {ONE:?}: {}", told()));
            return;
        };
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Err(why) = judge(&text) {
            let answer: String = text.chars().take(600).collect();
            self.broken
                .push(format!("{why}: {answer}\n  for {}", told()));
        }
        if text.starts_with("HTTP/1.1 4") && self.said.len() < 20_000 {
            self.said.push(text);
        }
    }
}

/// What is wrong with an answer. None at all is one too: the connection was closed.
fn judge(answer: &str) -> Result<(), &'static str> {
    if answer.is_empty() {
        return Ok(());
    }
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("half a head")?;
    let status = head.strip_prefix("HTTP/1.1 ").ok_or("not HTTP")?;
    let status: u16 = status
        .get(..3)
        .and_then(|code| code.parse().ok())
        .ok_or("no status")?;
    let head = head.to_lowercase();
    let is_told = head.contains("\r\nx-hearth-error:");
    let is_late = status == 504 && head.contains("\r\nx-hearth-error: deadline_exceeded");
    if !(100..500).contains(&status) && status != 503 && !is_late {
        return Err("the relay broke");
    }
    if status >= 400 && !body.is_empty() && !is_told && head.contains("application/json") {
        return Err("a refusal without its code");
    }
    if status >= 400 && is_told && !head.contains("transfer-encoding") {
        serde_json::from_str::<Value>(body).map_err(|_| "a refusal that is no JSON")?;
    }
    Ok(())
}

async fn send(relay: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let Ok(mut socket) = TcpStream::connect(relay).await else {
        return b"no connection".to_vec();
    };
    // It may have been refused before it was read to its end.
    drop(socket.write_all(request).await);
    drop(socket.shutdown().await);
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = socket.read(&mut piece).await {
        answer.extend_from_slice(&piece[..length]);
        if answer.len() > 1 << 20 {
            break;
        }
    }
    answer
}

const IDS: &[&str] = &[
    "00000000000000000000000000000000",
    "ffffffffffffffffffffffffffffffff",
    "1",
    "-1",
    "18446744073709551616",
    "0x7f",
    "%00",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..;",
    "%ff%fe",
    "%E2%80%AE",
    "a%20b",
    "'%20OR%201=1--",
    "%zz",
    "null",
    "file-",
    "batch_",
];
const QUERIES: &[&str] = &[
    "",
    "",
    "?",
    "?after=1-1&after=2-2",
    "?limit=-1",
    "?limit=99999999999999999999",
    "?wait=1e9",
    "?first=0",
    "?first=18446744073709551615",
    "?after=%00",
    "?state=queued%27",
    "?page=0",
    "?token=abc",
    "?since=9223372036854775807&until=-9223372036854775808",
    "?=&&&=%",
];
const HEADERS: &[&str] = &[
    "",
    "",
    "Content-Type: application/json\r\n",
    "Content-Type: text/plain; charset=utf-16\r\n",
    "Content-Type: multipart/form-data\r\n",
    "Content-Type: multipart/form-data; boundary=\"\"\r\n",
    "Content-Encoding: gzip\r\n",
    "Expect: 100-continue\r\n",
    "Idempotency-Key: \r\n",
    "X-Hearth-Deadline-Ms: 18446744073709551616\r\n",
    "X-Hearth-Deadline-Ms: -1\r\n",
    "X-Hearth-Worker: \u{1}\r\n",
    "Last-Event-ID: 99999999999-0\r\n",
    "Last-Event-ID: nonsense\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\n",
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: !\r\n",
    "Origin: null\r\n",
    "Cookie: a=b\r\n obs: fold\r\n",
    "Accept: \u{0}\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "X: y\r\n X\r\n",
];
const BODIES: &[&str] = &[
    "",
    "{",
    "null",
    "[]",
    "\"\"",
    "0",
    "{}",
    "{\"model\":null}",
    "{\"model\":\"tiny\"}",
    "{\"model\":\"tiny\",\"messages\":{}}",
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
    "{\"model\":\"tiny\",\"messages\":[{\"role\":\"tool\"}],\"tools\":[{}],\"stop\":[[]]}",
    "{\"model\":\"tiny\",\"messages\":[],\"max_tokens\":-1,\"temperature\":1e999}",
    "{\"model\":\"tiny\",\"input\":[{\"type\":\"function_call_output\"}]}",
    "{\"model\":\"tiny\",\"prompt\":[[1,2],[3]],\"n\":99999999999}",
    "{\"model\":\"../../etc/passwd\",\"prompt\":\"x\"}",
    "{\"model\":\"a\",\"model\":\"b\",\"stream\":\"yes\"}",
    "{\"op\":\"chat\",\"body\":[]}",
    "{\"op\":\"chat\",\"body\":{\"model\":\"tiny\"},\"deadline_ms\":1e30}",
    "{\"op\":\"dance\",\"body\":{}}",
    "{\"op\":\"chat\",\"body\":{},\"webhook\":{\"url\":\"http://127.0.0.1\"}}",
    "{\"op\":\"chat\",\"body\":{},\"priority\":0}",
    "{\"worker\":\"\",\"details\":[{}]}",
    "{\"lines\":-1,\"end\":{\"state\":\"queued\"}}",
    "{\"lines\":1,\"end\":{\"state\":\"failed\"}}",
    "{\"retry\":{\"after_ms\":18446744073709551615},\"code\":\"x\",\"message\":\"\"}",
    "{\"username\":\"\\u0000\",\"password\":{}}",
    "{\"refresh\":\"a.b.c\"}",
    "{\"id\":\"\",\"response\":null,\"error\":[]}",
    "{\"status\":\"done\",\"result\":0}",
    "{\"input_file_id\":\"file-0\",\"endpoint\":\"/\",\"completion_window\":\"\"}",
    "--\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n\r\n----\r\n",
    "\u{feff}{}",
    "NaN",
];

fn request(chance: &mut Chance, keys: &[String], operations: &[(String, String)]) -> Vec<u8> {
    let at = usize::try_from(chance.below(operations.len() as u64)).unwrap_or_default();
    let (method, path) = &operations[at];
    let mut target = String::new();
    for part in path.split_inclusive('}') {
        match part.split_once('{') {
            Some((before, _)) => target += &format!("{before}{}", chance.one(IDS)),
            None => target += part,
        }
    }
    target += chance.one(QUERIES);
    let others = ["GET", "PUT", "TRACE", "OPTIONS", "get", "\u{1}", "CONNECT"];
    let method = match chance.below(10) {
        0 => chance.one(&others),
        _ => method.as_str(),
    };
    let key = match chance.below(8) {
        0 => String::new(),
        1 => "Authorization: Bearer hearth_x_y\r\n".into(),
        2 => "Authorization: Basic Og==\r\n".into(),
        _ => {
            let at = usize::try_from(chance.below(keys.len() as u64)).unwrap_or_default();
            format!("Authorization: Bearer {}\r\n", keys[at])
        }
    };
    let mut body = chance.one(BODIES).as_bytes().to_vec();
    match chance.below(12) {
        0 => body = "[".repeat(100_000).into_bytes(),
        1 => body.extend_from_slice(&[0xff, 0xfe, 0x00]),
        2 => body.truncate(body.len() / 2),
        _ => {}
    }
    let length = match chance.below(10) {
        0 => "Content-Length: 999999999999\r\n".into(),
        1 => "Content-Length: -1\r\n".into(),
        2 => format!("Content-Length: {}\r\nContent-Length: 1\r\n", body.len()),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n{key}{length}{}\r\n",
        chance.one(HEADERS)
    );
    [head.into_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_500_and_a_refusal_without_a_code_are_findings() {
        let json = "content-type: application/json\r\ncontent-length: 2";
        assert!(judge("HTTP/1.1 500 Oh\r\n\r\n").is_err());
        assert!(judge("HTTP/1.1 502 Oh\r\n\r\n").is_err());
        assert!(judge("HTTP/1.1 504 Oh\r\n\r\n").is_err());
        let late = "HTTP/1.1 504 Late\r\nx-hearth-error: deadline_exceeded\r\n\r\n{}";
        assert!(judge(late).is_ok());
        assert!(judge(&format!("HTTP/1.1 400 Bad\r\n{json}\r\n\r\n{{}}")).is_err());
        assert!(
            judge(&format!(
                "HTTP/1.1 400 Bad\r\nx-hearth-error: x\r\n{json}\r\n\r\n{{"
            ))
            .is_err()
        );
        assert!(judge("gibberish").is_err());
        assert!(
            judge(&format!(
                "HTTP/1.1 400 Bad\r\nx-hearth-error: x\r\n{json}\r\n\r\n{{}}"
            ))
            .is_ok()
        );
        assert!(judge("HTTP/1.1 503 Busy\r\n\r\n").is_ok());
        assert!(judge("").is_ok(), "closed without a word");
    }
}
