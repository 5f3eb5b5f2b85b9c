//! Every command acts and is answered: from the hub, from the tray, and from the program.

use hearth_agent::{Args, Folders, Settings, TrayAct, TrayItem};
use proto::{
    ErrorCode,
    status::{Command, CommandArgs, HopState, Phase},
};
use status::{AskError, HubAddress, Link, request};
use tests::scripted_ollama::ScriptedOllama;

use crate::support::{Running, settings, soon, with_engine};

async fn agent(home: &std::path::Path) -> Running {
    let ollama = ScriptedOllama::start().await.unwrap();
    Running::start(settings(home, with_engine(&ollama)))
        .await
        .unwrap()
}

#[tokio::test]
async fn without_a_relay_the_agent_runs_and_says_so() {
    let home = tempfile::tempdir().unwrap();
    let agent = agent(home.path()).await;
    let status = agent.until(|_| true).await;
    assert_eq!(status.status, Phase::RelayOffline);
    assert_eq!(status.relay.name, "not configured");
    assert_eq!(status.engine.state, HopState::Up, "{:?}", status.engine);
    agent.stop().await;
}

#[tokio::test]
async fn the_overlay_is_shown_and_hidden_and_stays_so_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let mut running = agent(home.path()).await;
    for (command, visible) in [
        (Command::HideOverlay, false),
        (Command::ShowOverlay, true),
        (Command::ToggleOverlay, false),
    ] {
        running.hub.send(command).await.unwrap();
        running
            .until(|status| status.overlay_visible == visible)
            .await;
    }
    let seen = running.shell(|seen| seen.overlay.len() == 4).await;
    assert_eq!(seen.overlay, [true, false, true, false]);
    running.stop().await;

    let mut again = agent(home.path()).await;
    assert_eq!(
        again.shell(|seen| !seen.overlay.is_empty()).await.overlay,
        [false]
    );
    assert!(!again.until(|_| true).await.overlay_visible);
    again.stop().await;
}

#[tokio::test]
async fn a_voice_command_with_nobody_speaking_and_an_unknown_job_are_answered_as_errors() {
    let home = tempfile::tempdir().unwrap();
    let agent = agent(home.path()).await;
    for command in [Command::StopTts, Command::SetVolume(30)] {
        let refused = agent.hub.send(command).await.unwrap_err();
        assert!(matches!(
            refused,
            AskError::Refused {
                code: ErrorCode::NothingToDo,
                ..
            }
        ));
    }
    let cancel = Command::CancelJob(proto::JobId([1; 16]));
    let refused = agent.hub.send(cancel).await.unwrap_err();
    assert!(matches!(
        refused,
        AskError::Refused {
            code: ErrorCode::UnknownJob,
            ..
        }
    ));
    agent.stop().await;
}

/// All commands of docs/PROTOCOL.md, as they go over the wire.
#[tokio::test]
async fn every_command_does_what_it_says_and_is_answered() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = agent(home.path()).await;
    let at = agent.handle.hub();
    let on = |on| CommandArgs {
        on: Some(on),
        ..CommandArgs::default()
    };
    let none = CommandArgs::default;
    for (word, args, monitoring) in [
        ("toggle_monitoring", none(), false),
        ("set_monitoring", on(true), true),
        ("set_monitoring", on(true), true),
        ("set_monitoring", on(false), false),
        ("toggle_monitoring", none(), true),
    ] {
        request(&at, word, args).await.unwrap();
        // The answer comes after the change.
        let shown = agent.until(|status| status.monitoring == monitoring).await;
        assert_eq!(shown.status == Phase::Paused, !monitoring);
    }
    for (word, visible) in [
        ("hide_overlay", false),
        ("toggle_overlay", true),
        ("toggle_overlay", false),
        ("show_overlay", true),
    ] {
        request(&at, word, none()).await.unwrap();
        agent
            .until(|status| status.overlay_visible == visible)
            .await;
    }
    let seen = agent.shell(|seen| seen.overlay.len() == 5).await;
    assert_eq!(seen.overlay, [true, false, true, false, true]);
    request(&at, "open_settings", none()).await.unwrap();
    agent.shell(|seen| seen.settings == 1).await;
    let pong = request(&at, "ping", none()).await.unwrap();
    assert!(pong["seq"].is_u64() && pong["time"].is_i64(), "{pong}");
    let volume = CommandArgs {
        volume: Some(30),
        ..none()
    };
    let job = CommandArgs {
        job: Some(proto::JobId([1; 16])),
        ..none()
    };
    for (word, args, why) in [
        ("stop_tts", none(), ErrorCode::NothingToDo),
        ("set_volume", volume, ErrorCode::NothingToDo),
        ("cancel_job", job, ErrorCode::UnknownJob),
        ("cancel_job", none(), ErrorCode::BadRequest),
        ("dance", none(), ErrorCode::UnknownCommand),
    ] {
        let refused = request(&at, word, args).await.unwrap_err();
        let AskError::Refused { code, message } = refused else {
            panic!("{word}: {refused}")
        };
        assert_eq!(code, why, "{word}");
        assert!(!message.is_empty());
    }
    request(&at, "quit", none()).await.unwrap();
    agent.shell(|seen| seen.quits == 1).await;
    agent.ended().await;
}

