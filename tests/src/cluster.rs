//! A relay, an engine whose words are tagged, and several agents, each behind a proxy that can
//! break the connection.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{io, path::Path, time::Duration};

use crate::{
    disk::Disk,
    process::{Home, Process, binary, finish},
    proxy::Proxy,
    scripted_ollama::ScriptedOllama,
    tagged_engine::TaggedEngine,
    test_bed::{TestBed, create_key, hearth},
};

/// All parts, with the logs of those that have ended.
#[derive(Debug)]
pub struct Cluster {
    /// Unmounted before its folder is removed.
    disk: Option<Disk>,
    /// The relay.
    pub bed: TestBed,
    /// The engine of all agents.
    pub ollama: ScriptedOllama,
    /// The behaviour of the engine.
    pub tagged_engine: TaggedEngine,
    /// The agents.
    pub hands: Vec<AgentProcess>,
    /// The requesters' keys.
    pub keys: Vec<String>,
    said: Vec<String>,
}

/// One agent.
#[derive(Debug)]
pub struct AgentProcess {
    name: String,
    home: Home,
    /// Its connection to the relay.
    pub line: Proxy,
    /// The agent's process, while it is running.
    pub agent: Option<Process>,
}

/// Number of requesters' keys, which divide the load.
const KEYS: usize = 8;

impl Cluster {
    /// A relay and the proxies to it; no agent is running yet.
    pub async fn new(hands: usize, slots: u32) -> Self {
        Self::with(&[], hands, slots).await
    }

    /// A cluster whose relay has these additional options.
    pub async fn with(options: &[&str], hands: usize, slots: u32) -> Self {
        let options = [&["--metrics", "127.0.0.1:0"], options].concat();
        let ollama = ScriptedOllama::start().await.unwrap();
        let tagged_engine = TaggedEngine::engine(&ollama);
        let engine = format!("ollama:{}", ollama.url());
        let mut bed = TestBed::relay_with(&options, &engine).await;
        bed.slots = slots;
        let mut keys = Vec::new();
        for n in 0..KEYS {
            let name = format!("requester-{n}");
            let args = ["--name", &name, "--scope", "enqueue", "--scope", "read"];
            keys.push(create_key(&bed.home, &args).await);
        }
        let mut cluster = Self {
            disk: None,
            bed,
            ollama,
            tagged_engine,
            hands: Vec::new(),
            keys,
            said: Vec::new(),
        };
        for n in 0..hands {
            // Direct, slow, and in small segments.
            let (delay, piece) = [(0, usize::MAX), (5, usize::MAX), (0, 7)][n % 3];
            let delay = Duration::from_millis(delay);
            let line = Proxy::split(cluster.bed.address, delay, piece);
            cluster.hands.push(AgentProcess {
                name: format!("hand-{n}"),
                home: Home::new(),
                line: line.await.unwrap(),
                agent: None,
            });
        }
        cluster
    }

    /// Moves the relay's store to a disk whose power can be cut.
    ///
    /// # Errors
    /// If no disk can be mounted here.
    pub async fn put_on_a_disk(&mut self) -> io::Result<()> {
        self.drain_relay().await;
        let at = self.bed.home.path();
        let store = std::fs::read(at.join("relay.db"))?;
        self.disk = Some(Disk::mount(at)?);
        std::fs::write(at.join("relay.db"), store)?;
        std::fs::File::open(at.join("relay.db"))?.sync_all()?;
        std::fs::File::open(at)?.sync_all()?;
        self.bed.start_relay().await;
        Ok(())
    }

    /// Cuts the power of the relay's disk, keeps what was synced, and restarts the relay.
    ///
    /// # Errors
    /// If the disk cannot be copied, or the store is damaged.
    pub async fn cut_power(&mut self) -> io::Result<()> {
        let disk = self.disk.as_mut().unwrap();
        let relay = self.bed.relay.take().unwrap();
        relay.freeze();
        disk.freeze()?;
        self.said.push(relay.log());
        relay.kill().await;
        disk.swap()?;
        check(&self.bed.home.path().join("relay.db"))?;
        self.bed.start_relay().await;
        Ok(())
    }

    /// Starts an agent and waits for its first log line; it may not be connected yet.
    pub async fn start_agent(&mut self, n: usize) {
        let hand = &self.hands[n];
        let mut command = hand.home.command(binary("hearth"));
        command
            .arg("agent")
            .args(self.bed.options_of(&hand.name, hand.line.address()))
            .env("HEARTH_KEY", &self.bed.worker);
        let mut agent = Process::start(&hand.name, command);
        agent.says("status on ws://").await;
        self.hands[n].agent = Some(agent);
    }

    /// Waits until an agent is ready; before that, only jobs that may wait are accepted.
    pub async fn until_ready(&self, n: usize) {
        let args = ["status", "--until", "ready", "--timeout", "50"];
        let done = finish(hearth(&self.hands[n].home, &args)).await;
        assert!(done.status.success(), "not ready: {}", done.stderr);
    }

    /// Kills an agent.
    pub async fn kill_agent(&mut self, n: usize) {
        if let Some(agent) = self.hands[n].agent.take() {
            self.said.push(agent.log());
            agent.kill().await;
        }
    }

    /// Kills the relay.
    pub async fn kill_relay(&mut self) {
        if let Some(relay) = self.bed.relay.take() {
            self.said.push(relay.log());
            relay.kill().await;
        }
    }

    /// Stops the relay gracefully, and waits for its end.
    pub async fn drain_relay(&mut self) {
        if let Some(mut relay) = self.bed.relay.take() {
            relay.ask_to_end();
            let status = relay.wait().await;
            assert!(status.success(), "the relay ended with {status}");
            self.said.push(relay.log());
        }
    }

    /// The name of an agent.
    #[must_use]
    pub fn name(&self, n: usize) -> &str {
        &self.hands[n].name
    }

    /// The secret parts of all keys.
    pub fn secrets(&self) -> impl Iterator<Item = String> {
        let keys = self
            .keys
            .iter()
            .chain([&self.bed.worker, &self.bed.requester]);
        keys.filter_map(|key| Some(key.split('_').nth(2)?.to_owned()))
    }

    /// All logs of relay and agents, including ended ones, and the relay's metrics.
    pub async fn said(&self) -> Vec<String> {
        let metrics = self.bed.metrics().await;
        let agents = self.hands.iter().filter_map(|hand| hand.agent.as_ref());
        let running = agents.chain(&self.bed.relay).map(Process::log);
        let said = self.said.iter().cloned().chain(running);
        said.chain([metrics]).collect()
    }
}

/// Runs SQLite's integrity check on a store.
fn check(path: &Path) -> io::Result<()> {
    let conn = rusqlite::Connection::open(path).map_err(io::Error::other)?;
    let found: String = conn
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(io::Error::other)?;
    if found == "ok" {
        return Ok(());
    }
    Err(io::Error::other(format!("the store is damaged: {found}")))
}
