//! A TCP proxy that delays or cuts what passes through it: the network's faults, on purpose.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// What the proxy does to traffic from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes everything on.
    Open,
    /// Breaks what is open and refuses what is new, by closing at once.
    Cut,
}

/// Listens on a port of its own and passes everything on to one target. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts one that holds each byte back for `delay` in each direction.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, follow) = watch::channel(Mode::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, delay, follow));
        Ok(Self {
            address,
            mode,
            _tasks: tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection and refuses new ones until [`Proxy::mend`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Passes traffic on again.
    pub fn mend(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    delay: Duration,
    mode: watch::Receiver<Mode>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        if *mode.borrow() == Mode::Open {
            connections.spawn(join(client, target, delay, mode.clone()));
        }
    }
}

async fn join(
    client: TcpStream,
    target: SocketAddr,
    delay: Duration,
    mut mode: watch::Receiver<Mode>,
) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    if client
        .set_nodelay(true)
        .and(server.set_nodelay(true))
        .is_err()
    {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        tokio::join!(
            carry(from_client, to_server, delay),
            carry(from_server, to_client, delay)
        )
    };
    tokio::select! {
        _ = both => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Reads at once and writes `delay` later, so that throughput is not what is limited.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (put, mut take) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + delay;
            if put.send((due, buffer[..length].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((due, bytes)) = take.recv().await {
            if !delay.is_zero() {
                sleep_until(due).await;
            }
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            }
        });
        (address, tasks)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_until_the_line_is_cut_and_again_once_it_is_mended() {
        let (target, _echo) = echo().await;
        let proxy = Proxy::start(target, Duration::ZERO).await.unwrap();
        for _ in 0..2 {
            let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            socket.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");

            proxy.cut();
            assert_eq!(
                socket.read(&mut heard).await.unwrap_or(0),
                0,
                "the line is cut"
            );
            let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(
                refused.read(&mut heard).await.unwrap_or(0),
                0,
                "a new line is refused"
            );
            proxy.mend();
        }
    }
}
