//! The life cycle of the program: one event loop for the desktop, one runtime for all other tasks.

use std::{process::ExitCode, time::Duration};

use agent::{Agent, Settings, Shell as _};
use anyhow::Context as _;
use status::{Places, Subscriber};
use tauri::{App, AppHandle, Manager as _, RunEvent};
use tokio::{runtime::Runtime, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[cfg(target_os = "linux")]
use crate::notices::{self, Clicked};
use crate::{commands, login, shell::TauriShell, signal, view::Views};

/// Maximum time for the tasks to end after the event loop.
const PATIENCE: Duration = Duration::from_secs(3);

/// The tasks besides the event loop.
#[derive(Clone)]
struct Beside {
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Runs until the owner quits.
pub(crate) fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new().context("the runtime threads cannot be started")?;
    tauri::async_runtime::set(runtime.handle().clone());
    let beside = Beside {
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    let app = build(settings, beside.clone())?;
    let code = app.run_return(|_, event| {
        // The program stays in the tray after its last window is closed.
        if let RunEvent::ExitRequested {
            code: None, api, ..
        } = event
        {
            api.prevent_exit();
        }
    });
    beside.stop.cancel();
    beside.tasks.close();
    if runtime
        .block_on(async { timeout(PATIENCE, beside.tasks.wait()).await })
        .is_err()
    {
        tracing::warn!("some tasks of the app did not stop in time");
    }
    runtime.shutdown_background();
    Ok(u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn build(settings: Settings, beside: Beside) -> anyhow::Result<App> {
    // The first plugin, so that a second instance ends before it has any effect.
    let single = tauri_plugin_single_instance::init(|app, _, _| open_window(app));
    let builder = tauri::Builder::default().plugin(single);
    login::prepare(builder, settings.at_login.options.clone())
        .invoke_handler(tauri::generate_handler![
            commands::snapshot,
            commands::act,
            commands::set_autostart,
            commands::decide,
            commands::revoke
        ])
        .setup(move |app| {
            let app = app.handle().clone();
            let views = Views::default();
            let shell = TauriShell::new(app.clone(), views.clone());
            app.manage(views.clone());
            app.manage(shell.clone());
            let life = live(settings, shell, views, beside.clone());
            let run = async move {
                let code = match life.await {
                    Ok(()) => 0,
                    Err(error) => {
                        tracing::error!("{error:#}");
                        1
                    }
                };
                app.exit(code);
            };
            beside
                .tasks
                .spawn_on(run, tauri::async_runtime::handle().inner());
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("no desktop is available; use `hearth agent` instead")
}

/// Opens the window when the app is started a second time.
fn open_window(app: &AppHandle) {
    if let Some(shell) = app.try_state::<TauriShell>() {
        shell.inner().clone().open_window();
    }
}

/// Runs the agent, with the pages following its hub.
async fn live(
    settings: Settings,
    shell: TauriShell,
    views: Views,
    beside: Beside,
) -> anyhow::Result<()> {
    let (language, autostart) = (settings.language, shell.autostart());
    views.update(|view| {
        view.language = language.code();
        view.autostart = autostart;
    });
    let agent = Agent::start(settings, shell.clone()).await?;
    let handle = agent.handle();
    shell.attach(handle.clone());

    let Beside { stop, tasks } = beside;
    let (subscriber, hub) = Subscriber::new(Places::At(handle.hub()));
    tasks.spawn(subscriber.run(stop.clone()));
    let (followed, ended) = (views.clone(), stop.clone());
    tasks.spawn(async move { followed.follow(hub.link(), ended).await });
    let (asked, ended) = (views.clone(), stop.clone());
    let pairs = handle.approvals().pairs();
    tasks.spawn(async move { asked.watch(pairs, ended).await });
    #[cfg(target_os = "linux")]
    {
        let (shell, agent, pairs) = (shell.clone(), handle.clone(), handle.approvals().pairs());
        let clicked = move |clicked| match clicked {
            Clicked::Answer(act) => agent.act(act),
            Clicked::Open => shell.clone().open_window(),
        };
        tasks.spawn(notices::show(pairs, language, stop.clone(), clicked));
    }
    let (app, ended) = (shell.app().clone(), stop.clone());
    tasks.spawn(async move { views.tell(app, ended).await });
    tasks.spawn(async move {
        // The first signal lets running jobs finish; the second stops the agent at once.
        while stop.run_until_cancelled(signal::received()).await.is_some() {
            handle.stop();
        }
    });
    agent.run().await
}
