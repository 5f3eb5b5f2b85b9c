//! Obstacles to a start, and the choice of engine and ports.

use std::time::Duration;

use hearth_agent::{Args, Folders, Settings, StartError};
use proto::status::HopState;
use tests::scripted_ollama::ScriptedOllama;
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use crate::support::{Running, settings, soon, text, with_engine};

#[tokio::test]
async fn beside_another_assistant_the_hub_takes_the_next_port_merges_it_and_stays_there() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut settings = settings(home.path(), with_engine(&ollama));
    settings.status_ports = vec![port, 0];
    let agent = Running::start(settings).await.unwrap();
    let own = agent.handle.hub().addr;
    assert_ne!(own.port(), port);
    let (stream, _) = soon(taken.accept()).await.unwrap();
    let mut peer = soon(tokio_tungstenite::accept_async(stream)).await.unwrap();
    let says = r#"{"type":"status","data":{"status":"Listening...","is_listening":true}}"#;
    let says = tokio_tungstenite::tungstenite::Message::text(says);
    soon(futures_util::SinkExt::send(&mut peer, says))
        .await
        .unwrap();
    let shown = agent.until(|status| status.is_listening).await;
    let origin = shown.publishers[0].origin.clone();
    assert_eq!(origin, Some(format!("127.0.0.1:{port}")));
    assert_eq!(
        shown.relay.name, "not configured",
        "for the relay it does not answer"
    );
    drop(peer);
    drop(taken);
    let shown = agent.until(|status| status.publishers.is_empty()).await;
    assert!(!shown.is_listening);
    assert_eq!(agent.handle.hub().addr, own);
    agent.stop().await;
}

#[tokio::test]
async fn another_assistant_is_read_over_http_where_it_holds_every_port_of_that() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let hub = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
    let mut settings = settings(home.path(), with_engine(&ollama));
    settings.status_ports = vec![port(&hub), 0];
    settings.http_ports = vec![port(&first), port(&second)];
    let agent = Running::start(settings).await.unwrap();
    assert_eq!(agent.handle.http(), None);
    drop(hub);
    let says = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
        data: {\"status\":\"listening\",\"is_speaking\":false,\"wake_word_detected\":true}\n\n";
    let mut held = Vec::new();
    let answering = async {
        loop {
            let (mut stream, _) = first.accept().await.unwrap();
            stream.write_all(says.as_bytes()).await.unwrap();
            held.push(stream);
        }
    };
    let shown = agent.until(|status| status.wake_word_detected);
    let shown = tokio::select! {
        shown = shown => shown,
        () = answering => unreachable!("it answers for ever"),
    };
    assert!(shown.publishers[0].origin.is_some());
    agent.stop().await;
}

#[tokio::test]
async fn without_a_relay_an_engine_that_comes_or_goes_is_shown_too() {
    let home = tempfile::tempdir().unwrap();
    let mut ollama = ScriptedOllama::start().await.unwrap();
    ollama.go_down().await;
    let mut settings = settings(home.path(), with_engine(&ollama));
    settings.engine_look = Duration::from_millis(20);
    let agent = Running::start(settings).await.unwrap();
    let engine = async |state| agent.until(|status| status.engine.state == state).await;
    assert!(!engine(HopState::Down).await.engine.problem.is_empty());
    let addr = agent.handle.http().unwrap();
    for (state, figure) in [(HopState::Up, 1), (HopState::Down, 0)] {
        match state {
            HopState::Up => ollama.come_back().await.unwrap(),
            HopState::Down | HopState::Unknown => ollama.go_down().await,
        }
        engine(state).await;
        let host = format!("Host: {addr}\r\n");
        let (_, _, metrics) = text(addr, "GET /metrics", &host).await;
        let line = format!("hearth_agent_engine_up {figure}");
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
    agent.stop().await;
}

#[tokio::test]
async fn a_second_agent_of_the_same_user_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let first = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let second = Running::start(settings(home.path(), with_engine(&ollama))).await;
    let Err(error) = second else {
        panic!("it started twice")
    };
    assert!(matches!(error, StartError::Running(_)), "{error}");
    first.stop().await;
    let third = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    third.stop().await;
}

#[tokio::test]
async fn a_named_port_that_is_taken_is_an_error_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    for (args, option) in [
        (
            Args {
                status_port: Some(port),
                ..with_engine(&ollama)
            },
            "--status-port",
        ),
        (
            Args {
                http_port: Some(port),
                ..with_engine(&ollama)
            },
            "--http-port",
        ),
    ] {
        let Err(error) = Running::start(settings(home.path(), args)).await else {
            panic!("the port was free")
        };
        let said = error.to_string();
        assert!(
            said.contains(&port.to_string()) && said.contains(option),
            "{said}"
        );
    }
}

#[tokio::test]
async fn auto_takes_an_ollama_that_answers() {
    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let url = ollama.url();
    let env = |name: &str| (name == "OLLAMA_HOST").then(|| url.clone());
    let args = Args {
        status_port: Some(0),
        http_port: Some(0),
        ..Args::default()
    };
    let settings = Settings::resolve(args, &env, Folders::below(home.path())).unwrap();
    let agent = Running::start(settings).await.unwrap();
    let engine = agent.until(|_| true).await.engine;
    assert_eq!(
        (engine.name, engine.state),
        (format!("ollama at {url}"), HopState::Up)
    );
    agent.stop().await;
}

#[tokio::test]
async fn auto_without_ollama_and_without_a_model_runs_and_says_that_the_engine_is_down() {
    let home = tempfile::tempdir().unwrap();
    let mut ollama = ScriptedOllama::start().await.unwrap();
    let url = ollama.url();
    ollama.go_down().await;
    let env = |name: &str| (name == "OLLAMA_HOST").then(|| url.clone());
    let args = Args {
        status_port: Some(0),
        http_port: Some(0),
        ..Args::default()
    };
    let settings = Settings::resolve(args, &env, Folders::below(home.path())).unwrap();
    let agent = Running::start(settings).await.unwrap();
    let engine = agent.until(|_| true).await.engine;
    assert_eq!(engine.state, HopState::Down, "{engine:?}");
    agent.stop().await;
}

#[tokio::test]
async fn a_named_model_file_that_is_missing_stops_the_start() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("no.gguf");
    let args = Args {
        engine: Some(format!("builtin:{}", path.display())),
        ..Args::default()
    };
    let Err(error) = Running::start(settings(home.path(), args)).await else {
        panic!("it started without a model")
    };
    assert!(
        matches!(&error, StartError::Engine(said) if said.contains("no.gguf")),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn the_data_folder_and_its_token_are_the_owners_alone() {
    use std::os::unix::fs::MetadataExt as _;

    let home = tempfile::tempdir().unwrap();
    let ollama = ScriptedOllama::start().await.unwrap();
    let agent = Running::start(settings(home.path(), with_engine(&ollama)))
        .await
        .unwrap();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    let token = agent.handle.hub().token;
    assert_eq!(mode(&token), 0o600);
    let data = token.parent().unwrap();
    assert_eq!(mode(data), 0o700);
    assert_eq!(mode(&data.join("hub.json")), 0o600);
    agent.stop().await;
}
