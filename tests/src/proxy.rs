//! A TCP proxy that counts, delays or breaks the traffic between two programs.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

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

/// The treatment of traffic from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Passes everything on.
    Open,
    /// Closes all connections, and refuses new ones.
    Cut,
    /// Passes nothing on, but keeps connections open.
    Held,
}

/// The permanent properties of a connection.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Delay of each byte.
    delay: Duration,
    /// Maximum size of a segment in bytes.
    piece: usize,
}

/// The traffic so far.
#[derive(Debug, Default)]
struct Seen {
    /// Number of HTTP request heads.
    requests: AtomicUsize,
    /// Number of segments from the target.
    replies: watch::Sender<usize>,
}

/// A proxy on its own port to one target. Stops when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Starts a proxy that delays each byte by `delay` in each direction.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: SocketAddr, delay: Duration) -> io::Result<Self> {
        Self::split(target, delay, usize::MAX).await
    }

    /// Starts a proxy that also splits the traffic into segments of at most `piece` bytes.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn split(target: SocketAddr, delay: Duration, piece: usize) -> io::Result<Self> {
        let line = Line { delay, piece };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (mode, follow) = watch::channel(Mode::Open);
        let seen = Arc::<Seen>::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, target, line, follow, Arc::clone(&seen)));
        Ok(Self {
            address,
            mode,
            seen,
            _tasks: tasks,
        })
    }

    /// The address of the proxy.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of HTTP requests sent through it.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::Relaxed)
    }

    /// Waits until this many further segments have come from the target, or the proxy is gone.
    pub fn until_replied(&self, more: usize) -> impl Future<Output = ()> + Send + use<> {
        let mut replies = self.seen.replies.subscribe();
        let wanted = *replies.borrow() + more;
        async move { drop(replies.wait_for(|replies| *replies >= wanted).await) }
    }

    /// Breaks every connection and refuses new ones until [`Proxy::mend`].
    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Passes nothing on, in either direction, until [`Proxy::mend`].
    pub fn hold(&self) {
        self.mode.send_replace(Mode::Held);
    }

    /// Passes traffic on again.
    pub fn mend(&self) {
        self.mode.send_replace(Mode::Open);
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    line: Line,
    mode: watch::Receiver<Mode>,
    seen: Arc<Seen>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        while connections.try_join_next().is_some() {}
        if *mode.borrow() != Mode::Cut {
            connections.spawn(join(client, target, line, mode.clone(), Arc::clone(&seen)));
        }
    }
}

async fn join(
    client: TcpStream,
    target: SocketAddr,
    line: Line,
    mut mode: watch::Receiver<Mode>,
    seen: Arc<Seen>,
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
    let (up, down) = (mode.clone(), mode.clone());
    let both = async {
        tokio::join!(
            carry(
                from_client,
                to_server,
                line,
                up,
                heads_counted(&seen.requests)
            ),
            carry(from_server, to_client, line, down, |_: &[u8]| {
                seen.replies.send_modify(|count| *count += 1);
            })
        )
    };
    tokio::select! {
        _ = both => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

/// Counts the heads of HTTP/1.1 requests. A JSON body contains no raw line break, so it cannot look
/// like one.
fn heads_counted(requests: &AtomicUsize) -> impl FnMut(&[u8]) {
    const END_OF_FIRST_LINE: &[u8] = b" HTTP/1.1\r\n";
    let mut matched = 0;
    move |bytes| {
        for byte in bytes {
            matched = match END_OF_FIRST_LINE.get(matched) {
                Some(next) if next == byte => matched + 1,
                _ => usize::from(*byte == END_OF_FIRST_LINE[0]),
            };
            if matched == END_OF_FIRST_LINE.len() {
                requests.fetch_add(1, Ordering::Relaxed);
                matched = 0;
            }
        }
    }
}

/// Reads at once and writes after `delay`, so that only latency is added.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    Line { delay, piece }: Line,
    mut mode: watch::Receiver<Mode>,
    mut see: impl FnMut(&[u8]),
) {
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
            // Fails only when the proxy is gone.
            drop(mode.wait_for(|mode| *mode != Mode::Held).await);
            see(&bytes);
            for piece in bytes.chunks(piece) {
                if to.write_all(piece).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

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

    #[test]
    fn heads_of_requests_are_counted_wherever_they_are_cut() {
        let requests = AtomicUsize::new(0);
        let text =
            b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n{\"say\":\" HTTP/1.1\\r\\n\"}GET /b HTTP/1.1\r\n";
        for size in [1, 7, text.len()] {
            requests.store(0, Ordering::Relaxed);
            let mut see = heads_counted(&requests);
            text.chunks(size).for_each(&mut see);
            assert_eq!(requests.load(Ordering::Relaxed), 2, "pieces of {size}");
        }
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_until_the_line_is_cut_and_again_once_it_is_mended() {
        let (target, _echo) = echo().await;
        let proxy = Proxy::split(target, Duration::ZERO, 2).await.unwrap();
        for _ in 0..2 {
            let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let mut heard = [0; 5];
            socket.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");

            proxy.hold();
            socket.write_all(b"again").await.unwrap();
            let held = timeout(Duration::from_millis(50), socket.read(&mut heard)).await;
            assert!(held.is_err(), "the line is held");
            proxy.mend();
            socket.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"again");

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
