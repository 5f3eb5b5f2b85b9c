//! A relay and an agent as a user starts them, with their keys, in their own home.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{net::SocketAddr, path::PathBuf};

use proto::JobId;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::{process::Command, time::timeout};

use crate::{
    crowd::reader::events,
    process::{Finished, Home, PATIENCE, Process, binary, finish},
    scripted_ollama::ScriptedOllama,
};

/// Lease time in seconds; short, because tests kill agents.
const LEASE: &str = "20";

/// A relay and an agent, with all that a test needs to use them.
#[derive(Debug)]
pub struct TestBed {
    /// The home folder.
    pub home: Home,
    /// The relay's address.
    pub address: SocketAddr,
    /// A key with the scopes `enqueue` and `read`.
    pub requester: String,
    /// A key with the scope `work`.
    pub worker: String,
    /// A client that sends no key by itself.
    pub http: reqwest::Client,
    /// The relay, while it is running.
    pub relay: Option<Process>,
    /// The agent, while it is running.
    pub agent: Option<Process>,
    /// The agent's address for the relay, if it is not the relay's own: a proxy of the test.
    pub through: Option<SocketAddr>,
    /// Maximum number of concurrent jobs of the agent.
    pub slots: u32,
    /// Further options of the relay.
    pub relay_options: Vec<String>,
    /// The log filter of the programs that are started from now on, instead of their own.
    pub log: Option<&'static str>,
    /// The address of the relay's metrics, if its options name one.
    metrics: Option<String>,
    engine: String,
}

impl TestBed {
    /// A running relay with keys, and no agent yet.
    pub async fn relay_only(engine: &str) -> Self {
        Self::relay_with(&[], engine).await
    }

    /// A running relay with further options, and no agent yet.
    pub async fn relay_with(options: &[&str], engine: &str) -> Self {
        let home = Home::new();
        let requester = create_key(
            &home,
            &["--name", "laptop", "--scope", "enqueue", "--scope", "read"],
        )
        .await;
        let worker = create_key(&home, &["--name", "home", "--scope", "work"]).await;
        let http = client();
        let mut bed = Self {
            home,
            address: "127.0.0.1:0".parse().unwrap(),
            requester,
            worker,
            http,
            relay: None,
            agent: None,
            through: None,
            slots: 1,
            relay_options: options.iter().map(|&option| option.to_owned()).collect(),
            log: None,
            metrics: None,
            engine: engine.to_owned(),
        };
        bed.start_relay().await;
        bed
    }

    /// A relay, and an agent in front of a scripted engine, which is ready.
    pub async fn scripted() -> (Self, ScriptedOllama) {
        Self::scripted_with(&[], 1).await
    }

    /// A relay with further options, and a ready agent with this many slots in front of a scripted
    /// engine.
    pub async fn scripted_with(options: &[&str], slots: u32) -> (Self, ScriptedOllama) {
        let ollama = ScriptedOllama::start().await.unwrap();
        let engine = format!("ollama:{}", ollama.url());
        let mut bed = Self::relay_with(options, &engine).await;
        bed.slots = slots;
        bed.start_agent().await;
        bed.until("ready").await;
        (bed, ollama)
    }

    /// Starts the relay at its previous address.
    pub async fn start_relay(&mut self) {
        let mut command = self.home.command(relay_binary());
        command.args(["relay", "--store", &store(&self.home)]);
        command.args(["--listen", &self.address.to_string(), "--lease", LEASE]);
        // The tests send requests as fast as possible, all with one key.
        command.args(["--key-rate", "0", "--connections-per-key", "0"]);
        command.args(&self.relay_options);
        self.set_log(&mut command);
        let mut relay = Process::start("the relay", command);
        let url = relay.says("listening on http://").await;
        self.address = url.parse().unwrap();
        if self
            .relay_options
            .iter()
            .any(|option| option == "--metrics")
        {
            self.metrics = Some(relay.says("metrics on ").await);
        }
        self.relay = Some(relay);
    }

    /// The relay's metrics; empty if it serves none.
    pub async fn metrics(&self) -> String {
        let Some(url) = &self.metrics else {
            return String::new();
        };
        let answer = self.http.get(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.text().await.unwrap()
    }

    /// Starts the agent and waits until its hub is listening.
    pub async fn start_agent(&mut self) {
        self.agent = Some(self.new_agent().await);
    }

    /// A further agent, whose hub is listening.
    pub async fn new_agent(&self) -> Process {
        let mut command = self.hearth(&["agent"]);
        command.args(self.options()).env("HEARTH_KEY", &self.worker);
        let mut agent = Process::start("the agent", command);
        agent.says("status on ws://").await;
        agent
    }

    /// The options of an agent or desktop app that works for this relay; its key belongs in
    /// `HEARTH_KEY`.
    pub fn options(&self) -> Vec<String> {
        self.options_of("home", self.through.unwrap_or(self.address))
    }

    /// The options of an agent with another name that connects to the relay at this address.
    pub fn options_of(&self, name: &str, relay: SocketAddr) -> Vec<String> {
        let relay = format!("http://{relay}");
        let slots = self.slots.to_string();
        let options = ["--engine", &self.engine, "--name", name, "--relay", &relay];
        let more = ["--status-port", "0", "--http-port", "0", "--slots", &slots];
        options
            .iter()
            .chain(&more)
            .map(|option| (*option).to_owned())
            .collect()
    }

    /// Kills the relay.
    pub async fn kill_relay(&mut self) {
        self.relay.take().unwrap().kill().await;
    }

    /// Kills the agent.
    pub async fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill().await;
    }

