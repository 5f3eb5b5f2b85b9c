//! Follows an assistant that opens no WebSocket: by its event stream, or else by polling its page.

use std::{io, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use proto::{limits, status::ServerMessage};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::{
    dial::{CONNECT, PortUsers},
    foreign,
};

/// Timeout of a silent stream: its heartbeat interval is 30 s, and one heartbeat may be missed.
const SILENCE: Duration = Duration::from_secs(75);
/// Minimum interval between two polls.
const PACE: Duration = Duration::from_secs(1);

/// A connection to an assistant over HTTP. Read-only.
pub(crate) struct Web {
    addr: SocketAddr,
    /// If given, programs of other users are refused, also when they take the port later.
    users: Option<PortUsers>,
    /// The event stream, if there is one.
    events: Option<Events>,
    /// The first status, read when the connection was opened.
    first: Option<ServerMessage>,
    ask_from: Instant,
}

struct Events {
    body: Incoming,
    lines: Lines,
    /// The task of the connection, which ends with it.
    _driver: JoinSet<()>,
}

impl Web {
    /// Opens the event stream at this address, or else polls the page with the status.
    pub(crate) async fn open(addr: SocketAddr, users: Option<PortUsers>) -> io::Result<Self> {
        let (response, driver) = get(addr, "/status/stream", users.as_ref()).await?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let events = (response.status() == StatusCode::OK && is_stream).then(|| Events {
            body: response.into_body(),
            lines: Lines::default(),
            _driver: driver,
        });
        let mut web = Self {
            addr,
            users,
            events,
            first: None,
            ask_from: Instant::now(),
        };
        // Any server may respond with a page; only one with a status is an assistant.
        let first = timeout(CONNECT, web.hear()).await;
        web.first = Some(first.map_err(io::Error::other)??);
        Ok(web)
    }

    /// The next status. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> io::Result<ServerMessage> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if let Some(events) = &mut self.events {
            return events.hear().await;
        }
        sleep_until(self.ask_from).await;
        self.ask_from = Instant::now() + PACE;
        let page = timeout(CONNECT, self.poll()).await;
        page.map_err(io::Error::other)?
    }

    async fn poll(&self) -> io::Result<ServerMessage> {
        let (response, _driver) = get(self.addr, "/api/status", self.users.as_ref()).await?;
        ok(&response)?;
        let body = Limited::new(response.into_body(), limits::HUB_MESSAGE_MAX);
        let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let status = foreign::read_bare(&String::from_utf8_lossy(&bytes));
        status.ok_or_else(|| io::Error::other("the page holds no status"))
    }
}

impl Events {
    async fn hear(&mut self) -> io::Result<ServerMessage> {
        loop {
            if let Some(status) = self.lines.next()? {
                return Ok(status);
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(io::Error::other)?;
            let frame = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
            if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
                self.lines.add(&data);
            }
        }
    }
}

/// Splits an event stream into lines, independently of its chunks.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Bytes received and not parsed yet.
    rest: BytesMut,
    /// The first `looked` bytes of `rest` contain no line feed.
    looked: usize,
}

impl Lines {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next status, if one is complete.
    pub(crate) fn next(&mut self) -> io::Result<Option<ServerMessage>> {
        loop {
            let rest = self.rest.get(self.looked..).unwrap_or_default();
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                self.looked = self.rest.len();
                return if self.looked > limits::HUB_MESSAGE_MAX {
                    Err(io::Error::other("an event is too large"))
                } else {
                    Ok(None)
                };
            };
            let line = self.rest.split_to(self.looked + end + 1);
            self.looked = 0;
            let line = String::from_utf8_lossy(&line);
            let data = line.trim_end().strip_prefix("data:");
            if let Some(status) = data.and_then(foreign::read_bare) {
                return Ok(Some(status));
            }
        }
    }
}

fn ok<B>(response: &Response<B>) -> io::Result<()> {
    match response.status() {
        StatusCode::OK => Ok(()),
        status => Err(io::Error::other(format!("the answer was {status}"))),
    }
}

/// Requests `path` over a new connection, which lives as long as the returned tasks.
async fn get(
    addr: SocketAddr,
    path: &str,
    users: Option<&PortUsers>,
) -> io::Result<(Response<Incoming>, JoinSet<()>)> {
    let getting = async {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(io::Error::other)?;
        let mut driver = JoinSet::new();
        driver.spawn(async {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to an assistant ended");
            }
        });
        let request = Request::get(path)
            .header(header::HOST, addr.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(io::Error::other)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(io::Error::other)?;
        if let Some(users) = users {
            users.refuse_foreign(addr).await?;
        }
        Ok((response, driver))
    };
    timeout(CONNECT, getting).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_lines_at_once_are_read_in_no_time() {
        let mut lines = Lines::default();
        let began = std::time::Instant::now();
        lines.add(&b"\n".repeat(400_000));
        assert!(lines.next().unwrap().is_none());
        // When each line moved all later ones, this took tens of seconds.
        assert!(began.elapsed() < Duration::from_secs(5));
        lines.add(&vec![b'x'; limits::HUB_MESSAGE_MAX]);
        assert!(lines.next().unwrap().is_none());
        lines.add(b"x");
        assert!(lines.next().is_err(), "a line without an end has one");
    }
}
