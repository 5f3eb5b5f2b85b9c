//! The status while a relay and an engine come and go.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_agent::{Args, Settings, TrayIcon};
use proto::{
    End, ErrorCode, JobId, LeaseToken, ModelName, Op,
    status::{Command, HopState, Phase},
    worker::{Frame, LeaseHead, RelayMessage, SUBPROTOCOL, WorkerMessage},
};
use serde_json::json;
use status::AskError;
use tests::scripted_ollama::{Answer, Gate, ScriptedOllama};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

use crate::{
    readers::{events, follow},
    support::{Log, Running, settings, soon, text, with_engine},
};

/// The relay's end of one worker connection.
pub(crate) struct Relay(WebSocketStream<TcpStream>);

impl Relay {
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (stream, _) = soon(listener.accept()).await.unwrap();
        #[expect(clippy::result_large_err, reason = "the library's own signature")]
        let agree = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let agreed = SUBPROTOCOL.parse().unwrap();
            response
                .headers_mut()
                .insert("sec-websocket-protocol", agreed);
            Ok(response)
        };
        let mut relay = Self(soon(accept_hdr_async(stream, agree)).await.unwrap());
        relay
            .until(|message| matches!(message, WorkerMessage::Hello { .. }))
            .await;
        let welcome = RelayMessage::Welcome {
            version: "test".into(),
            lease_ms: 60_000,
            heartbeat_ms: 15_000,
        };
        relay.say(&welcome).await;
        relay
    }

    async fn say(&mut self, message: &RelayMessage) {
        let text = serde_json::to_string(message).unwrap();
        self.0.send(Message::text(text)).await.unwrap();
    }

    async fn until(&mut self, is_it: impl Fn(&WorkerMessage) -> bool) -> WorkerMessage {
        loop {
            if let Message::Text(text) = soon(self.0.next()).await.unwrap().unwrap() {
                let message = serde_json::from_str(&text).unwrap();
                if is_it(&message) {
                    return message;
                }
            }
        }
    }

    /// Waits until the worker answers a ping: it has then processed all earlier messages.
    pub(crate) async fn is_answered(&mut self) {
        self.0
            .send(Message::Ping("still there".into()))
            .await
            .unwrap();
        while !matches!(
            soon(self.0.next()).await.unwrap().unwrap(),
            Message::Pong(_)
        ) {}
    }

    async fn capacity(&mut self, wanted: u32) {
        self.until(|said| matches!(said, WorkerMessage::Capacity { slots } if *slots == wanted))
            .await;
    }

    async fn lease(&mut self, job: JobId) {
        let body = br#"{"model":"m:1b","messages":[{"role":"user","content":"canary"}]}"#;
        let token = LeaseToken { job, attempt: 1 };
        let head = LeaseHead {
            token,
            op: Op::Chat,
            model: ModelName::new("m:1b").unwrap(),
            who: "laptop".into(),
            deadline: None,
            remaining_ms: None,
            body_len: body.len(),
        };
        self.say(&RelayMessage::Lease(head)).await;
        for frame in Frame::body(token, &body.as_slice().into()) {
            self.0.send(Message::Binary(frame.encode())).await.unwrap();
        }
    }
}

pub(crate) struct Stage {
    ollama: ScriptedOllama,
    pub(crate) listener: TcpListener,
    home: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let ollama = ScriptedOllama::start().await.unwrap();
        ollama.set_models(&[("m:1b", false)]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            ollama,
            listener,
            home: tempfile::tempdir().unwrap(),
        }
    }

    async fn agent(&self) -> Running {
        self.agent_on(None).await
    }

    /// An agent that reads wake-up signals from this bus.
    pub(crate) async fn agent_on(&self, system_bus: Option<String>) -> Running {
        let mut settings = self.settings();
        settings.system_bus = system_bus;
        Running::start(settings).await.unwrap()
    }

    fn settings(&self) -> Settings {
        let relay = format!("http://{}", self.listener.local_addr().unwrap());
        let args = Args {
            relay: Some(relay),
            ..with_engine(&self.ollama)
        };
        settings(self.home.path(), args)
    }
}

#[tokio::test]
async fn ready_is_said_only_when_relay_and_engine_are_both_confirmed() {
    let stage = Stage::set().await;
    let mut agent = stage.agent().await;
    let before = agent
        .until(|status| status.engine.state == HopState::Up)
        .await;
    assert_ne!(before.status, Phase::Ready, "no relay has answered yet");

    let _relay = Relay::accept(&stage.listener).await;
    let ready = agent.until(|status| status.status == Phase::Ready).await;
    assert_eq!(
        (&ready.relay.state, &ready.engine.state),
        (&HopState::Up, &HopState::Up)
    );
    assert!(ready.carrier.is_some());
    let seen = agent
        .shell(|seen| seen.trays.last().is_some_and(|t| t.icon == TrayIcon::Ready))
        .await;
    assert_eq!(seen.trays.last().unwrap().tooltip, "Hearth: Ready");
    assert!(
        seen.trays.windows(2).all(|pair| pair[0] != pair[1]),
        "never the same tray twice"
    );
    agent.stop().await;
}

