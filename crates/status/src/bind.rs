use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    net::{TcpListener, TcpSocket},
    task,
};

use crate::{PortOwner, port_owner};

/// Size of the kernel's send buffer, in bytes. The default would buffer megabytes of outdated
/// statuses for a slow reader.
const SEND_BUFFER: u32 = 64 * 1024;
/// Backlog of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// A listener on 127.0.0.1, and the ports that were tried before it.
#[derive(Debug)]
pub struct Bound {
    /// The listener.
    pub listener: TcpListener,
    /// Its address.
    pub addr: SocketAddr,
    /// The ports that were tried first and could not be bound.
    pub refused: Vec<PortInUse>,
}

/// A port that could not be bound.
#[derive(Debug)]
pub struct PortInUse {
    /// The port.
    pub port: u16,
    /// The program that holds it, if known.
    pub by: Option<PortOwner>,
    /// The system's error.
    pub error: io::Error,
}

impl fmt::Display for PortInUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.by {
            Some(holder) => write!(f, "port {} is taken by {holder}", self.port),
            None => write!(f, "port {}: {}", self.port, self.error),
        }
    }
}

/// None of the ports could be bound.
#[derive(Debug)]
pub struct BindError(pub Vec<PortInUse>);

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on 127.0.0.1")?;
        self.0
            .iter()
            .try_for_each(|refused| write!(f, "; {refused}"))
    }
}

impl std::error::Error for BindError {}

/// Listens on the first free port of `ports`, on 127.0.0.1 only. Port 0 picks a free port.
///
/// # Errors
/// [`BindError`] names the holder of each port.
pub async fn bind_loopback(ports: &[u16]) -> Result<Bound, BindError> {
    let mut refused = Vec::new();
    for &port in ports {
        match listen(port) {
            Ok((listener, addr)) => {
                return Ok(Bound {
                    listener,
                    addr,
                    refused,
                });
            }
            Err(error) => {
                let in_use = error.kind() == io::ErrorKind::AddrInUse;
                let by = if in_use { who_has(port).await } else { None };
                refused.push(PortInUse { port, by, error });
            }
        }
    }
    Err(BindError(refused))
}

fn listen(port: u16) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = TcpSocket::new_v4()?;
    // Allows binding while connections of an earlier process are in TIME_WAIT, as listeners usually
    // do.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    let listener = socket.listen(BACKLOG)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

async fn who_has(port: u16) -> Option<PortOwner> {
    task::spawn_blocking(move || port_owner(port))
        .await
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_passed_over_and_its_holder_named() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let bound = bind_loopback(&[port, 0]).await.unwrap();
        assert_ne!(bound.addr.port(), port);
        assert!(bound.addr.ip().is_loopback());
        let [refused] = bound.refused.as_slice() else {
            panic!("one port was refused")
        };
        let said = refused.to_string();
        assert!(said.contains(&format!("port {port}")), "{said}");
        if cfg!(target_os = "linux") {
            assert!(
                said.contains(&format!("process {}", std::process::id())),
                "{said}"
            );
        }
    }

    #[tokio::test]
    async fn when_all_are_taken_the_error_names_each() {
        let (one, two) = (listen(0).unwrap(), listen(0).unwrap());
        let ports = [one.1.port(), two.1.port()];
        let said = bind_loopback(&ports).await.unwrap_err().to_string();
        assert!(
            ports.iter().all(|port| said.contains(&port.to_string())),
            "{said}"
        );
    }
}
