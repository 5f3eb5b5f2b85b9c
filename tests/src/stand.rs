//! A relay and an agent as a user starts them, with the keys to use them, in a home of their own.
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

/// Seconds a dead agent's job waits for another: short, because tests kill agents.
const LEASE: &str = "20";

/// Everything between a question and its answer.
#[derive(Debug)]
pub struct Stand {
    /// Its home folder.
    pub home: Home,
    /// Where the relay listens.
    pub address: SocketAddr,
    /// A key that may enqueue and read.
    pub requester: String,
    /// A key that may work.
    pub worker: String,
    /// A client that shows no key by itself.
    pub http: reqwest::Client,
    /// The relay, while it runs.
    pub relay: Option<Process>,
    /// The agent, while it runs.
    pub agent: Option<Process>,
    /// Where the agent finds the relay, if not at its own address: a proxy of the test's.
    pub through: Option<SocketAddr>,
    /// How many jobs the agent may run at once.
    pub slots: u32,
    /// What the relay is started with beside its address and its store.
    pub relay_options: Vec<String>,
    /// Where the relay shows its metrics, if its options say so.
    metrics: Option<String>,
    engine: String,
}

impl Stand {
    /// A relay that runs, keys, and no agent yet.
    pub async fn relay_only(engine: &str) -> Self {
        Self::relay_with(&[], engine).await
    }

    /// The same with more options for the relay.
    pub async fn relay_with(options: &[&str], engine: &str) -> Self {
        let home = Home::new();
        let requester = create_key(
            &home,
            &["--name", "laptop", "--scope", "enqueue", "--scope", "read"],
        )
        .await;
        let worker = create_key(&home, &["--name", "home", "--scope", "work"]).await;
        let http = client();
        let mut stand = Self {
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
            metrics: None,
            engine: engine.to_owned(),
        };
        stand.start_relay().await;
        stand
    }

    /// A relay, and an agent in front of a scripted engine, confirmed ready.
    pub async fn scripted() -> (Self, ScriptedOllama) {
        Self::scripted_with(&[], 1).await
    }

    /// The same with more options for the relay, and an agent that runs so many jobs at once.
    pub async fn scripted_with(options: &[&str], slots: u32) -> (Self, ScriptedOllama) {
        let ollama = ScriptedOllama::start().await.unwrap();
        let engine = format!("ollama:{}", ollama.url());
        let mut stand = Self::relay_with(options, &engine).await;
        stand.slots = slots;
        stand.start_agent().await;
        stand.until("ready").await;
        (stand, ollama)
    }

    /// Starts the relay, at the address it had before.
    pub async fn start_relay(&mut self) {
        let mut command = self.home.command(relay_binary());
        command.args(["relay", "--store", &store(&self.home)]);
        command.args(["--listen", &self.address.to_string(), "--lease", LEASE]);
        // The tests ask as fast as they can, all with one key.
        command.args(["--key-rate", "0", "--connections-per-key", "0"]);
        command.args(&self.relay_options);
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

    /// Everything the relay shows a scraper. Nothing if it shows nothing.
    pub async fn metrics(&self) -> String {
        let Some(url) = &self.metrics else {
            return String::new();
        };
        let answer = self.http.get(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.text().await.unwrap()
    }

    /// Starts the agent and waits until its hub listens.
    pub async fn start_agent(&mut self) {
        self.agent = Some(self.new_agent().await);
    }

    /// An agent of the caller's own, whose hub listens.
    pub async fn new_agent(&self) -> Process {
        let mut command = self.hearth(&["agent"]);
        command.args(self.options()).env("HEARTH_KEY", &self.worker);
        let mut agent = Process::start("the agent", command);
        agent.says("status on ws://").await;
        agent
    }

    /// The options of an agent, with or without a desktop, that works for this relay; its key
    /// goes into `HEARTH_KEY`.
    pub fn options(&self) -> Vec<String> {
        self.options_of("home", self.through.unwrap_or(self.address))
    }

    /// The same for an agent of another name that finds the relay at this address.
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

    /// Ends the relay as a power cut would.
    pub async fn kill_relay(&mut self) {
        self.relay.take().unwrap().kill().await;
    }

    /// Ends the agent as a power cut would.
    pub async fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill().await;
    }

    /// Waits until the agent's own status says so.
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

    /// The agent's status as the hub sends it.
    pub async fn status(&self) -> Value {
        let done = finish(self.hearth(&["status", "--json"])).await;
        assert!(done.status.success(), "{}", done.stderr);
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The `hearth` program in this home.
    pub fn hearth(&self, args: &[&str]) -> Command {
        hearth(&self.home, args)
    }

    /// `hearth ask` with the requester's key.
    pub async fn ask(&self, args: &[&str]) -> Finished {
        let mut command = self.hearth(&["ask", "--relay", &self.url("")]);
        command.args(args).env("HEARTH_KEY", &self.requester);
        finish(command).await
    }

    /// An address at the relay.
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

    /// Follows a job's events to its end: the text of its last attempt, and how often an end came.
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

/// What a requester saw of one job.
#[derive(Debug, Default)]
pub struct Answered {
    /// The text of the last attempt.
    pub text: String,
    /// How many lines said `done`.
    pub done_lines: usize,
    /// Every end that was told.
    pub ends: Vec<Value>,
}

/// An HTTP client that takes no detours.
pub fn client() -> reqwest::Client {
    // Whoever comes first installs it; all install the same one.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .build()
        .unwrap()
}

/// The program that is started as the relay: `HEARTH_RELAY_BIN`, which has a bug planted in it and
/// must be found out, else `hearth`.
fn relay_binary() -> PathBuf {
    std::env::var_os("HEARTH_RELAY_BIN").map_or_else(|| binary("hearth"), PathBuf::from)
}

/// The `hearth` program in a home.
pub fn hearth(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(binary("hearth"));
    command.args(args);
    command
}

/// The relay's store in a home.
pub fn store(home: &Home) -> String {
    format!("sqlite:{}", home.path().join("relay.db").display())
}

/// Makes a key; its text is the last word printed.
pub async fn create_key(home: &Home, args: &[&str]) -> String {
    let mut command = hearth(home, &["key", "create", "--store", &store(home)]);
    command.args(args);
    let done = finish(command).await;
    assert!(done.status.success(), "{}", done.stderr);
    done.stdout.split_whitespace().last().unwrap().to_owned()
}
