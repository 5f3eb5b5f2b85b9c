//! A running agent, a shell that records its calls, and a client that follows the hub.

use std::{
    future::Future,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use hearth_agent::{
    Agent, AgentHandle, Args, Folders, Headless, Settings, Shell, StartError, Tray,
};
use parking_lot::Mutex;
use proto::status::Status;
use status::{Link, Places, Subscriber, SubscriberHandle};
use tests::scripted_ollama::ScriptedOllama;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Timeout of every wait; nothing here takes that long, but a failing test must end.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took too long")
}

/// Status, lower-case head, and body of a response of the local HTTP server.
pub(crate) async fn text(addr: SocketAddr, line: &str, headers: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    soon(stream.read_to_end(&mut bytes)).await.unwrap();
    // Images are not text.
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// The calls of the shell, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) trays: Vec<Tray>,
    pub(crate) overlay: Vec<bool>,
    pub(crate) windows: usize,
    pub(crate) settings: usize,
    pub(crate) quits: usize,
    pub(crate) autostart: bool,
    pub(crate) refused: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Recorder(pub(crate) watch::Sender<Seen>);

impl Shell for Recorder {
    fn set_tray(&mut self, tray: Tray) {
        self.0.send_modify(|seen| seen.trays.push(tray));
    }

    fn show_overlay(&mut self, visible: bool) {
        self.0.send_modify(|seen| seen.overlay.push(visible));
    }

    fn open_window(&mut self) {
        self.0.send_modify(|seen| seen.windows += 1);
    }

    fn open_settings(&mut self) {
        self.0.send_modify(|seen| seen.settings += 1);
    }

    fn set_autostart(&mut self, on: bool) -> Result<(), String> {
        self.0.send_modify(|seen| seen.autostart = on);
        Ok(())
    }

    fn autostart(&self) -> bool {
        self.0.borrow().autostart
    }

    fn refuse(&mut self, problem: &str) {
        self.0
            .send_modify(|seen| seen.refused.push(problem.to_owned()));
    }

    fn quit(&mut self) {
        self.0.send_modify(|seen| seen.quits += 1);
    }
}

/// Settings with free ports and folders below `home`.
pub(crate) fn settings(home: &Path, args: Args) -> Settings {
    let args = Args {
        status_port: args.status_port.or(Some(0)),
        http_port: args.http_port.or(Some(0)),
        key: Some("test-key".into()),
        name: Some("box".into()),
        ..args
    };
    Settings::resolve(args, &|_| None, Folders::below(home)).unwrap()
}

pub(crate) fn with_engine(ollama: &ScriptedOllama) -> Args {
    Args {
        engine: Some(format!("ollama:{}", ollama.url())),
        ..Args::default()
    }
}

/// Everything logged since, by all tests and threads. A subscriber of one thread only would lose
/// lines: tracing caches per call site whether it is enabled.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn of_all() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_max_level(tracing::Level::TRACE)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .finish();
            tracing::subscriber::set_global_default(subscriber).unwrap();
            log
        };
        LOG.get_or_init(start).clone()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock();
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) struct Running {
    pub(crate) handle: AgentHandle,
    pub(crate) hub: SubscriberHandle,
    pub(crate) seen: watch::Receiver<Seen>,
    run: JoinHandle<anyhow::Result<()>>,
    follow: JoinHandle<()>,
    stop_following: CancellationToken,
}

impl Running {
    pub(crate) async fn start(settings: Settings) -> Result<Self, StartError> {
        let shell = Recorder::default();
        let seen = shell.0.subscribe();
        Self::within(settings, shell, seen).await
    }

    /// An agent without a desktop, which logs its state.
    pub(crate) async fn headless(settings: Settings) -> Result<Self, StartError> {
        let (_, seen) = watch::channel(Seen::default());
        Self::within(settings, Headless::default(), seen).await
    }

    async fn within(
        settings: Settings,
        shell: impl Shell,
        seen: watch::Receiver<Seen>,
    ) -> Result<Self, StartError> {
        let agent = soon(Agent::start(settings, shell)).await?;
        let handle = agent.handle();
        let (subscriber, hub) = Subscriber::new(Places::At(handle.hub()));
        let stop_following = CancellationToken::new();
        let follow = tokio::spawn(subscriber.run(stop_following.clone()));
        let run = tokio::spawn(agent.run());
        Ok(Self {
            handle,
            hub,
            seen,
            run,
            follow,
            stop_following,
        })
    }

    /// Waits for a status over the real socket.
    pub(crate) async fn until(&self, is_it: impl Fn(&Status) -> bool) -> Status {
        let mut link = self.hub.link();
        let waiting = async {
            let is_live = |link: &Link| matches!(link, Link::Live(status) if is_it(status));
            let Link::Live(status) = link.wait_for(is_live).await.unwrap().clone() else {
                unreachable!("it is live")
            };
            (*status).clone()
        };
        let reached = timeout(PATIENCE, waiting).await;
        reached.unwrap_or_else(|_| panic!("last seen: {:?}", self.hub.link().borrow()))
    }

    pub(crate) async fn shell(&mut self, is_it: impl Fn(&Seen) -> bool) -> Seen {
        soon(async { self.seen.wait_for(is_it).await.unwrap().clone() }).await
    }

    /// Waits until the agent has ended by itself.
    pub(crate) async fn ended(self) {
        soon(self.run).await.unwrap().unwrap();
        self.stop_following.cancel();
        soon(self.follow).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        self.handle.stop();
        self.ended().await;
    }
}
