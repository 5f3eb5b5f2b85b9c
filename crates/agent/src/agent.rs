use std::{fs::File, sync::Arc, time::Duration};

use engine::Clock;
use proto::{
    ErrorCode, JobId,
    status::{Command, HopState, pair::Pairs},
};
use status::{Answer, Approvals, HubAddress, Request, StatusHub, VoiceActivity};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{JoinError, spawn_blocking},
};
use tokio_util::sync::CancellationToken;
use worker::{Activity, WorkerHandle};

#[cfg(target_os = "linux")]
use crate::waking;
use crate::{
    AgentHandle, AtLogin, Preferences, Settings, Shell, StartError, Tray, TrayAct,
    handle::Want,
    http,
    preferences::PreferencesFile,
    start::{HubServer, LocalHttp, Neighbour, Parts, Requests},
    tasks::{Ended, Part, Tasks},
    tray::tray,
    view::Known,
};

/// Maximum number of clicks in flight.
const WANTS: usize = 16;
/// Maximum time the servers may take to close their connections.
pub(crate) const FAREWELL: Duration = Duration::from_secs(3);

/// The whole program: worker, status hub, local HTTP server, and the owner's preferences.
pub struct Agent {
    shell: Box<dyn Shell>,
    hub: StatusHub,
    approvals: Approvals,
    /// Signals changes of the pending approvals and grants.
    pairs: watch::Receiver<Arc<Pairs>>,
    known: Known,
    preferences: PreferencesFile,
    worker: Option<WorkerHandle>,
    activity: watch::Receiver<Activity>,
    /// Signals changes of the fields that other programs publish.
    published: watch::Receiver<VoiceActivity>,
    requests: mpsc::Receiver<Request>,
    wants: mpsc::Receiver<Want>,
    handle: AgentHandle,
    tray: Option<Tray>,
    autostart: bool,
    at_login: AtLogin,
    tasks: Tasks,
    _lock: File,
}

/// The events of the agent.
enum Tick {
    Activity,
    Published,
    Paired,
    Asked(Request),
    Wanted(Want),
    Ended(Result<Ended, JoinError>),
    Stop,
    StopNow,
}

impl Agent {
    /// Starts every part but serves nothing yet: call [`Agent::run`].
    ///
    /// # Errors
    /// [`StartError`] names the obstacle.
    pub async fn start(settings: Settings, shell: impl Shell) -> Result<Self, StartError> {
        let at_login = settings.at_login.clone();
        let parts = Parts::bring_up(settings).await?;
        let (wants_in, wants) = mpsc::channel(WANTS);
        let Requests { sender, receiver } = parts.requests;
        let handle = AgentHandle {
            requests: sender,
            wants: wants_in,
            approvals: parts.approvals.clone(),
            hub: parts.hub_at,
            http: parts.http.as_ref().map(|http| http.addr),
            stop: CancellationToken::new(),
            stop_now: CancellationToken::new(),
        };
        let mut tasks = Tasks::default();
        let HubServer { server, listener } = parts.hub_server;
        let subscribers = server.connected();
        let serving = server.serve(listener, tasks.serve.clone());
        tasks.try_run(Part::Hub, async { serving.await.map_err(Into::into) });
        if let Some(LocalHttp {
            access, listener, ..
        }) = parts.http
        {
            let (limits, stop) = (http::Limits::default(), tasks.serve.clone());
            let clock = Clock::default();
            let events = http::Events::new(parts.hub.clone(), clock, limits, stop.clone());
            let metrics = http::Metrics {
                activity: parts.activity.clone(),
                subscribers,
            };
            let router = http::router(parts.hub.clone(), access, events, metrics);
            tasks.run(Part::Http, http::serve(listener, router, limits, stop));
        }
        if let Some(Neighbour { name, ports }) = parts.neighbour {
            tracing::info!(%name, "another assistant holds the hub's port; its status is merged");
            let (hub, stop) = (parts.hub.clone(), tasks.serve.clone());
            let merging = status::follow_neighbour(hub, ports, name, status::port_user, stop);
            tasks.run(Part::Neighbour, merging);
        }
        let worker = parts.worker.map(|(worker, handle)| {
            tasks.try_run(Part::Worker, worker.run(tasks.work.clone()));
            handle
        });
        if let Some(watch) = parts.engine_watch {
            tasks.run_until_stop(Part::Engine, watch.run());
        }
        #[cfg(target_os = "linux")]
        if let Some(worker) = worker.clone() {
            let bus = parts.system_bus;
            tasks.run_until_stop(Part::Waking, async move {
                waking::follow(bus.as_deref(), || worker.wake()).await;
                // Without wake-up signals the agent runs on.
                std::future::pending().await
            });
        }
        Ok(Self {
            autostart: shell.autostart(),
            at_login,
            shell: Box::new(shell),
            published: parts.hub.voice(),
            hub: parts.hub,
            pairs: parts.approvals.pairs(),
            approvals: parts.approvals,
            known: parts.known,
            preferences: parts.preferences,
            worker,
            activity: parts.activity,
            requests: receiver,
            wants,
            handle,
            tray: None,
            tasks,
            _lock: parts.lock,
        })
    }

