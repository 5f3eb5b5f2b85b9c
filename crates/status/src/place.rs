use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{HTTP_PORTS, LocalToken, PORTS, private_file};

/// The address of a hub and the path of its token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubAddress {
    /// Where the hub listens.
    pub addr: SocketAddr,
    /// The token's file.
    pub token: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Published {
    addr: SocketAddr,
    pid: u32,
}

impl HubAddress {
    /// The hub of the agent with this data folder, listening on `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr, folder: &Path) -> Self {
        Self {
            addr,
            token: LocalToken::path_in(folder),
        }
    }

    /// Writes the hub's actual address to a file for programs of the same user.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn publish(&self, folder: &Path) -> io::Result<()> {
        private_file::make_folder(folder)?;
        let published = Published {
            addr: self.addr,
            pid: std::process::id(),
        };
        let mut json = serde_json::to_vec(&published)?;
        json.push(b'\n');
        private_file::write(&file_in(folder), &json)
    }

    /// Reads the address published in this folder; `None` if there is none, or its process no
    /// longer runs: any program may have taken the port since.
    #[must_use]
    pub fn find(folder: &Path) -> Option<Self> {
        let published = read(folder)?;
        let is_ours = published.addr.ip().is_loopback() && is_alive(published.pid);
        is_ours.then(|| Self::new(published.addr, folder))
    }

    /// Removes the published address, if this process published it.
    pub fn withdraw(folder: &Path) {
        if read(folder).is_some_and(|published| published.pid == std::process::id()) {
            let _ = std::fs::remove_file(file_in(folder));
        }
    }
}

/// Where to look for a hub.
#[derive(Debug, Clone)]
pub enum Places {
    /// At this address only.
    At(HubAddress),
    /// At the address published in this data folder and nowhere else: for callers that act on the
    /// status.
    Own(PathBuf),
    /// At the address published in this data folder, or else, without a token, at these ports.
    In(PathBuf, Ports),
    /// At these ports; no token is sent.
    Ports(Ports),
}

/// The ports where assistants of the original protocol serve their status, in the order of trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// WebSockets.
    pub sockets: Vec<SocketAddr>,
    /// HTTP servers with an event stream or a page.
    pub http: Vec<SocketAddr>,
}

impl Default for Ports {
    fn default() -> Self {
        let local = |ports: [u16; 2]| {
            ports
                .map(|port| (Ipv4Addr::LOCALHOST, port).into())
                .to_vec()
        };
        Self {
            sockets: local(PORTS),
            http: local(HTTP_PORTS),
        }
    }
}

impl Places {
    /// The addresses to try now, each with the token's file if the token may be used there.
    pub(crate) fn candidates(&self) -> Vec<(SocketAddr, Option<PathBuf>)> {
        match self {
            Self::At(hub) => vec![(hub.addr, Some(hub.token.clone()))],
            Self::Own(folder) => {
                let hub = HubAddress::find(folder).into_iter();
                hub.map(|hub| (hub.addr, Some(hub.token))).collect()
            }
            Self::In(folder, ports) => match HubAddress::find(folder) {
                Some(hub) => vec![(hub.addr, Some(hub.token))],
                // Any program may listen there, so it gets no token.
                None => bare(ports),
            },
            Self::Ports(ports) => bare(ports),
        }
    }

    /// The folder whose hub is not published yet, while others are tried instead.
    pub(crate) fn missed(&self) -> Option<&Path> {
        match self {
            Self::In(folder, _) if HubAddress::find(folder).is_none() => Some(folder),
            Self::At(_) | Self::Own(_) | Self::In(..) | Self::Ports(_) => None,
        }
    }

    /// The addresses to try over HTTP when no WebSocket opens.
    pub(crate) fn http(&self) -> Vec<SocketAddr> {
        match self {
            Self::At(_) | Self::Own(_) => Vec::new(),
            Self::In(folder, _) if HubAddress::find(folder).is_some() => Vec::new(),
            Self::In(_, ports) | Self::Ports(ports) => ports.http.clone(),
        }
    }
}

fn bare(ports: &Ports) -> Vec<(SocketAddr, Option<PathBuf>)> {
    ports.sockets.iter().map(|addr| (*addr, None)).collect()
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("hub.json")
}

/// Whether a process of this user has this process id.
#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}

#[cfg(not(unix))]
fn is_alive(_: u32) -> bool {
    true
}

fn read(folder: &Path) -> Option<Published> {
    let bytes = private_file::read(&file_in(folder)).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_hub_is_found_with_its_token_and_withdrawn() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        assert_eq!(HubAddress::find(folder), None);
        let hub = HubAddress::new("127.0.0.1:6000".parse().unwrap(), folder);
        hub.publish(folder).unwrap();
        assert_eq!(HubAddress::find(folder), Some(hub.clone()));
        let candidates = Places::In(folder.into(), Ports::default()).candidates();
        assert_eq!(candidates, [(hub.addr, Some(hub.token))]);

        HubAddress::withdraw(folder);
        assert_eq!(HubAddress::find(folder), None);
    }

    #[test]
    fn an_unknown_listener_on_the_usual_ports_is_shown_no_token() {
        let home = tempfile::tempdir().unwrap();
        let candidates = Places::In(home.path().into(), Ports::default()).candidates();
        assert_eq!(candidates.len(), 2);
        assert!(candidates.iter().all(|(_, token)| token.is_none()));
    }

    #[test]
    fn where_only_the_own_hub_will_do_nobody_else_is_asked() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        let own = Places::Own(folder.into());
        assert_eq!((own.candidates(), own.http()), (vec![], vec![]));
        let hub = HubAddress::new("127.0.0.1:6000".parse().unwrap(), folder);
        hub.publish(folder).unwrap();
        assert_eq!(own.candidates(), [(hub.addr, Some(hub.token))]);
    }

    #[test]
    fn an_address_elsewhere_or_of_a_dead_process_is_not_trusted() {
        let home = tempfile::tempdir().unwrap();
        let find = |json: &str| {
            private_file::write(&file_in(home.path()), json.as_bytes()).unwrap();
            HubAddress::find(home.path())
        };
        let own = std::process::id();
        assert!(find(&format!(r#"{{"addr":"127.0.0.1:6001","pid":{own}}}"#)).is_some());
        assert_eq!(
            find(&format!(r#"{{"addr":"192.0.2.1:6001","pid":{own}}}"#)),
            None
        );
        if cfg!(unix) {
            assert_eq!(find(r#"{"addr":"127.0.0.1:6001","pid":2147483647}"#), None);
        }
        assert_eq!(find("{"), None);
    }

    #[cfg(unix)]
    #[test]
    fn the_address_of_another_process_is_not_taken_back() {
        let home = tempfile::tempdir().unwrap();
        let parent = std::os::unix::process::parent_id();
        let json = format!(r#"{{"addr":"127.0.0.1:6001","pid":{parent}}}"#);
        private_file::write(&file_in(home.path()), json.as_bytes()).unwrap();
        HubAddress::withdraw(home.path());
        assert!(file_in(home.path()).exists());
    }
}
