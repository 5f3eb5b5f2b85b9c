//! The app under test, with its processes and its hub.

use std::{fs, path::Path};

use hearth_tests::process::{PATIENCE, Process, binary};
use proto::status::{Command as Ask, Status};
use status::{HubAddress, Link, Places, Subscriber, SubscriberHandle};
use tokio::{process::Command, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{poll::until, session::DesktopSession, tray::Tray};

/// No relay, and an engine that is not running: the app must be usable nevertheless.
pub(crate) const ARGS: [&str; 6] = [
    "--status-port",
    "0",
    "--http-port",
    "0",
    "--engine",
    "ollama:http://127.0.0.1:1",
];

/// The overlay's text with [`ARGS`].
pub(crate) const AT_REST: &str = "No relay set up";

/// The desktop's colour scheme.
#[derive(Clone, Copy)]
pub(crate) enum Look {
    Light,
    Dark,
}

impl Look {
    pub(crate) const fn theme(self) -> &'static str {
        match self {
            Self::Light => "Adwaita",
            Self::Dark => "Adwaita:dark",
        }
    }
}

/// A running app.
pub(crate) struct App {
    home: String,
    hub: HubAddress,
    /// The process, unless a browser test's driver started it.
    process: Option<Process>,
}

impl App {
    /// Starts the app and waits until its hub is reachable.
    pub(crate) async fn start(session: &DesktopSession, look: Look) -> Self {
        let process = Self::spawn(session, look);
        Self::of(session, process).await
    }

    /// Starts the app with this command and waits until its hub is reachable.
    pub(crate) async fn begin(session: &DesktopSession, command: Command) -> Self {
        Self::of(session, Process::start("hearth-desktop", command)).await
    }

    async fn of(session: &DesktopSession, process: Process) -> Self {
        Self {
            process: Some(process),
            ..Self::running(session).await
        }
    }

    /// Starts the app.
    pub(crate) fn spawn(session: &DesktopSession, look: Look) -> Process {
        let mut command = session.command(binary("hearth-desktop"));
        command.args(ARGS).env("GTK_THEME", look.theme());
        Process::start("hearth-desktop", command)
    }

    /// The app that is running on this desk.
    pub(crate) async fn running(session: &DesktopSession) -> Self {
        let folder = session.home.path().join("data/hearth");
        let hub = until("a status hub", async || HubAddress::find(&folder)).await;
        Self {
            home: format!("HOME={}", session.home.path().display()),
            hub,
            process: None,
        }
    }

    /// The address of its hub.
    pub(crate) const fn hub_addr(&self) -> std::net::SocketAddr {
        self.hub.addr
    }

    /// A client of its hub, with the owner's token.
    pub(crate) fn hub(&self) -> Hub {
        let (subscriber, handle) = Subscriber::new(Places::At(self.hub.clone()));
        let mut tasks = JoinSet::new();
        tasks.spawn(subscriber.run(CancellationToken::new()));
        Hub {
            handle,
            _tasks: tasks,
        }
    }

    /// All of its processes, recognized by their home folder.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        let own = |folder: fs::DirEntry| {
            let id = folder.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(folder.path().join("comm"))
                .ok()?
                .trim()
                .to_owned();
            let ours = name == "hearth-desktop" || name.starts_with("WebKit");
            let driver = name.starts_with("WebKitWebDriver");
            (ours && !driver && self.is_own(&folder.path())).then_some((id, name))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(own)
            .collect()
    }

    fn is_own(&self, process: &Path) -> bool {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == self.home.as_bytes())
    }

    /// Waits until this many web processes are running.
    pub(crate) async fn until_pages(&self, count: usize) {
        until(&format!("{count} web processes"), async || {
            let processes = self.processes();
            let pages = processes
                .iter()
                .filter(|(_, name)| name.starts_with("WebKitWebProc"));
            (pages.count() == count).then_some(())
        })
        .await;
    }

    /// Stops it over the hub, and waits.
    pub(crate) async fn quit(self) {
        let hub = self.hub();
        hub.until(|_| true).await;
        // The hub may close before it has answered.
        let _ = hub.handle.send(Ask::Quit).await;
        self.ended().await;
    }

    /// Stops it in the tray, and waits.
    pub(crate) async fn quit_over(self, tray: &Tray) {
        tray.click("Quit").await;
        self.ended().await;
    }

    /// Waits until none of its processes is left.
    pub(crate) async fn ended(mut self) {
        if let Some(process) = &mut self.process {
            let status = process.wait().await;
            assert!(status.success(), "{status}\n{}", process.log());
        }
        until("the end of all its processes", async || {
            self.processes().is_empty().then_some(())
        })
        .await;
    }
}

/// A client of the status hub.
pub(crate) struct Hub {
    handle: SubscriberHandle,
    _tasks: JoinSet<()>,
}

impl Hub {
    /// Sends a command, which must succeed.
    pub(crate) async fn send(&self, command: Ask) {
        self.until(|_| true).await;
        self.handle.send(command).await.unwrap();
    }

    /// Waits for a status that matches.
    pub(crate) async fn until(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        let is_so = |link: &Link| matches!(link, Link::Live(status) if wanted(status));
        let mut link = self.handle.link();
        match timeout(PATIENCE, link.wait_for(is_so)).await {
            Ok(Ok(link)) => match &*link {
                Link::Live(status) => Status::clone(status),
                Link::Stale { .. } | Link::Lost { .. } => {
                    unreachable!("a live link was waited for")
                }
            },
            Ok(Err(_)) | Err(_) => panic!("never so: {:?}", *self.handle.link().borrow()),
        }
    }

    /// Waits until there is no hub.
    pub(crate) async fn until_lost(&self) {
        let mut link = self.handle.link();
        let lost = link.wait_for(|link| matches!(link, Link::Lost { .. }));
        timeout(PATIENCE, lost)
            .await
            .expect("the hub goes away")
            .expect("a follower");
    }
}
