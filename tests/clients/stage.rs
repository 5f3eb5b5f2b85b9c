//! The stage of a client's script: a relay and an agent with a real model, and another two with a
//! scripted engine.

use std::{path::Path, sync::Mutex, time::Duration};

use hearth_tests::{
    process::finish,
    proxy::Proxy,
    scripted_ollama::{Answer, Gate, ScriptedOllama},
    test_bed::{TestBed, create_key, read_json},
};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet, time::timeout};

use crate::{
    scene,
    script::{self, Stage},
    silence::LIVELY,
};

/// Maximum time for an engine to stop after its client disconnects.
const SOON: Duration = Duration::from_secs(1);

/// Two relays with their agents.
#[derive(Debug)]
pub(crate) struct Both {
    real: TestBed,
    model: String,
    scripted: TestBed,
    ollama: ScriptedOllama,
    /// The proxy in front of the relay with the scripted engine.
    proxy: Proxy,
    /// A key of the scripted relay whose account has no agent.
    lonely: String,
    /// The tasks that release held answers.
    openers: Mutex<JoinSet<()>>,
}

impl Both {
    pub(crate) async fn new() -> Self {
        let (real, (scripted, ollama)) = tokio::join!(real(), TestBed::scripted_with(&LIVELY, 1));
        let lonely = [
            "--name",
            "lonely",
            "--account",
            "lonely",
            "--scope",
            "enqueue",
            "--scope",
            "read",
        ];
        let lonely = create_key(&scripted.home, &lonely).await;
        let proxy = Proxy::start(scripted.address, Duration::ZERO)
            .await
            .unwrap();
        let tags = read_json(real.get("/api/tags")).await;
        Self {
            model: tags["models"][0]["name"].as_str().unwrap().to_owned(),
            real,
            scripted,
            ollama,
            proxy,
            lonely,
            openers: Mutex::default(),
        }
    }

    /// Sets the scripted engine's answer to the next request for a path. A late answer waits until
    /// `pieces` TCP segments of other data have reached the client.
    fn play(&self, wish: &Value) -> Result<Value, String> {
        let text = |name: &str| wish[name].as_str().unwrap_or_default();
        let answer = scene::named(text("scene"), wish["whole"] == true);
        let mut answer = answer.ok_or_else(|| format!("there is no scene {:?}", text("scene")))?;
        if let Some(pieces) = wish["late"].as_u64() {
            answer = self.opens_after(pieces).then_all(answer);
        }
        self.ollama.script(text("path"), answer);
        Ok(Value::Null)
    }

    /// The start of an answer that waits until this many segments have reached the client.
    fn opens_after(&self, pieces: u64) -> Answer {
        let gate = Gate::default();
        let answer = Answer::after(&gate);
        let replied = self.proxy.until_replied(usize::try_from(pieces).unwrap());
        self.openers.lock().unwrap().spawn(async move {
            replied.await;
            gate.open();
        });
        answer
    }

    /// The body of the last request for a path that reached the scripted engine.
    fn asked_of_the_engine(&self, path: &str) -> Result<Value, String> {
        let requests = self.ollama.requests_for(path);
        let last = requests.last().ok_or("the engine was not asked")?;
        serde_json::from_slice(&last.body).map_err(|error| error.to_string())
    }

    /// The state in which the newest job of the real model ends.
    async fn newest_job(&self) -> Result<Value, String> {
        let listed = self.real.get("/api/jobs?limit=1").send().await;
        let jobs: Value = listed.unwrap().json().await.unwrap();
        let job = jobs[0]["id"].as_str().ok_or("there is no job")?;
        let answered = timeout(SOON, self.real.answer(job.parse().unwrap())).await;
        let answered = answered.map_err(|_| format!("job {job} still runs after {SOON:?}"))?;
        self.engine_rests().await?;
        Ok(answered
            .ends
            .first()
            .map_or(json!(null), |end| end["state"].clone()))
    }

    /// Waits for the real model to stop, well before it would have finished an answer without a
    /// limit.
    async fn engine_rests(&self) -> Result<(), String> {
        let ready = ["status", "--until", "ready", "--timeout", "5"];
        let done = finish(self.real.hearth(&ready)).await;
        let rests = done.status.success();
        rests
            .then_some(())
            .ok_or_else(|| format!("the engine still works: {}", done.stderr))
    }
}

impl Stage for Both {
    fn command(&self, program: &Path) -> Command {
        let mut command = self.real.home.command(program);
        let scripted = format!("http://{}", self.proxy.address());
        script::environment(&mut command, &scripted, &self.scripted.requester);
        command
            .env("RELAY", self.real.url(""))
            .env("RELAY_KEY", &self.real.requester)
            .env("MODEL", &self.model)
            .env("LONELY_KEY", &self.lonely);
        command
    }

    async fn act(&self, wish: &Value) -> Result<Value, String> {
        let text = |name: &str| wish[name].as_str().unwrap_or_default();
        match text("do") {
            "play" => self.play(wish),
            "asked_of_the_engine" => self.asked_of_the_engine(text("path")),
            "requests" => Ok(self.proxy.requests().into()),
            "newest_job" => self.newest_job().await,
            other => Err(format!("nobody can {other:?}")),
        }
    }
}

async fn real() -> TestBed {
    let mut bed = TestBed::relay_only("builtin").await;
    bed.start_agent().await;
    bed.until("ready").await;
    bed
}
