//! `hearth ask`: sends one question to a relay and streams the answer.

mod submission;

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::StreamExt as _;
use proto::{End, ErrorCode, JobError, JobId, Priority};
use serde_json::{Value, json};
use status::{is_printable, strip_control_chars};
use tokio::time::{Instant, sleep, timeout};

use self::submission::Submission;
use crate::{
    credentials::{Client, Credentials, refusal},
    key::priority,
    sse,
    stop::Signals,
};

/// `hearth ask [--relay URL --key KEY --model M] "text"`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: Credentials,
    /// The model; by default the relay's first.
    #[arg(long, short, env = "HEARTH_ASK_MODEL", value_name = "NAME")]
    model: Option<String>,
    /// A system message before the question.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The priority: 1 is the highest, 10 the lowest; 5 by default.
    #[arg(long, value_name = "N", value_parser = priority)]
    priority: Option<Priority>,
    /// Give up after this many seconds; the job waits that long for an agent to come online.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
    /// The question; read from standard input when it is `-` or absent.
    #[arg(value_name = "TEXT")]
    text: Option<String>,
}

/// Maximum number of reconnects without a new event before the relay counts as unreachable.
const REOPENINGS: u32 = 20;
/// Timeout of cancelling a job.
const WITHDRAWAL: Duration = Duration::from_secs(5);
/// Silence after which a stream counts as broken; longer than the relay's heartbeat interval.
const SILENCE: Duration = Duration::from_secs(60);

impl Args {
    /// Asks the question and prints the answer.
    ///
    /// # Errors
    /// One sentence that names the broken hop.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let question = self.question()?;
        let client = self.credentials.client()?;
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(json!({ "role": "system", "content": system }));
        }
        messages.push(json!({ "role": "user", "content": question }));
        let mut body = json!({ "messages": messages, "stream": true });
        if let Some(model) = &self.model {
            body["model"] = json!(model);
        }
        let mut signals = Signals::listen()?.and_hangup()?;
        let limit = Duration::from_secs(self.timeout);
        let deadline_ms = self.timeout.saturating_mul(1000);
        let mut submit = json!({ "op": "chat", "body": body, "deadline_ms": deadline_ms });
        if let Some(priority) = self.priority {
            submit["priority"] = json!(priority);
        }
        let submission = Submission::new(&client, submit)?;
        let answered = async { follow(&client, submission.submit().await?).await };
        let answered = tokio::select! {
            answered = answered => answered,
            () = sleep(limit) => Err(anyhow::anyhow!("no complete answer within {} s", self.timeout)),
            () = signals.next() => Err(anyhow::anyhow!("interrupted")),
        };
        match answered {
            Ok((end, shown)) => conclude(end, &shown),
            Err(why) => Err(given_up(&submission, &mut signals, why).await),
        }
    }

    fn question(&self) -> anyhow::Result<String> {
        match self.text.as_deref() {
            Some(text) if text != "-" => Ok(text.to_owned()),
            _ => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .context("reading the question")?;
                let text = text.trim().to_owned();
                anyhow::ensure!(!text.is_empty(), "standard input contains no question");
                Ok(text)
            }
        }
    }
}

/// Cancels a job that is no longer waited for, and returns the error message.
async fn given_up(
    submission: &Submission<'_>,
    signals: &mut Signals,
    why: anyhow::Error,
) -> anyhow::Error {
    let withdrawn = tokio::select! {
        withdrawn = timeout(WITHDRAWAL, submission.withdraw()) => {
            withdrawn.unwrap_or_else(|_| Err(anyhow::anyhow!("the relay did not respond")))
        }
        () = signals.next() => Err(anyhow::anyhow!("stopped at once by a second signal")),
    };
    match (withdrawn, submission.job()) {
        (Ok(true), _) => anyhow::anyhow!("{why:#}; the job was cancelled"),
        (Ok(false), _) => why,
        (Err(error), Some(job)) => {
            anyhow::anyhow!(
                "{why:#}; job {job} could not be cancelled and may still run: {error:#}"
            )
        }
        (Err(error), None) => anyhow::anyhow!(
            "{why:#}; the relay did not confirm the job, which may still run: {error:#}"
        ),
    }
}

/// The part of the answer that has been shown.
#[derive(Debug, Default)]
struct Shown {
    last_id: String,
    anything: bool,
    /// The answer for a program, printed only when complete: a program could not take back lines
    /// from a lost attempt, as a person can.
    held: String,
}

async fn follow(client: &Client, job: JobId) -> anyhow::Result<(End, Shown)> {
    let mut shown = Shown::default();
    let mut broken = 0;
    loop {
        let before = shown.last_id.clone();
        match follow_once(client, job, &mut shown).await {
            Ok(Some(end)) => return Ok((end, shown)),
            Err(Broken::Refused(error)) => return Err(error),
            Ok(None) | Err(Broken::Link) => {}
        }
        broken = if shown.last_id == before {
            broken + 1
        } else {
            0
        };
        anyhow::ensure!(broken < REOPENINGS, "{}", client.unreachable());
        let pause = Duration::from_millis(100) * 2_u32.pow(broken.min(5));
        note(&format!("the stream broke; reconnecting (job {job})"));
        sleep(pause).await;
    }
}

