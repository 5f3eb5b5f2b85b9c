//! `hearth doctor`: checks every part of the way from a question to its answer, and says how to fix
//! a broken one.

use std::{io::Write as _, path::Path, time::Duration};

use agent::{Folders, Origin, Settings, SettingsError};
use proto::{
    ErrorBody, ErrorCode,
    status::{HopState, Phase, Status},
};
use serde_json::Value;
use status::{Link, Places, Subscriber, strip_control_chars};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::credentials::{Client, Credentials, not_the_relays};

/// `hearth doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    credentials: Credentials,
}

/// The result of checking one hop.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    hop: &'static str,
    state: State,
    /// What was found, and what to do.
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Broken,
    /// Not an error, but worth knowing.
    Note,
}

impl Finding {
    fn new(hop: &'static str, state: State, text: impl Into<String>) -> Self {
        Self {
            hop,
            state,
            text: text.into(),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
/// The response header with the number of agents that could answer.
const WORKERS: &str = "x-hearth-workers";

impl Args {
    /// Checks every hop and prints the results.
    ///
    /// # Errors
    /// If a hop is broken.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut findings = relay(&self.credentials).await;
        match Folders::of_user() {
            Ok(folders) => findings.extend(local_agent(&folders.data).await),
            Err(error) => findings.push(Finding::new("agent", State::Broken, error.to_string())),
        }
        findings.push(match Settings::try_from(agent::Args::default()) {
            Ok(settings) => builtin_model(&settings.model),
            Err(error) => unsuitable(&error),
        });
        findings.extend(desktop());
        let mut out = std::io::stdout();
        for Finding { hop, state, text } in &findings {
            let mark = match state {
                State::Good => "ok    ",
                State::Broken => "BROKEN",
                State::Note => "note  ",
            };
            // Names and problems may contain text of other programs.
            writeln!(out, "{mark}  {hop:<8}  {}", strip_control_chars(text))?;
        }
        let broken: Vec<_> = findings
            .iter()
            .filter(|finding| finding.state == State::Broken)
            .map(|finding| finding.hop)
            .collect();
        anyhow::ensure!(broken.is_empty(), "broken: {}", broken.join(", "));
        Ok(())
    }
}

async fn relay(credentials: &Credentials) -> Vec<Finding> {
    let client = match credentials.client() {
        Ok(client) => client,
        Err(error) => {
            let hop = if credentials.key().is_ok() {
                "relay"
            } else {
                "key"
            };
            return vec![Finding::new(hop, State::Broken, format!("{error:#}"))];
        }
    };
    let up = match get(&client, "/healthz").await {
        Ok(told) if told.status == 200 && told.body["status"] == "ok" => {
            Finding::new("relay", State::Good, client.relay.clone())
        }
        Ok(Told { status, .. }) => {
            // Then the answer to the key would not be the relay's, either.
            let text = format!("{}: {}", client.relay, not_the_relays(status));
            return vec![Finding::new("relay", State::Broken, text)];
        }
        Err(error) => {
            let text = format!("{} cannot be reached: {error}", client.relay);
            return vec![Finding::new("relay", State::Broken, text)];
        }
    };
    let mut findings = vec![up];
    let told = match get(&client, "/api/tags").await {
        Ok(told) => told,
        Err(error) => {
            findings.push(Finding::new("key", State::Broken, error));
            return findings;
        }
    };
    findings.push(match told.status {
        200 => Finding::new("key", State::Good, "accepted by the relay"),
        401 => {
            let why = explain(401, &told.body);
            let text = format!(
                "{why}; pass a key with --key-file, or create one on the relay's server with \
                 `hearth key create --name NAME --scope enqueue --scope read`"
            );
            Finding::new("key", State::Broken, text)
        }
        403 => Finding::new(
            "key",
            State::Note,
            "it lacks the scope read, so agents and models cannot be checked; `hearth ask` needs it too",
        ),
        other => Finding::new("key", State::Broken, explain(other, &told.body)),
    });
    if told.status == 200 {
        findings.push(models(&told));
    }
    findings
}

/// Checks the models that the key may use. The relay remembers models for a while after their agent
/// left, so it also checks that an agent is online.
fn models(told: &Told) -> Finding {
    let models: Vec<&str> = told.body["models"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|model| model["name"].as_str())
        .collect();
    if told.workers == Some(0) || models.is_empty() {
        let text = "no agent with a working engine is online at the relay; start `hearth agent` on \
                    the machine with the model, or run `hearth doctor` there";
        return Finding::new("models", State::Broken, text);
    }
    Finding::new("models", State::Good, models.join(", "))
}

/// A response of the relay.
#[derive(Debug, Default)]
struct Told {
    status: u16,
    /// Number of agents that could answer the key's requests, if the relay sends it.
    workers: Option<u32>,
    body: Value,
}

async fn get(client: &Client, path: &str) -> Result<Told, String> {
    let request = client.http.get(client.url(path)).timeout(PATIENCE);
    let answer = request.send().await.map_err(|error| reason(&error))?;
    let workers = answer.headers().get(WORKERS);
    Ok(Told {
        status: answer.status().as_u16(),
        workers: workers.and_then(|count| count.to_str().ok()?.parse().ok()),
        body: answer.json().await.unwrap_or_default(),
    })
}

/// The reason for a missing response, and what to do. Uses the innermost error: the outer ones only
/// repeat the address.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no response within 5 s; check --relay and the network".to_owned();
    }
    let inner = proto::innermost(error);
    let is_refused = inner
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    let advice = if is_refused {
        "start it with `hearth relay`, or set --relay"
    } else {
        "check --relay"
    };
    format!("{inner}; {advice}")
}

