//! Entry points of `tests/fuzz` for the parsers of messages from overlays, hubs and assistants.

use std::{
    io::Cursor,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Uri, header};
use proto::{
    limits,
    status::{ServerMessage, v1::HubMessage},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    time::timeout,
};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

use crate::{
    Access, access::OWN_ORIGINS, connection, dial::Shown, foreign, legacy, peer, sockets, v1,
    web::Lines,
};

/// Maximum length of any answer, in bytes.
const LONGEST: usize = 4_096;

/// Fuzzes the messages of a client without a subprotocol.
pub fn legacy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let legacy::message::Heard::Answer(answer) = legacy::message::read(text)
    {
        is_short(&answer, text);
    }
}

/// Fuzzes the messages of a client of `hearth.status.v1`.
pub fn v1(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let v1::message::Heard::Refuse(answer) = v1::message::read(text)
    {
        is_short(&answer, text);
    }
}

fn is_short<T: serde::Serialize>(answer: &T, asked: &str) {
    let answer = serde_json::to_string(answer).unwrap_or_default();
    assert!((1..LONGEST).contains(&answer.len()), "{asked}");
}

/// Fuzzes the messages of a hub or a foreign assistant.
pub fn heard(bytes: &[u8]) {
    let mut shown = Shown::default();
    let text = String::from_utf8_lossy(bytes);
    for text in std::iter::once(&*text).chain(text.lines()) {
        drop(foreign::read(text));
        drop(foreign::read_bare(text));
        if let Ok(message) = serde_json::from_str::<HubMessage>(text) {
            drop(shown.read(message));
        }
    }
}

/// Fuzzes the head of an upgrade: target, `Host`, `Origin` and a second `Host`, one per line.
pub fn access(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|uri| Uri::try_from(uri).ok());
    let mut headers = HeaderMap::new();
    for name in [header::HOST, header::ORIGIN, header::HOST] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.append(name, value);
        }
    }
    let Some(uri) = uri else { return };
    if Access::new(6001, &[]).check(&uri, &headers).is_err() {
        return;
    }
    let hosts = headers.get_all(header::HOST).iter();
    let hosts: Vec<&[u8]> = hosts.map(HeaderValue::as_bytes).collect();
    let authority = uri.authority().map(|named| named.as_str().as_bytes());
    for host in hosts.iter().copied().chain(authority) {
        let own: [&[u8]; 3] = [b"127.0.0.1:6001", b"localhost:6001", b"[::1]:6001"];
        let is_own = own.iter().any(|own| host.eq_ignore_ascii_case(own));
        assert!(is_own, "{host:?} is let in");
    }
    assert_eq!(hosts.len(), 1, "{hosts:?} are let in");
    let strange = headers.get_all(header::ORIGIN).iter();
    let mut strange = strange.filter(|origin| !OWN_ORIGINS.iter().any(|own| origin == own));
    assert_eq!(strange.next(), None, "is let in");
}

/// Fuzzes the kernel's socket table.
pub fn port_owner(bytes: &[u8]) {
    let table = String::from_utf8_lossy(bytes);
    let rows: Vec<_> = sockets::rows(&table).collect();
    let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 40_000);
    let found = peer::connection(&table, from, 6001);
    let is_there = |(user, inode)| {
        let mut same = rows.iter();
        same.any(|row| (row.user, row.inode) == (user, inode) && row.local.is(from))
    };
    assert!(found.is_none_or(is_there), "{found:?} is nobody's");
    if let Some(row) = crate::port_owner::listener(&table, 6001) {
        assert!(row.local.hears(6001), "{row:?}");
    }
}

/// Fuzzes an assistant's event stream: the statuses do not depend on where the stream is cut.
pub fn events(bytes: &[u8]) {
    if bytes.len() > limits::HUB_MESSAGE_MAX {
        return;
    }
    let whole = statuses(std::iter::once(bytes));
    let mut cut = bytes.iter().map(|byte| usize::from(*byte) % 17 + 1);
    let mut rest = bytes;
    let pieces = std::iter::from_fn(|| {
        let at = cut.next()?.min(rest.len());
        let (piece, more) = rest.split_at(at);
        rest = more;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(statuses(pieces), whole, "it depends on where it is cut");
}

fn statuses<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<ServerMessage> {
    let (mut lines, mut statuses) = (Lines::default(), Vec::new());
    for piece in pieces {
        lines.add(piece);
        while let Ok(Some(status)) = lines.next() {
            statuses.push(status);
        }
    }
    statuses
}

/// Fuzzes a whole connection, from its first byte or from its first frame. For any input, the hub
/// ends the connection and sends only valid frames.
pub fn frames(bytes: &[u8]) {
    const HEAD: &[u8] = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let _ = connection::has_close(bytes);
    let mut said = Vec::new();
    let talking = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let to = listener.local_addr()?;
        let (client, server) = tokio::join!(TcpStream::connect(to), listener.accept());
        let (mut from, mut client) = client?.into_split();
        let sending = async {
            if !bytes.starts_with(b"GET ") {
                let line = format!("GET / HTTP/1.1\r\nHost: {to}\r\n");
                client.write_all(&[line.as_bytes(), HEAD].concat()).await?;
            }
            // The hub may close before it has read everything.
            let _ = client.write_all(bytes).await;
            client.shutdown().await
        };
        let serving = crate::echo::serve(server?.0, limits::HUB_MESSAGE_MAX);
        let _ = tokio::join!(sending, serving, from.read_to_end(&mut said));
        std::io::Result::Ok(())
    };
    let runtime = Builder::new_current_thread().enable_all().build();
    let ended = runtime
        .map(|runtime| runtime.block_on(async { timeout(Duration::from_secs(20), talking).await }));
    assert!(matches!(ended, Ok(Ok(_))), "the hub does not end it");
    if !said.starts_with(b"HTTP/1.1 101 ") {
        return;
    }
    let end = said.windows(4).position(|four| four == b"\r\n\r\n");
    let mut rest = Cursor::new(said.get(end.unwrap_or_default() + 4..).unwrap_or_default());
    while let Ok(Some((header, length))) = FrameHeader::parse(&mut rest) {
        assert!(header.mask.is_none() && !header.rsv1, "{header:?}");
        rest.set_position(rest.position() + length);
    }
    let left = rest.get_ref().len() as u64;
    assert!(
        rest.position() <= left || bytes.len() > 10_000,
        "half a frame"
    );
}
