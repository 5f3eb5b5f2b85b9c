//! Starts every part of the agent, in the order in which they can fail.

use std::{
    fs::{File, TryLockError},
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use engine::Engine;
use proto::{
    EngineKind,
    status::{Hop, Status},
};
use status::{
    Access, Approvals, BindError, Bound, HubAddress, LocalToken, PortInUse, Ports, Request,
    StatusHub, StatusServer, TokenError, World, bind_loopback, is_foreign, private_file,
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
};
use worker::{Activity, Tuning, Worker, WorkerHandle, WorkerSettings};

use crate::{
    Relay, Settings,
    opening::{self, EngineWatch},
    preferences::PreferencesFile,
    view::Known,
};

/// Maximum number of connections to both local listeners, with a reserve.
const READERS: usize = 8_192;
/// Maximum number of commands in flight.
const REQUESTS: usize = 64;

/// The reason why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder, or a file in it, cannot be used.
    #[error("{} cannot be used: {source}; check that it belongs to this user and can be written", path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Another agent of this user is running.
    #[error("Hearth is already running for this user (it holds {}); see `hearth status`", .0.display())]
    Running(PathBuf),
    /// The local token cannot be read or written.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The system's random number generator failed.
    #[error("the system's random number generator failed: {0}")]
    Random(getrandom::Error),
    /// No port for the status hub.
    #[error("no port for the status hub: {0}; choose one with --status-port")]
    Hub(BindError),
    /// The port for the local HTTP server is taken, and the owner named it.
    #[error("no port for the local HTTP server: {0}; choose one with --http-port")]
    Http(BindError),
    /// The engine in the settings cannot be used.
    #[error("the engine cannot be used: {0}")]
    Engine(String),
}

/// The parts of an agent before it runs.
pub(crate) struct Parts {
    pub(crate) hub: StatusHub,
    /// The pending approvals and the permanent grants.
    pub(crate) approvals: Approvals,
    pub(crate) hub_at: HubAddress,
    pub(crate) hub_server: HubServer,
    /// The assistant on the hub's default port, if any.
    pub(crate) neighbour: Option<Neighbour>,
    pub(crate) http: Option<LocalHttp>,
    pub(crate) requests: Requests,
    pub(crate) worker: Option<(Worker, WorkerHandle)>,
    pub(crate) activity: watch::Receiver<Activity>,
    /// Checks the engine; present without a worker.
    pub(crate) engine_watch: Option<EngineWatch>,
    pub(crate) known: Known,
    pub(crate) preferences: PreferencesFile,
    /// The address of the system bus with wake-up signals.
    #[cfg(target_os = "linux")]
    pub(crate) system_bus: Option<String>,
    /// Held while the agent lives: there is one agent per data folder.
    pub(crate) lock: File,
}

/// The status hub before it serves.
pub(crate) struct HubServer {
    pub(crate) server: StatusServer,
    pub(crate) listener: TcpListener,
}

/// The local HTTP server before it serves.
pub(crate) struct LocalHttp {
    pub(crate) access: Access,
    pub(crate) listener: TcpListener,
    pub(crate) addr: SocketAddr,
}

/// The commands to the agent.
pub(crate) struct Requests {
    pub(crate) sender: mpsc::Sender<Request>,
    pub(crate) receiver: mpsc::Receiver<Request>,
}

impl Parts {
    pub(crate) async fn bring_up(mut settings: Settings) -> Result<Self, StartError> {
        let data = &settings.folders.data;
        let unusable = |source| StartError::Folder {
            path: data.clone(),
            source,
        };
        private_file::make_folder(data).map_err(unusable)?;
        telemetry::cores::forbid();
        telemetry::files::allow(READERS);
        let lock = lock(data)?;
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(StartError::Random)?;
        let token = LocalToken::open(data, random)?;
        let preferences = PreferencesFile::in_folder(data);

        let bound = bind_loopback(&settings.status_ports)
            .await
            .map_err(StartError::Hub)?;
        tell("the status hub", &bound);
        let hub_at = HubAddress::new(bound.addr, data);
        let (http_bound, http_refused) = bind_http(&settings).await?;

        let engine = opening::open(&settings).await?;
        let mut known = Known {
            preferences: preferences.load(),
            has_relay: settings.relay.is_some(),
            language: settings.language,
            ..Known::default()
        };
        known.activity.engine = Hop {
            name: engine.name(),
            ..Hop::default()
        };
        let relay = settings.relay.take();
        let is_paused = known.preferences.paused;
        let worker = relay.map(|relay| worker_of(relay, &settings, is_paused, engine.clone()));
        let (activity, engine_watch) = match &worker {
            Some((_, handle)) => (handle.activity(), None),
            None => watched(engine, settings.engine_look, &mut known).await,
        };
        known.activity = activity.borrow().clone();

        let hub = StatusHub::new(known.status(&Status::default()));
        let (sender, receiver) = mpsc::channel(REQUESTS);
        let approvals = Approvals::open(data, World::default());
        let server = StatusServer::new(hub.clone(), token, sender.clone())
            .allow(settings.origins.clone())
            .ask_owner(approvals.clone());
        let taken_http: Vec<u16> = http_refused
            .iter()
            .filter(|refused| !is_foreign(refused.by.as_ref().map(|by| by.user)))
            .map(|refused| refused.port)
            .collect();
        let http = http_bound.map(|(listener, addr)| {
            let access = Access::new(addr.port(), &settings.origins).with_own_pages();
            LocalHttp {
                access,
                listener,
                addr,
            }
        });
        hub_at.publish(data).map_err(unusable)?;
        let neighbour = neighbour(&bound.refused, &taken_http);
        Ok(Self {
            hub,
            approvals,
            hub_at,
            hub_server: HubServer {
                server,
                listener: bound.listener,
            },
            neighbour,
            http,
            requests: Requests { sender, receiver },
            worker,
            activity,
            engine_watch,
            known,
            preferences,
            #[cfg(target_os = "linux")]
            system_bus: settings.system_bus,
            lock,
        })
    }
}

