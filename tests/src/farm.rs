//! A relay, an engine whose words are marked, and several agents, each behind a line of its own
//! that can be cut: what is there to be broken.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::time::Duration;

use crate::{
    marked::Marked,
    process::{Home, Process, binary},
    proxy::Proxy,
    scripted_ollama::ScriptedOllama,
    stand::{Stand, create_key},
};

/// Everything there is, and everything that was said by what is gone.
#[derive(Debug)]
pub struct Farm {
    /// The relay.
    pub stand: Stand,
    /// The engine of all agents.
    pub ollama: ScriptedOllama,
    /// What it does.
    pub marked: Marked,
    /// The agents.
    pub hands: Vec<Hand>,
    /// The requesters' keys.
    pub keys: Vec<String>,
    said: Vec<String>,
}

/// One agent.
#[derive(Debug)]
pub struct Hand {
    name: String,
    home: Home,
    /// Its line to the relay.
    pub line: Proxy,
    /// The agent itself, while it runs.
    pub agent: Option<Process>,
}

/// Keys of requesters, so that no key asks more than one requester should.
const KEYS: usize = 8;

impl Farm {
    /// A relay and the lines to it; no agent runs yet.
    pub async fn new(hands: usize, slots: u32) -> Self {
        let ollama = ScriptedOllama::start().await.unwrap();
        let marked = Marked::engine(&ollama);
        let mut stand = Stand::relay_only(&format!("ollama:{}", ollama.url())).await;
        stand.slots = slots;
        let mut keys = Vec::new();
        for n in 0..KEYS {
            let name = format!("requester-{n}");
            let args = ["--name", &name, "--scope", "enqueue", "--scope", "read"];
            keys.push(create_key(&stand.home, &args).await);
        }
        let mut farm = Self {
            stand,
            ollama,
            marked,
            hands: Vec::new(),
            keys,
            said: Vec::new(),
        };
        for n in 0..hands {
            let line = Proxy::start(farm.stand.address, Duration::ZERO);
            farm.hands.push(Hand {
                name: format!("hand-{n}"),
                home: Home::new(),
                line: line.await.unwrap(),
                agent: None,
            });
        }
        farm
    }

    /// Starts an agent and waits until it says so; it may not have reached the relay yet.
    pub async fn start_agent(&mut self, n: usize) {
        let hand = &self.hands[n];
        let mut command = hand.home.command(binary("hearth"));
        command
            .arg("agent")
            .args(self.stand.options_of(&hand.name, hand.line.address()))
            .env("HEARTH_KEY", &self.stand.worker);
        let mut agent = Process::start(&hand.name, command);
        agent.says("status on ws://").await;
        self.hands[n].agent = Some(agent);
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
        if let Some(relay) = self.stand.relay.take() {
            self.said.push(relay.log());
            relay.kill().await;
        }
    }

    /// Asks the relay to end, and waits until it has.
    pub async fn drain_relay(&mut self) {
        if let Some(mut relay) = self.stand.relay.take() {
            relay.ask_to_end();
            let status = relay.wait().await;
            assert!(status.success(), "the relay ended with {status}");
            self.said.push(relay.log());
        }
    }

    /// Everything that relay and agents have logged, also those that are gone.
    #[must_use]
    pub fn said(&self) -> Vec<String> {
        let agents = self.hands.iter().filter_map(|hand| hand.agent.as_ref());
        let running = agents.chain(&self.stand.relay).map(Process::log);
        self.said.iter().cloned().chain(running).collect()
    }
}
