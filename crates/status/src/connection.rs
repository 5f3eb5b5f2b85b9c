//! The write side of a reader's connection, shared by its own task and [`crate::readers`].

use std::{
    io::{self, Cursor, ErrorKind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
    time::Instant,
};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, OpCode},
};

use crate::frames::{Frames, View};

/// A socket with a write buffer, under one lock. Writers append whole frames and the socket takes
/// bytes from the front, so frames never interleave. The connection's own task writes what the
/// socket does not take at once.
pub(crate) struct Connection {
    stream: TcpStream,
    behind: Duration,
    /// Maximum number of buffered bytes.
    most: usize,
    unsent: Mutex<Unsent>,
    /// Signals that the task has something to write.
    call: Notify,
}

#[derive(Default)]
struct Unsent {
    /// Bytes that the socket has not taken yet; usually empty, else it starts with the rest of a
    /// frame.
    bytes: BytesMut,
    /// When `bytes` became non-empty.
    since: Option<Instant>,
    /// What the reader follows; `None` before it subscribes and after a close frame.
    view: Option<View>,
    /// Whether a status was skipped because `bytes` was not empty.
    missed: bool,
    broken: Option<ErrorKind>,
}

impl Connection {
    /// A connection to one reader. A reader that lags by `behind` gets a whole status next; one
    /// with more than `most` bytes buffered is disconnected.
    pub(crate) fn new(stream: TcpStream, behind: Duration, most: usize) -> Self {
        Self {
            stream,
            behind,
            most,
            unsent: Mutex::default(),
            call: Notify::new(),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sets what the reader follows from now on; `None` for nothing.
    pub(crate) fn follow(&self, view: Option<View>) {
        self.unsent().view = view;
    }

    /// Writes a status without waiting. If older bytes are still buffered, the connection's own
    /// task writes the latest status later.
    pub(crate) fn show(&self, frames: &mut Frames) {
        let mut unsent = self.unsent();
        let unsent = &mut *unsent;
        let Some(view) = &mut unsent.view else {
            return;
        };
        if !unsent.bytes.is_empty() {
            // Also while the task itself is writing: it may finish without looking again.
            unsent.missed = true;
            self.call.notify_one();
            return;
        }
        if let Some(frame) = frames.next(view) {
            unsent.put(&self.stream, self.most, &frame);
            if !unsent.bytes.is_empty() || unsent.broken.is_some() {
                self.call.notify_one();
            }
        }
    }

    /// Returns whether a status was skipped, and resets the flag.
    pub(crate) fn take_missed(&self) -> bool {
        std::mem::take(&mut self.unsent().missed)
    }

    /// Waits until the connection's task has something to write.
    pub(crate) async fn called(&self) {
        self.call.notified().await;
    }

    /// Completes when the socket has taken all buffered bytes.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.unsent().drain(&self.stream, self.behind)? {
                return Poll::Ready(Ok(()));
            }
            ready!(self.stream.poll_write_ready(cx))?;
        }
    }

    fn unsent(&self) -> MutexGuard<'_, Unsent> {
        self.unsent.lock()
    }
}

impl Unsent {
    /// Writes frames to the socket, and buffers what it does not take.
    fn put(&mut self, stream: &TcpStream, most: usize, frames: &[u8]) {
        let taken = if self.bytes.is_empty() {
            self.offered(send(stream, frames))
        } else {
            0
        };
        let rest = frames.get(taken..).unwrap_or_default();
        if self.bytes.len() + rest.len() > most {
            self.broken.get_or_insert(ErrorKind::QuotaExceeded);
        }
        if !rest.is_empty() && self.broken.is_none() {
            self.bytes.extend_from_slice(rest);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Writes buffered bytes; returns whether the buffer is empty.
    fn drain(&mut self, stream: &TcpStream, behind: Duration) -> io::Result<bool> {
        let rest = std::mem::take(&mut self.bytes);
        let taken = if rest.is_empty() {
            0
        } else {
            self.offered(stream.try_write(&rest))
        };
        self.bytes = rest;
        self.bytes.advance(taken);
        if let Some(kind) = self.broken {
            return Err(kind.into());
        }
        if !self.bytes.is_empty() {
            return Ok(false);
        }
        // Frees the buffer's memory: an idle connection needs none.
        self.bytes = BytesMut::new();
        let late = self.since.take().filter(|since| since.elapsed() >= behind);
        if let (Some(_), Some(view)) = (late, &mut self.view) {
            view.falls_behind();
        }
        Ok(true)
    }

    /// The number of bytes that the socket took.
    fn offered(&mut self, taken: io::Result<usize>) -> usize {
        match taken {
            Ok(taken) if taken > 0 => return taken,
            Ok(_) => self.broken = Some(ErrorKind::WriteZero),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.broken = Some(error.kind()),
        }
        0
    }
}

/// Writes without a look at what the runtime knows of the socket, which is not in the processor's
/// cache: the socket is nearly always ready. If not, [`Unsent::drain`] finds out.
#[cfg(target_os = "linux")]
fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    // As in the standard library, a reader that is gone raises no signal.
    Ok(rustix::net::send(
        stream,
        bytes,
        rustix::net::SendFlags::NOSIGNAL,
    )?)
}

/// Writes without a look at what the runtime knows of the socket. Windows has no signal to raise;
/// on macOS the listener has switched it off.
#[cfg(not(target_os = "linux"))]
fn send(stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    socket2::SockRef::from(stream).send(bytes)
}

/// The connection as a byte stream for the WebSocket library, used by the connection's own task.
pub(crate) struct Wire(pub(crate) Arc<Connection>);

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stream = &self.0.stream;
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_read_buf(buf) {
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Wire {
    /// Accepts all bytes: the library writes whole frames, one per message or automatic answer, and
    /// the task continues only when they are flushed.
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        frames: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut unsent = self.0.unsent();
        if has_close(frames) {
            unsent.view = None;
        }
        unsent.put(&self.0.stream, self.0.most, frames);
        Poll::Ready(match unsent.broken {
            None => Ok(frames.len()),
            Some(kind) => Err(kind.into()),
        })
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }

    /// Does nothing: the socket is closed when the connection is dropped.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_drain(cx)
    }
}