/// The reason why one reading of the event stream ended early.
enum Broken {
    /// The connection broke; the job continues.
    Link,
    /// The relay refused.
    Refused(anyhow::Error),
}

async fn follow_once(
    client: &Client,
    job: JobId,
    shown: &mut Shown,
) -> Result<Option<End>, Broken> {
    let mut request = client
        .http
        .get(client.url(&format!("/api/jobs/{job}/events")));
    if !shown.last_id.is_empty() {
        request = request.header("last-event-id", &shown.last_id);
    }
    let answer = request.send().await.map_err(|_| Broken::Link)?;
    if answer.status().is_server_error() {
        return Err(Broken::Link);
    }
    if !answer.status().is_success() {
        return Err(Broken::Refused(refusal(answer).await));
    }
    let mut events = sse::Reader::default();
    let mut bytes = answer.bytes_stream();
    let begun = Instant::now();
    let mut told = shown.anything;
    loop {
        let patience = if told {
            SILENCE
        } else {
            Duration::from_secs(1)
        };
        let piece = match timeout(patience, bytes.next()).await {
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_)) | None) => return Err(Broken::Link),
            Err(_) if !told && begun.elapsed() < SILENCE => {
                note("waiting for the model");
                told = true;
                continue;
            }
            Err(_) => return Err(Broken::Link),
        };
        for event in events.push(&piece).map_err(Broken::Refused)? {
            if let Some(end) = show(&event, shown).map_err(Broken::Refused)? {
                return Ok(Some(end));
            }
        }
    }
}

/// Shows one event; returns the end if it was the last.
fn show(event: &sse::Event, shown: &mut Shown) -> anyhow::Result<Option<End>> {
    shown.last_id.clone_from(&event.id);
    match event.name.as_str() {
        "end" => {
            return Ok(Some(serde_json::from_str(&event.data).context(
                "the relay sent an end that this version does not know; update hearth",
            )?));
        }
        "restarted" => {
            const LOST: &str = "the agent was lost; another one starts the answer again";
            let mut out = std::io::stdout();
            match (out.is_terminal(), shown.anything) {
                (true, true) => writeln!(out, "\n\n({LOST})\n")?,
                (true, false) | (false, _) => note(LOST),
            }
            shown.anything = false;
            shown.held.clear();
        }
        "line" | "message" => {
            let line: Value = serde_json::from_str(&event.data)
                .context("the relay sent a line that this version cannot read; update hearth")?;
            let text = line["message"]["content"]
                .as_str()
                .or(line["response"].as_str());
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                let mut out = std::io::stdout();
                if out.is_terminal() {
                    let seen: String = text.chars().filter(|sign| is_seen(*sign)).collect();
                    out.write_all(seen.as_bytes())?;
                    out.flush()?;
                } else {
                    shown.held.push_str(text);
                }
                shown.anything = true;
            }
        }
        _ => {} // queue positions, and events of later versions
    }
    Ok(None)
}

/// Whether a character of an answer may be written to a terminal, which control characters would
/// control. The zero-width joiner is part of emoji.
fn is_seen(sign: char) -> bool {
    is_printable(sign) || matches!(sign, '\n' | '\t' | '\u{200d}')
}

fn conclude(end: End, shown: &Shown) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    if shown.anything && (end == End::Completed || out.is_terminal()) {
        writeln!(out, "{}", shown.held).context("writing the answer")?;
    }
    match end {
        End::Completed if shown.anything => Ok(()),
        End::Completed => anyhow::bail!("the model returned an empty answer"),
        End::Cancelled => anyhow::bail!("the job was cancelled"),
        End::Failed { error } => Err(anyhow::anyhow!("{}", failure(&error))),
    }
}

/// The error message for a failed job: the broken hop, and what to do.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the other codes name no hop of their own"
)]
fn failure(error: &JobError) -> String {
    let hop = match error.code {
        ErrorCode::EngineUnavailable | ErrorCode::EngineFailed => {
            "the engine on the agent's machine failed"
        }
        ErrorCode::EngineRefused => "the engine refused the request",
        ErrorCode::UnknownModel => "no agent has that model (see `hearth doctor`)",
        ErrorCode::WorkerLost | ErrorCode::TooManyAttempts => "the agent was lost",
        ErrorCode::DeadlineExceeded => "the job was not done in time (see `hearth doctor`)",
        _ => "the job failed",
    };
    format!(
        "{hop}: {} ({})",
        strip_control_chars(&error.message),
        error.code
    )
}

/// Prints progress to a terminal.
fn note(text: &str) {
    if std::io::stderr().is_terminal() {
        drop(writeln!(std::io::stderr(), "hearth: {text}"));
    }
}