fn worker_of(
    relay: Relay,
    settings: &Settings,
    start_paused: bool,
    engine: Arc<dyn Engine>,
) -> (Worker, WorkerHandle) {
    let start = WorkerSettings {
        slots: settings.slots,
        allow_model_changes: settings.allow_model_changes,
        start_paused,
        plain_http: relay.plain_http,
        tuning: Tuning {
            job_limit: settings.job_limit,
            ..Tuning::default()
        },
        ..WorkerSettings::new(relay.url, relay.key, settings.name.clone())
    };
    Worker::new(start, engine)
}

/// Looks at an engine that has no worker; returns its activity, and what checks it from now on.
async fn watched(
    engine: Arc<dyn Engine>,
    apart: Duration,
    known: &mut Known,
) -> (watch::Receiver<Activity>, Option<EngineWatch>) {
    known.activity.engine = opening::look(&*engine).await;
    let (sender, activity) = watch::channel(known.activity.clone());
    // The built-in engine runs in this process, so its state does not change.
    let is_apart = engine.kind() != EngineKind::Builtin;
    let watch = is_apart.then(|| EngineWatch {
        engine,
        activity: sender,
        apart,
    });
    (activity, watch)
}

/// An assistant whose status is merged into this hub's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    pub(crate) name: String,
    pub(crate) ports: Ports,
}

/// The program on the hub's default port, unless it belongs to another user: such a program is not
/// trusted, and its status is not this owner's.
fn neighbour(refused: &[PortInUse], taken_http: &[u16]) -> Option<Neighbour> {
    let is_taken = |refused: &&PortInUse| refused.error.kind() == io::ErrorKind::AddrInUse;
    let refused = refused.iter().find(is_taken)?;
    if is_foreign(refused.by.as_ref().map(|by| by.user)) {
        return None;
    }
    let process = refused.by.as_ref().and_then(|by| by.process.as_ref());
    let name = match process {
        Some((_, name)) => name.escape_debug().to_string(),
        None => format!("port {}", refused.port),
    };
    let local = |port: &u16| (Ipv4Addr::LOCALHOST, *port).into();
    let ports = Ports {
        sockets: vec![local(&refused.port)],
        http: taken_http.iter().map(local).collect(),
    };
    Some(Neighbour { name, ports })
}

fn lock(data: &Path) -> Result<File, StartError> {
    let path = data.join("agent.lock");
    let open = File::options().create(true).append(true).open(&path);
    let file = open.map_err(|source| StartError::Folder {
        path: path.clone(),
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running(path)),
        Err(TryLockError::Error(source)) => Err(StartError::Folder { path, source }),
    }
}

/// Binds the local HTTP server. Returns the listener, if any, and the ports that are taken. A
/// failure is an error only if the owner named the port: other programs often use the default
/// ports.
async fn bind_http(
    settings: &Settings,
) -> Result<(Option<(TcpListener, SocketAddr)>, Vec<PortInUse>), StartError> {
    match bind_loopback(&settings.http_ports).await {
        Ok(bound) => {
            tell("the local HTTP server", &bound);
            Ok((Some((bound.listener, bound.addr)), bound.refused))
        }
        Err(error) if settings.http_ports.len() > 1 => {
            tracing::warn!("no local HTTP server: {error}; choose a port with --http-port");
            Ok((None, error.0))
        }
        Err(error) => Err(StartError::Http(error)),
    }
}

fn tell(what: &str, bound: &Bound) {
    for refused in &bound.refused {
        tracing::warn!("{what}: {refused}");
    }
    tracing::info!(addr = %bound.addr, "{what} listens");
}

#[cfg(test)]
mod tests {
    use status::{PortOwner, port_owner};

    use super::*;

    #[test]
    fn the_systemd_unit_leaves_the_agent_the_time_to_give_its_jobs_back() {
        let unit = include_str!("../../../deploy/hearth-agent.service");
        let mut lines = unit.lines();
        let stop = lines.find_map(|line| line.strip_prefix("TimeoutStopSec="));
        // The worker waits as long for the relay's confirmation as the agent for its tasks.
        let needed = worker::DRAIN + 2 * crate::agent::FAREWELL;
        assert!(stop.unwrap().parse::<u64>().unwrap() > needed.as_secs());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn whose_program_holds_a_port_is_told_by_its_user_alone() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = port_owner(port).unwrap();
        let of = |user, name: Option<&str>| {
            let process = name.map(|name| (1, name.to_owned()));
            Some(PortOwner { user, process })
        };
        for (by, is_foreign) in [
            (of(own.user, Some("assistant")), false),
            (of(own.user, None), false),
            (of(own.user + 1, Some("assistant")), true),
            (of(own.user + 1, None), true),
            (None, true),
        ] {
            let refused = PortInUse {
                port,
                by: by.clone(),
                error: io::ErrorKind::AddrInUse.into(),
            };
            assert_eq!(
                status::is_foreign(by.as_ref().map(|by| by.user)),
                is_foreign,
                "{by:?}"
            );
            assert_eq!(neighbour(&[refused], &[]).is_none(), is_foreign, "{by:?}");
        }
    }
}