/// Whether a close frame is among these frames: no frame may follow it.
pub(crate) fn has_close(frames: &[u8]) -> bool {
    let mut frames = Cursor::new(frames);
    while let Ok(Some((header, length))) = FrameHeader::parse(&mut frames) {
        if header.opcode == OpCode::Control(Control::Close) {
            return true;
        }
        frames.set_position(frames.position().saturating_add(length));
    }
    false
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
    use proto::status::v1::Cause;
    use tokio::{net::TcpSocket, time::timeout};
    use tokio_tungstenite::{
        WebSocketStream,
        tungstenite::{
            Message,
            protocol::{Role, WebSocketConfig},
        },
    };

    use super::*;
    use crate::{StatusHub, frames::Shape};

    const PATIENCE: Duration = Duration::from_secs(20);
    const REST_MAX: usize = 256 * 1024;

    /// Both ends of one connection, and a hub that is shown on it.
    struct Pair {
        hub: StatusHub,
        connection: Arc<Connection>,
        own: WebSocketStream<Wire>,
        reader: WebSocketStream<TcpStream>,
    }

    impl Pair {
        async fn open() -> Self {
            let listener = TcpSocket::new_v4().unwrap();
            listener.set_send_buffer_size(4 * 1024).unwrap();
            listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = listener.listen(1).unwrap();
            // A fixed receive buffer.
            let there = TcpSocket::new_v4().unwrap();
            there.set_recv_buffer_size(4 * 1024).unwrap();
            let there = there.connect(listener.local_addr().unwrap());
            let (there, here) = tokio::join!(there, listener.accept());
            let connection = Arc::new(Connection::new(here.unwrap().0, PATIENCE, REST_MAX));
            let wire = Wire(connection.clone());
            let any = WebSocketConfig::default()
                .max_message_size(None)
                .max_frame_size(None);
            let there = there.unwrap();
            connection.follow(Some(View::new(Shape::Legacy, Cause::First)));
            Self {
                hub: StatusHub::default(),
                connection,
                own: WebSocketStream::from_raw_socket(wire, Role::Server, None).await,
                reader: WebSocketStream::from_raw_socket(there, Role::Client, Some(any)).await,
            }
        }

        fn show(&self, text: &str) {
            self.hub.update(|status| status.text = text.to_owned());
            self.connection.show(&mut Frames::of(self.hub.latest()));
        }

        fn rest(&self) -> usize {
            self.connection.unsent().bytes.len()
        }

        /// The text of the next status, or another message.
        async fn read(&mut self) -> Option<Result<String, Message>> {
            let came = timeout(PATIENCE, self.reader.next()).await.unwrap();
            let Message::Text(text) = came?.ok()? else {
                return None;
            };
            let message: serde_json::Value = serde_json::from_str(&text).unwrap();
            let text = message["data"]["text"].as_str().map(str::to_owned);
            Some(text.ok_or(Message::text(message.to_string())))
        }
    }

    /// A text larger than all buffers between both ends.
    fn huge() -> String {
        "x".repeat(60_000)
    }

    #[tokio::test]
    async fn a_frame_left_half_written_is_finished_before_anything_else() {
        let mut pair = Pair::open().await;
        let huge = huge();
        pair.show(&huge);
        let rest = pair.rest();
        assert!(0 < rest && rest < huge.len(), "half of it is left: {rest}");
        timeout(PATIENCE, pair.connection.called()).await.unwrap();

        pair.show("passes by");
        assert_eq!(
            pair.rest(),
            rest,
            "nobody keeps what a stalled reader misses"
        );
        // One answer of the task, and one that the library gives by itself.
        pair.own.feed(Message::text("{}")).await.unwrap();
        let connection = pair.connection.clone();
        let drained = poll_fn(|cx| connection.poll_drain(cx));
        let mut own = pair.own;
        let answered = async { (own.flush().await.unwrap(), drained.await.unwrap()) };
        pair.own = {
            let reading = timeout(PATIENCE, pair.reader.next());
            let (_, first) = tokio::join!(answered, reading);
            let first = first.unwrap().unwrap().unwrap().into_text().unwrap();
            let first: serde_json::Value = serde_json::from_str(&first).unwrap();
            assert_eq!(first["data"]["text"], huge.as_str());
            own
        };
        assert_eq!(pair.read().await, Some(Err(Message::text("{}"))));

        assert!(pair.connection.take_missed() && !pair.connection.take_missed());
        pair.connection.show(&mut Frames::of(pair.hub.latest()));
        assert_eq!(pair.read().await, Some(Ok("passes by".into())));
        assert_eq!(
            pair.connection.unsent().bytes.capacity(),
            0,
            "at rest it keeps nothing"
        );
    }

    #[tokio::test]
    async fn a_status_that_passes_by_an_answer_is_told_to_its_task() {
        let mut pair = Pair::open().await;
        // None of this was shown, so only the task knows of it.
        pair.own.feed(Message::text(huge())).await.unwrap();
        assert!(pair.own.flush().now_or_never().is_none() && pair.rest() > 0);
        pair.show("passes by");
        timeout(PATIENCE, pair.connection.called()).await.unwrap();
        assert!(pair.connection.take_missed());
    }

    #[tokio::test]
    async fn what_is_kept_for_a_reader_has_an_end() {
        let mut pair = Pair::open().await;
        for _ in 0..REST_MAX / 60_000 {
            pair.own.feed(Message::text(huge())).await.unwrap();
            assert!(pair.own.flush().now_or_never().is_none());
        }
        let kept = pair.rest();
        let more = pair.own.feed(Message::text("x".repeat(REST_MAX))).await;
        let flushed = timeout(PATIENCE, pair.own.flush()).await;
        assert!(more.is_err() || flushed.unwrap().is_err());
        assert!(kept > 0 && pair.rest() <= kept, "{kept}");
    }

    #[tokio::test]
    async fn nothing_follows_a_close_frame() {
        let mut pair = Pair::open().await;
        pair.show("last");
        pair.own.close(None).await.unwrap();
        pair.show("too late");
        assert_eq!(pair.read().await, Some(Ok("last".into())));
        let closed = timeout(PATIENCE, pair.reader.next()).await.unwrap();
        assert!(matches!(closed, Some(Ok(Message::Close(None)))));
        drop((pair.own, pair.connection));
        let ended = timeout(PATIENCE, pair.reader.next()).await.unwrap();
        assert!(ended.is_none(), "{ended:?}");
    }

    #[tokio::test]
    async fn a_close_frame_is_found_behind_others() {
        let text = |size: usize| {
            let mut frame = match u8::try_from(size) {
                Ok(short @ 0..126) => vec![0x81, short],
                _ if size < 1 << 16 => [&[0x81, 126], &(size as u16).to_be_bytes()[..]].concat(),
                _ => [&[0x81, 127], &(size as u64).to_be_bytes()[..]].concat(),
            };
            frame.resize(frame.len() + size, 0x88);
            frame
        };
        for size in [0, 125, 126, 70_000] {
            assert!(!has_close(&text(size)), "{size}");
            assert!(has_close(&[text(size), vec![0x88, 0]].concat()), "{size}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_noticed_by_its_task() {
        let mut pair = Pair::open().await;
        pair.show(&huge());
        timeout(PATIENCE, pair.connection.called()).await.unwrap();
        drop(pair.reader);
        let connection = pair.connection.clone();
        let gone = timeout(PATIENCE, poll_fn(|cx| connection.poll_drain(cx))).await;
        assert!(gone.unwrap().is_err());
        let more = pair.own.send(Message::text("{}")).await;
        assert!(more.is_err(), "nothing is kept for it either");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_status_for_a_reader_that_is_gone_raises_no_signal() {
        use rustix::process::{Signal, getpid, kill_process};
        use tokio::signal::unix::{SignalKind, signal};

        let mut raised = signal(SignalKind::pipe()).unwrap();
        let mut later = signal(SignalKind::user_defined1()).unwrap();
        let Pair {
            hub,
            connection,
            reader,
            ..
        } = Pair::open().await;
        drop(reader);
        let writing = async {
            while connection.unsent().broken != Some(ErrorKind::BrokenPipe) {
                hub.update(|status| status.text.push('x'));
                connection.show(&mut Frames::of(hub.latest()));
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, writing).await.unwrap();
        kill_process(getpid(), Signal::USR1).unwrap();
        timeout(PATIENCE, later.recv()).await.unwrap().unwrap();
        assert!(raised.recv().now_or_never().is_none());
    }
}