fn explain(status: u16, body: &Value) -> String {
    match serde_json::from_value::<ErrorBody>(body.clone()) {
        Ok(ErrorBody { error }) if error.code != ErrorCode::Unknown => {
            format!("{} ({})", error.message, error.code)
        }
        _ => format!("the relay answered HTTP {status}"),
    }
}

async fn local_agent(data: &Path) -> Vec<Finding> {
    let (subscriber, handle) = Subscriber::new(Places::Own(data.to_owned()));
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    tasks.spawn(subscriber.run(stop.clone()));
    let mut link = handle.link();
    let live = timeout(
        PATIENCE,
        link.wait_for(|link| matches!(link, Link::Live(_))),
    )
    .await;
    let status = match live {
        Ok(Ok(link)) => match &*link {
            Link::Live(status) => Some(status.clone()),
            Link::Stale { .. } | Link::Lost { .. } => None,
        },
        Ok(Err(_)) | Err(_) => None,
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    match status {
        Some(status) => agent_findings(&status),
        None => vec![Finding::new(
            "agent",
            State::Note,
            "no agent is running on this machine; it is needed only where the model is",
        )],
    }
}

fn agent_findings(status: &Status) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, hop) in [("its relay", &status.relay), ("its engine", &status.engine)] {
        match hop.state {
            HopState::Up => {}
            HopState::Down | HopState::Unknown => {
                let problem = if hop.problem.is_empty() {
                    "not confirmed yet"
                } else {
                    &hop.problem
                };
                let text = format!("{name} {}: {problem}", hop.name);
                findings.push(Finding::new("agent", State::Broken, text));
            }
        }
    }
    if findings.is_empty() {
        let paused = status.status == Phase::Paused;
        let state = if paused { State::Note } else { State::Good };
        let text = format!("{}; engine {}", status.text, status.engine.name);
        findings.push(Finding::new("agent", state, text));
    }
    findings
}

/// Settings with which an agent would not start here. Broken if they are in a file, which only the
/// agent reads; else a note, because other commands read the same variables.
fn unsuitable(error: &SettingsError) -> Finding {
    let state = match error {
        SettingsError::Value {
            from: Origin::Env(_) | Origin::Flag(_) | Origin::Default,
            ..
        } => State::Note,
        SettingsError::Value { .. }
        | SettingsError::File { .. }
        | SettingsError::Toml { .. }
        | SettingsError::Folders(_) => State::Broken,
    };
    let text = format!("`hearth agent` would not start here: {error}");
    Finding::new("settings", state, text)
}

fn builtin_model(model: &Path) -> Finding {
    if model.exists() {
        Finding::new(
            "model",
            State::Good,
            format!("built-in model at {}", model.display()),
        )
    } else {
        let text = format!(
            "no built-in model at {}; name a GGUF file with `model` in hearth.toml, or run `./x setup` \
             in Hearth's source folder to download the default model (not needed with Ollama)",
            model.display()
        );
        Finding::new("model", State::Note, text)
    }
}

/// Whether the desktop app could draw here; only on systems where that is known.
fn desktop() -> Option<Finding> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let display = ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    Some(if display {
        Finding::new("desktop", State::Good, "a display is available")
    } else {
        Finding::new(
            "desktop",
            State::Note,
            "no display: only the headless agent can run here",
        )
    })
}

#[cfg(test)]
mod tests {
    use proto::status::Hop;

    use super::*;

    #[test]
    fn a_broken_hop_of_the_agent_is_named_with_its_problem() {
        let up = Hop {
            state: HopState::Up,
            name: "x".into(),
            problem: String::new(),
        };
        let down = Hop {
            state: HopState::Down,
            name: "ollama".into(),
            problem: "refused".into(),
        };
        let status = Status {
            relay: up.clone(),
            engine: down,
            ..Status::default()
        };
        let findings = agent_findings(&status);
        let text = "its engine ollama: refused";
        assert_eq!(findings, [Finding::new("agent", State::Broken, text)]);

        let good = Status {
            relay: up.clone(),
            engine: up,
            ..Status::default()
        };
        assert_eq!(agent_findings(&good)[0].state, State::Good);
    }

    #[test]
    fn a_refusal_of_the_relay_is_told_in_its_own_words() {
        let body = serde_json::to_value(ErrorBody::new(ErrorCode::RateLimited, "slowly")).unwrap();
        assert_eq!(explain(429, &body), "slowly (rate_limited)");
        assert_eq!(explain(500, &Value::Null), "the relay answered HTTP 500");
    }
}