#[tokio::test]
async fn a_relay_that_is_gone_is_named_as_the_broken_hop() {
    let stage = Stage::set().await;
    let agent = stage.agent().await;
    let relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;
    drop(stage.listener);
    drop(relay);
    let lost = agent
        .until(|status| status.status == Phase::RelayOffline)
        .await;
    assert_eq!(lost.relay.state, HopState::Down);
    assert!(!lost.relay.problem.is_empty());
    assert_eq!(lost.engine.state, HopState::Up);
    agent.stop().await;
}

#[tokio::test]
async fn a_pause_reaches_the_relay_is_seen_at_once_and_holds_over_a_restart() {
    let stage = Stage::set().await;
    let mut agent = stage.agent().await;
    let mut relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;

    agent.hub.send(Command::ToggleMonitoring).await.unwrap();
    relay.capacity(0).await;
    agent
        .until(|status| status.status == Phase::Paused && !status.monitoring)
        .await;
    agent
        .shell(|seen| {
            seen.trays
                .last()
                .is_some_and(|t| t.icon == TrayIcon::Paused)
        })
        .await;
    agent.stop().await;
    drop(relay);

    let agent = stage.agent().await;
    let mut relay = Relay::accept(&stage.listener).await;
    agent
        .until(|status| status.status == Phase::Paused && !status.monitoring)
        .await;
    agent.hub.send(Command::SetMonitoring(true)).await.unwrap();
    relay.capacity(1).await;
    agent
        .until(|status| status.status == Phase::Ready && status.monitoring)
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn a_running_job_is_shown_with_who_asked_and_can_be_stopped_by_the_owner() {
    let stage = Stage::set().await;
    let gate = Gate::default();
    stage.ollama.script("/api/chat", Answer::after(&gate));
    let mut agent = stage.agent().await;
    let mut relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;

    let job = JobId([5; 16]);
    relay.lease(job).await;
    let working = agent.until(|status| status.status == Phase::Working).await;
    let [live] = working.jobs.as_slice() else {
        panic!("one job runs")
    };
    assert_eq!(
        (live.id, live.who.as_str(), live.model.as_str()),
        (job, "laptop", "m:1b")
    );
    assert!(
        !format!("{working:?}").contains("canary"),
        "no prompt in the status"
    );
    agent
        .shell(|seen| {
            seen.trays
                .last()
                .is_some_and(|t| t.icon == TrayIcon::Working)
        })
        .await;

    let unknown = agent
        .hub
        .send(Command::CancelJob(JobId([6; 16])))
        .await
        .unwrap_err();
    assert!(
        matches!(
            unknown,
            AskError::Refused {
                code: ErrorCode::UnknownJob,
                ..
            }
        ),
        "{unknown:?}"
    );
    agent.hub.send(Command::CancelJob(job)).await.unwrap();
    let nack = relay
        .until(|said| matches!(said, WorkerMessage::Nack { .. }))
        .await;
    assert!(
        matches!(
            nack,
            WorkerMessage::Nack {
                code: ErrorCode::Cancelled,
                ..
            }
        ),
        "{nack:?}"
    );
    relay
        .say(&RelayMessage::Closed {
            token: LeaseToken { job, attempt: 1 },
            code: None,
        })
        .await;
    agent
        .until(|status| status.status == Phase::Ready && status.jobs.is_empty())
        .await;
    let addr = agent.handle.http().unwrap();
    let host = format!("Host: {addr}\r\n");
    // The worker publishes its counters a moment later.
    let counted = async {
        loop {
            let (_, _, text) = text(addr, "GET /metrics", &host).await;
            if text.contains(r#"hearth_agent_jobs_ended_total{state="cancelled"} 1"#) {
                return text;
            }
        }
    };
    let text = soon(counted).await;
    for line in [
        r#"hearth_agent_jobs_ended_total{state="completed"} 0"#,
        "hearth_agent_running_jobs 0",
        "hearth_agent_relay_up 1",
        "hearth_agent_engine_up 1",
        "hearth_agent_paused 0",
        "hearth_agent_subscribers 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for secret in ["canary", "laptop", "m:1b", "test-key"] {
        assert!(!text.contains(secret), "{secret}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_job_that_runs_longer_than_the_owner_allows_ends_and_its_requester_is_told_why() {
    let stage = Stage::set().await;
    let answer = Answer::after(&Gate::default());
    stage.ollama.script("/api/chat", answer);
    let mut settings = stage.settings();
    settings.job_limit = Some(Duration::from_millis(1));
    let agent = Running::start(settings).await.unwrap();
    let mut relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;
    let job = JobId([8; 16]);
    relay.lease(job).await;
    // Its lease is renewed for as long as it runs, so each message comes soon, but not the end.
    let ended = |said: &_| matches!(said, WorkerMessage::End { .. } | WorkerMessage::Nack { .. });
    let end = soon(relay.until(ended)).await;
    let WorkerMessage::End {
        end: End::Failed { error },
        ..
    } = end
    else {
        panic!("{end:?}");
    };
    assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    assert!(error.message.contains("--job-limit"), "{}", error.message);
    let token = LeaseToken { job, attempt: 1 };
    relay.say(&RelayMessage::Closed { token, code: None }).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_engine_is_waited_for_as_long_as_the_owner_says_before_and_within_an_answer() {
    let stage = Stage::set().await;
    let gate = Gate::default();
    let mut settings = stage.settings();
    settings.engine_times.first_line = Duration::from_millis(50);
    settings.engine_times.next_line = Duration::from_millis(50);
    let agent = Running::start(settings).await.unwrap();
    let mut relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;
    let closed = |job| {
        let token = LeaseToken { job, attempt: 1 };
        RelayMessage::Closed { token, code: None }
    };
    let ended = |said: &_| matches!(said, WorkerMessage::End { .. } | WorkerMessage::Nack { .. });

    stage.ollama.script("/api/chat", Answer::after(&gate));
    let job = JobId([8; 16]);
    relay.lease(job).await;
    let nack = soon(relay.until(ended)).await;
    let WorkerMessage::Nack { code, .. } = nack else {
        panic!("{nack:?}");
    };
    assert_eq!(code, ErrorCode::EngineFailed);
    relay.say(&closed(job)).await;

    let line = json!({ "model": "m:1b", "message": {}, "done": false }).to_string();
    let answer = Answer::begin().send_lines([line.as_str()]);
    stage
        .ollama
        .script("/api/chat", answer.then_all(Answer::after(&gate)));
    let job = JobId([9; 16]);
    relay.lease(job).await;
    let end = soon(relay.until(ended)).await;
    let WorkerMessage::End {
        end: End::Failed { error },
        ..
    } = end
    else {
        panic!("{end:?}");
    };
    assert!(error.message.contains("it was silent"), "{}", error.message);
    relay.say(&closed(job)).await;
    agent.stop().await;
}

#[tokio::test]
async fn no_prompt_and_no_answer_is_in_any_frame_page_or_log_line() {
    let log = Log::of_all();
    let stage = Stage::set().await;
    let gate = Gate::default();
    let line = |text: &str, done: bool| {
        let message = json!({ "role": "assistant", "content": text });
        json!({ "model": "m:1b", "message": message, "done": done, "eval_count": 3 }).to_string()
    };
    let lines = [line("canary sings", false), line("", true)];
    let answer = Answer::lines(lines.iter().map(String::as_str));
    let script = Answer::after(&gate).then_all(answer);
    stage.ollama.script("/api/chat", script);
    let agent = Running::headless(stage.settings()).await.unwrap();
    let mut relay = Relay::accept(&stage.listener).await;
    agent.until(|status| status.status == Phase::Ready).await;
    let (hub, http) = (agent.handle.hub().addr, agent.handle.http().unwrap());
    let mut readers = [
        follow(hub, None).await,
        follow(hub, Some(&["status", "progress"])).await,
        events(http).await,
    ];
    let host = format!("Host: {http}\r\n");
    let page = async || text(http, "GET /api/status", &host).await.2;
    let metrics = async || text(http, "GET /metrics", &host).await.2;

    let job = JobId([7; 16]);
    relay.lease(job).await;
    agent.until(|status| status.status == Phase::Working).await;
    let mut said = vec![page().await, metrics().await];
    for reader in &mut readers {
        reader.until("laptop").await;
    }
    gate.open();
    relay
        .until(|said| matches!(said, WorkerMessage::End { .. }))
        .await;
    said.push(page().await);
    let token = LeaseToken { job, attempt: 1 };
    relay.say(&RelayMessage::Closed { token, code: None }).await;
    agent.until(|status| status.jobs.is_empty()).await;
    said.extend([page().await, metrics().await]);
    agent.stop().await;
    for reader in readers {
        said.push(reader.all().await);
    }
    let log = log.text();
    assert!(log.contains(r#"phase="working""#), "it was not logged");
    said.extend(log.lines().map(ToOwned::to_owned));
    for text in said {
        assert!(!text.contains("canary"), "{text}");
    }
}