    /// A handle to this agent.
    #[must_use]
    pub fn handle(&self) -> AgentHandle {
        self.handle.clone()
    }

    /// Runs until it is asked to stop; then lets the worker drain, closes the hub's connections,
    /// and ends the shell.
    ///
    /// # Errors
    /// If a part failed; the others are stopped first.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.shell
            .show_overlay(self.known.preferences.overlay_visible);
        self.show();
        let outcome = loop {
            match self.tick().await {
                Tick::Activity => {
                    self.known.activity = self.activity.borrow_and_update().clone();
                    self.show();
                }
                Tick::Asked(Request {
                    command: command @ (Command::StopTts | Command::SetVolume(_)),
                    answer,
                }) => self.hub.pass_on(command, answer),
                Tick::Published | Tick::Paired => self.show(),
                Tick::Asked(Request { command, answer }) => {
                    // The client may be gone; the command counts all the same.
                    let _ = answer.send(self.carry_out(command).await);
                    self.end_if(command);
                }
                Tick::Wanted(Want::Act(act)) => self.click(act).await,
                Tick::Wanted(Want::Autostart(on, answer)) => {
                    // The window may be closed by now; the change counts all the same.
                    let _ = answer.send(self.set_autostart(on));
                }
                Tick::Stop => {
                    self.known.stopping = true;
                    self.show();
                    self.tasks.work.cancel();
                    if self.worker.is_none() {
                        break Ok(());
                    }
                }
                Tick::Ended(Ok((Part::Worker, Ok(())))) if self.known.stopping => break Ok(()),
                Tick::Ended(Ok((part, ended))) => {
                    let early = anyhow::anyhow!("{part:?} ended unexpectedly");
                    break Err(ended.err().unwrap_or(early));
                }
                Tick::Ended(Err(error)) => break Err(error.into()),
                Tick::StopNow => break Ok(()),
            }
        };
        self.farewell().await;
        outcome
    }

    async fn tick(&mut self) -> Tick {
        tokio::select! {
            biased;
            () = self.handle.stop_now.cancelled() => Tick::StopNow,
            () = self.handle.stop.cancelled(), if !self.known.stopping => Tick::Stop,
            Some(ended) = self.tasks.next() => Tick::Ended(ended),
            Some(request) = self.requests.recv() => Tick::Asked(request),
            Some(want) = self.wants.recv() => Tick::Wanted(want),
            Ok(()) = self.published.changed() => Tick::Published,
            Ok(()) = self.pairs.changed() => Tick::Paired,
            // Without a worker and with the built-in engine the sender is gone, which disables this
            // branch.
            Ok(()) = self.activity.changed() => Tick::Activity,
        }
    }

    /// Publishes the status and the tray where they changed.
    fn show(&mut self) {
        self.known.voice = *self.published.borrow_and_update();
        let known = &self.known;
        self.hub.update(|status| *status = known.status(status));
        let pairs = self.pairs.borrow_and_update().clone();
        let latest = self.hub.latest();
        let new = tray(
            latest.status(),
            &pairs.waiting,
            known.language,
            self.autostart,
        );
        if self.tray.as_ref() != Some(&new) {
            self.tray = Some(new.clone());
            self.shell.set_tray(new);
        }
    }

    async fn click(&mut self, act: TrayAct) {
        match act {
            TrayAct::Command(command) => {
                if let Err((code, message)) = self.carry_out(command).await {
                    tracing::warn!(%code, command = command.as_str(), "{message}");
                }
                self.end_if(command);
            }
            TrayAct::OpenWindow => self.shell.open_window(),
            TrayAct::ToggleAutostart => {
                if let Err(problem) = self.set_autostart(!self.shell.autostart()) {
                    tracing::warn!("start at login was not changed: {problem}");
                    // The check mark in the menu jumps back, so the owner needs the reason; nobody
                    // reads the log.
                    self.shell.refuse(&problem);
                }
            }
            TrayAct::Approve { approval, consent } => {
                log(self.approvals.approve(&approval.to_string(), consent).await);
            }
            TrayAct::Deny { approval } => log(self.approvals.deny(&approval.to_string())),
        }
    }

    /// The key file is written first and removed last: the autostart entry needs it.
    fn set_autostart(&mut self, on: bool) -> Result<(), String> {
        let set = if on {
            self.at_login
                .check_possible()
                .and_then(|()| self.at_login.keep_key())
                .and_then(|()| self.shell.set_autostart(true))
        } else {
            self.shell.set_autostart(false)
        };
        self.autostart = self.shell.autostart();
        if !self.autostart {
            self.at_login.forget_key();
        }
        self.show();
        set
    }

    async fn carry_out(&mut self, command: Command) -> Answer {
        let now = self.known.preferences;
        let overlay = |overlay_visible| Preferences {
            overlay_visible,
            ..now
        };
        let paused = |paused| Preferences { paused, ..now };
        match command {
            Command::ToggleMonitoring => self.wish(paused(!now.paused)).await,
            Command::SetMonitoring(on) => self.wish(paused(!on)).await,
            Command::ShowOverlay => self.wish(overlay(true)).await,
            Command::HideOverlay => self.wish(overlay(false)).await,
            Command::ToggleOverlay => self.wish(overlay(!now.overlay_visible)).await,
            Command::StopTts | Command::SetVolume(_) => {
                let (sender, mut answer) = oneshot::channel();
                self.hub.pass_on(command, sender);
                // A click in the tray waits for no result; the status shows it.
                answer.try_recv().unwrap_or(Ok(()))
            }
            Command::CancelJob(job) => self.cancel(job),
            Command::OpenSettings if self.shell.has_window() => {
                self.shell.open_settings();
                Ok(())
            }
            Command::OpenSettings => Err((
                ErrorCode::NothingToDo,
                "this agent has no window".to_owned(),
            )),
            Command::Quit => Ok(()),
        }
    }

    /// Applies a preference of the owner, publishes it, and then saves it.
    async fn wish(&mut self, preferences: Preferences) -> Answer {
        let before = std::mem::replace(&mut self.known.preferences, preferences);
        if let Some(worker) = &self.worker {
            worker.set_paused(preferences.paused);
        }
        if before.overlay_visible != preferences.overlay_visible {
            self.shell.show_overlay(preferences.overlay_visible);
        }
        self.show();
        if before == preferences {
            return Ok(());
        }
        let file = self.preferences.clone();
        let saved = spawn_blocking(move || file.save(preferences))
            .await
            .map_err(Into::into);
        saved.and_then(|saved| saved).map_err(|error| {
            let message = format!(
                "done, but it is lost at the next start because it cannot be saved: {error}"
            );
            (ErrorCode::StoreUnavailable, message)
        })
    }

    fn cancel(&self, job: JobId) -> Answer {
        match &self.worker {
            Some(worker) if worker.cancel_job(job) => Ok(()),
            Some(_) | None => Err((
                ErrorCode::UnknownJob,
                format!("job {job} is not running here"),
            )),
        }
    }

    /// Carries out `quit` after it has been answered.
    fn end_if(&self, command: Command) {
        if command == Command::Quit {
            self.handle.stop();
        }
    }

    async fn farewell(mut self) {
        self.known.stopping = true;
        self.known.activity.relay.state = HopState::Unknown;
        self.show();
        if !self.tasks.stop(FAREWELL).await {
            tracing::warn!("some tasks of the agent did not stop in time");
        }
        if let Some(folder) = self.handle.hub.token.parent() {
            HubAddress::withdraw(folder);
        }
        self.shell.quit();
    }
}

/// Logs the failure of a click, which has no other place for it.
fn log(answer: Answer) {
    if let Err((code, message)) = answer {
        tracing::warn!(%code, "{message}");
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agent at {}", self.handle.hub.addr)
    }
}