#[tokio::test]
async fn open_settings_opens_the_window_at_its_settings_and_the_tray_opens_the_window() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = agent(home.path()).await;
    agent.hub.send(Command::OpenSettings).await.unwrap();
    let seen = agent.shell(|seen| seen.settings == 1).await;
    assert_eq!(seen.windows, 0);
    agent.handle.act(TrayAct::OpenWindow);
    let seen = agent.shell(|seen| seen.windows == 1).await;
    assert_eq!(seen.settings, 1);
    agent.stop().await;
}

#[tokio::test]
async fn clicks_in_the_tray_do_what_they_say() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = agent(home.path()).await;
    agent
        .handle
        .act(TrayAct::Command(Command::ToggleMonitoring));
    agent.until(|status| status.status == Phase::Paused).await;
    agent.handle.act(TrayAct::ToggleAutostart);
    let is_ticked = |item: &TrayItem| {
        matches!(
            item,
            TrayItem::Check {
                act: TrayAct::ToggleAutostart,
                checked: true,
                ..
            }
        )
    };
    let seen = agent
        .shell(|seen| seen.trays.last().unwrap().items.iter().any(is_ticked))
        .await;
    assert!(seen.autostart);
    agent.stop().await;
}

#[tokio::test]
async fn a_start_at_login_that_is_refused_in_the_tray_is_explained_to_the_owner() {
    let home = tempfile::tempdir().unwrap();
    let args = Args {
        engine: Some("openai:http://127.0.0.1:1/v1".into()),
        status_port: Some(0),
        http_port: Some(0),
        ..Args::default()
    };
    let find = |name: &str| (name == "HEARTH_ENGINE_KEY").then(|| "hunter2".to_owned());
    let settings = Settings::resolve(args, &find, Folders::below(home.path())).unwrap();
    let mut agent = Running::start(settings).await.unwrap();
    agent.handle.act(TrayAct::ToggleAutostart);
    let seen = agent.shell(|seen| !seen.refused.is_empty()).await;
    assert!(seen.refused[0].contains("HEARTH_ENGINE_KEY"), "{seen:?}");
    assert!(!seen.refused[0].contains("hunter2"));
    assert!(!seen.autostart);
    agent.stop().await;
}

#[tokio::test]
async fn quit_is_answered_then_said_on_the_hub_and_then_done() {
    let home = tempfile::tempdir().unwrap();
    let mut agent = agent(home.path()).await;
    let data = home.path().join("data");
    assert_eq!(HubAddress::find(&data), Some(agent.handle.hub()));
    agent.until(|_| true).await;

    assert_eq!(agent.hub.send(Command::Quit).await, Ok(()));
    let mut link = agent.hub.link();
    let lost = soon(async {
        link.wait_for(|link| matches!(link, Link::Lost { .. }))
            .await
            .unwrap()
            .clone()
    });
    let Link::Lost {
        last: Some(last), ..
    } = lost.await
    else {
        panic!("nothing was seen")
    };
    assert_eq!(last.status, Phase::Stopping);
    agent.shell(|seen| seen.quits == 1).await;
    assert_eq!(HubAddress::find(&data), None);
    let handle = agent.handle.clone();
    agent.ended().await;
    let late = handle.command(Command::ShowOverlay).await.unwrap_err();
    assert_eq!(late.0, ErrorCode::Draining);
}

#[tokio::test]
async fn an_engine_that_does_not_answer_is_named_as_down() {
    let home = tempfile::tempdir().unwrap();
    let mut ollama = ScriptedOllama::start().await.unwrap();
    let args = with_engine(&ollama);
    ollama.go_down().await;
    let agent = Running::start(settings(home.path(), args)).await.unwrap();
    let status = agent
        .until(|status| status.engine.state == HopState::Down)
        .await;
    assert!(status.engine.name.contains("ollama"), "{:?}", status.engine);
    assert!(!status.engine.problem.is_empty());
    agent.stop().await;
}