    /// Waits until the agent's status has this phase.
    pub async fn until(&self, phase: &str) {
        let done = finish(self.hearth(&["status", "--until", phase, "--timeout", "50"])).await;
        assert!(
            done.status.success(),
            "the agent is not {phase}: {}\nagent: {}\nrelay: {}",
            done.stderr,
            self.agent.as_ref().map(Process::log).unwrap_or_default(),
            self.relay.as_ref().map(Process::log).unwrap_or_default()
        );
    }

    /// The agent's status, as the hub sends it.
    pub async fn status(&self) -> Value {
        let done = finish(self.hearth(&["status", "--json"])).await;
        assert!(done.status.success(), "{}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The `hearth` program in this home.
    pub fn hearth(&self, args: &[&str]) -> Command {
        let mut command = hearth(&self.home, args);
        self.set_log(&mut command);
        command
    }

    fn set_log(&self, command: &mut Command) {
        command.envs(self.log.map(|filter| ("HEARTH_LOG", filter)));
    }

    /// Runs `hearth ask` with the requester's key.
    pub async fn ask(&self, args: &[&str]) -> Finished {
        let mut command = self.hearth(&["ask", "--relay", &self.url("")]);
        command.args(args).env("HEARTH_KEY", &self.requester);
        finish(command).await
    }

    /// A URL of the relay.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the requester's key.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path)).bearer_auth(&self.requester)
    }

    /// A request with a JSON body and the requester's key.
    pub fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http
            .post(self.url(path))
            .bearer_auth(&self.requester)
            .json(body)
    }

    /// Submits a native job; `Some` only if the relay acknowledged it.
    pub async fn submit(&self, text: &str) -> Option<JobId> {
        let message = json!({ "role": "user", "content": text });
        let body = json!({ "model": "tiny", "messages": [message], "stream": true });
        let submit = json!({ "op": "chat", "body": body, "deadline_ms": 600_000 });
        let answer = self.post("/api/jobs", &submit).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        let view: Value = answer.json().await.ok()?;
        Some(view["id"].as_str().unwrap().parse().unwrap())
    }

    /// Follows a job's events to the end: the text of its last attempt, and the ends.
    pub async fn answer(&self, job: JobId) -> Answered {
        timeout(PATIENCE, self.follow(job))
            .await
            .unwrap_or_else(|_| {
                panic!(
                    "job {job} never ended\nagent: {}\nrelay: {}",
                    self.agent.as_ref().map(Process::log).unwrap_or_default(),
                    self.relay.as_ref().map(Process::log).unwrap_or_default()
                )
            })
    }

    async fn follow(&self, job: JobId) -> Answered {
        let answer = self
            .get(&format!("/api/jobs/{job}/events"))
            .send()
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let mut answered = Answered::default();
        events(answer, |event| {
            let data: Value = serde_json::from_str(&event.data).unwrap();
            match event.name.as_str() {
                "end" => answered.ends.push(data),
                "restarted" => answered = Answered::default(),
                _ => {
                    answered.text += data["message"]["content"].as_str().unwrap_or_default();
                    answered.done_lines += usize::from(data["done"] == true);
                }
            }
        })
        .await;
        answered
    }
}

/// The result of a job, as a requester saw it.
#[derive(Debug, Default)]
pub struct Answered {
    /// The text of the last attempt.
    pub text: String,
    /// Number of lines with `done`.
    pub done_lines: usize,
    /// The ends that were sent.
    pub ends: Vec<Value>,
}

/// An HTTP client without system proxies.
pub fn client() -> reqwest::Client {
    // All callers install the same provider; only the first call has an effect.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .unwrap()
}

/// Sends a request and reads its answer as JSON.
pub async fn read_json(request: RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

/// The program that runs as the relay: `HEARTH_RELAY_BIN`, which may contain a planted bug, or else
/// `hearth`.
fn relay_binary() -> PathBuf {
    std::env::var_os("HEARTH_RELAY_BIN").map_or_else(|| binary("hearth"), PathBuf::from)
}

/// The `hearth` program in a home.
pub fn hearth(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(binary("hearth"));
    command.args(args);
    command
}

/// The URL of the relay's store in a home.
pub fn store(home: &Home) -> String {
    format!("sqlite:{}", home.path().join("relay.db").display())
}

/// Creates a key and returns it.
pub async fn create_key(home: &Home, args: &[&str]) -> String {
    let mut command = hearth(home, &["key", "create", "--store", &store(home)]);
    command.args(args);
    let done = finish(command).await;
    assert!(done.status.success(), "{}", done.stderr);
    done.stdout.split_whitespace().last().unwrap().to_owned()
}
