//! An agent that is lost while it answers, as every client sees it.

use std::path::Path;

use futures_util::future::join_all;
use hearth_tests::{scripted_ollama::ScriptedOllama, test_bed::TestBed};
use serde_json::Value;
use tokio::{
    process::Command,
    sync::{Barrier, watch},
};

use crate::{
    scene,
    script::{self, Client, Stage},
};

const CASE: &str = "a_killed_agent_is_an_error";

struct Loss {
    bed: TestBed,
    /// Every client has received half of its answer.
    streaming: Barrier,
    is_lost: watch::Sender<bool>,
}

impl Stage for Loss {
    fn command(&self, program: &Path) -> Command {
        let mut command = self.bed.home.command(program);
        script::environment(&mut command, &self.bed.url(""), &self.bed.requester);
        command
    }

    async fn act(&self, wish: &Value) -> Result<Value, String> {
        if wish["do"] != "lose_the_agent" {
            return Err(format!("nobody can {}", wish["do"]));
        }
        self.streaming.wait().await;
        let mut is_lost = self.is_lost.subscribe();
        is_lost.wait_for(|is_lost| *is_lost).await.unwrap();
        Ok(Value::Null)
    }
}

/// The relay waits for the agent until the lease expires; then another agent runs the job. A client
/// that has read half of the first answer must get an error.
#[tokio::test]
async fn no_client_takes_half_an_answer_for_a_whole_one_when_the_agent_is_killed() {
    let clients = [
        Client::python("with_ollama.py"),
        Client::python("with_openai.py"),
        Client::python("with_anthropic.py"),
        Client::python("with_langchain.py"),
        Client::node("with_ollama.cjs"),
        Client::node("with_openai.cjs"),
        Client::node("with_ai_sdk.cjs"),
    ];
    let slots = u32::try_from(clients.len()).unwrap();
    let (mut bed, ollama) = TestBed::scripted_with(&[], slots).await;
    play_half(&ollama, clients.len());
    let agent = bed.agent.take().unwrap();
    let loss = Loss {
        bed,
        streaming: Barrier::new(clients.len() + 1),
        is_lost: watch::Sender::new(false),
    };
    let replaced = async {
        loss.streaming.wait().await;
        agent.kill().await;
        let another = loss.bed.new_agent().await;
        loss.is_lost.send_replace(true);
        another
    };
    let told = join_all(clients.map(|client| script::run(client, &[CASE], &loss)));
    let (_another, reports) = tokio::join!(replaced, told);
    for report in reports {
        report.check(&[CASE]);
    }
}

/// Each answer stops half-way, forever.
fn play_half(ollama: &ScriptedOllama, times: usize) {
    for _ in 0..times {
        let half = scene::named("half", false).unwrap();
        ollama.script("/api/chat", half);
    }
}
