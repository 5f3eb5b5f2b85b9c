//! [`agent::Shell`] on Tauri. Every call is queued to the main thread and returns at once.

use std::sync::Arc;

use agent::{AgentHandle, Shell, Tray};
use parking_lot::{Mutex, MutexGuard};
use tauri::AppHandle;

use crate::{
    act_id, login, overlay,
    tray::{Painted, TrayError},
    view::{View, Views},
    window,
};

/// The desktop that the agent draws on.
#[derive(Clone)]
pub(crate) struct TauriShell {
    app: AppHandle,
    views: Views,
    desk: Arc<Mutex<Desk>>,
}

/// State that only the main thread uses.
#[derive(Default)]
struct Desk {
    tray: Option<Painted>,
    /// Creating the tray failed; it is not tried again.
    no_tray: bool,
    agent: Option<AgentHandle>,
}

impl TauriShell {
    pub(crate) fn new(app: AppHandle, views: Views) -> Self {
        Self {
            app,
            views,
            desk: Arc::default(),
        }
    }

    /// Sets the agent that receives clicks in the tray.
    pub(crate) fn attach(&self, agent: AgentHandle) {
        self.desk().agent = Some(agent);
    }

    /// The Tauri app.
    pub(crate) const fn app(&self) -> &AppHandle {
        &self.app
    }

    /// The agent, once it has started.
    pub(crate) fn agent(&self) -> Option<AgentHandle> {
        self.desk().agent.clone()
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock()
    }

    /// Runs `call` on the main thread, after earlier calls.
    fn queue(
        &self,
        what: &'static str,
        call: impl FnOnce(&Self) -> anyhow::Result<()> + Send + 'static,
    ) {
        let shell = self.clone();
        let queued = self.app.run_on_main_thread(move || {
            if let Err(error) = call(&shell) {
                tracing::error!("{what}: {error:#}");
            }
        });
        if let Err(error) = queued {
            tracing::warn!(%error, "{what}: the desktop is closing");
        }
    }

    fn paint(&self, tray: Tray) -> anyhow::Result<()> {
        let mut desk = self.desk();
        if let Some(painted) = &mut desk.tray {
            painted.paint(&self.app, tray)?;
        } else if !desk.no_tray {
            let shell = self.clone();
            match Painted::new(&self.app, tray, move |_, id| shell.clicked(id)) {
                Ok(painted) => desk.tray = Some(painted),
                Err(error) => {
                    desk.no_tray = true;
                    drop(desk);
                    self.do_without_tray(&error)?;
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Opens the window: without a tray it is the only access to the app.
    fn do_without_tray(&self, error: &TrayError) -> tauri::Result<()> {
        self.views
            .update(|view| view.no_tray = Some(error.to_string()));
        window::open(&self.app)
    }

    fn clicked(&self, id: &str) {
        let Some(act) = act_id::act(id) else { return };
        self.queue("a check mark", |shell| {
            shell
                .desk()
                .tray
                .as_ref()
                .map_or(Ok(()), Painted::restore_marks)?;
            Ok(())
        });
        if let Some(agent) = self.agent() {
            agent.act(act);
        }
    }
}

impl Shell for TauriShell {
    fn set_tray(&mut self, tray: Tray) {
        self.queue("the tray", move |shell| shell.paint(tray));
    }

    fn show_overlay(&mut self, visible: bool) {
        self.queue("the overlay", move |shell| {
            if visible {
                overlay::show(&shell.app)?
            } else {
                overlay::hide(&shell.app)?
            }
            Ok(())
        });
    }

    fn open_window(&mut self) {
        self.queue("the window", |shell| Ok(window::open(&shell.app)?));
    }

    fn open_settings(&mut self) {
        self.queue("the settings", |shell| {
            window::open(&shell.app)?;
            shell.views.update(View::go_to_settings);
            Ok(())
        });
    }

    fn set_autostart(&mut self, on: bool) -> Result<(), String> {
        login::set(&self.app, on)?;
        self.views.update(|view| {
            view.autostart = on;
            view.refused = None;
        });
        Ok(())
    }

    fn autostart(&self) -> bool {
        login::is_set(&self.app)
    }

    fn refuse(&mut self, problem: &str) {
        self.views
            .update(|view| view.refused = Some(problem.to_owned()));
        self.open_window();
    }

    /// Does nothing: the program ends with an exit code when `Agent::run` returns.
    fn quit(&mut self) {}
}
