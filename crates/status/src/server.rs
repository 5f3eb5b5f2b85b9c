use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::{
    ErrorCode, limits,
    status::{Command, v1::Nonce},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Error};
use tokio_util::sync::CancellationToken;

use crate::{
    Access, Approvals, Arrival, Arrivals, LocalToken, StatusHub, World,
    caller::Caller,
    connection::Wire,
    legacy,
    pipe::Pipe,
    publishers::PublisherSlot,
    readers::Readers,
    socket_slots::SocketSlots,
    token_check::TokenCheck,
    upgrade::{Gate, Opened, upgrade},
    v1::{self, Handshake},
};

/// The outcome of a command: carried out, or a stable code and a message.
pub type Answer = Result<(), (ErrorCode, String)>;

/// A command from a socket to the agent.
#[derive(Debug)]
pub struct Request {
    /// The command.
    pub command: Command,
    /// The channel for the answer; dropping it means that the agent is stopping.
    pub answer: oneshot::Sender<Answer>,
}

/// Limits of the hub, with their defaults.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum number of sockets: 1,024.
    pub sockets: usize,
    /// Number of further sockets, reserved for clients that prove a token: 32.
    pub kept: usize,
    /// Maximum number of connections that have not identified themselves; one more closes the
    /// oldest: 1,024.
    pub arriving: usize,
    /// Maximum time from the connection to the open socket: 5 s.
    pub handshake: Duration,
    /// Maximum time for which a reader may take nothing: 5 s.
    pub stall: Duration,
    /// Maximum wait for the peer of a closed socket to close its side too: 1 s.
    pub farewell: Duration,
    /// Minimum interval between two statuses, so that at most 20 a second are sent: 50 ms.
    pub pace: Duration,
    /// Maximum time for the agent to answer a command: 5 s.
    pub answer: Duration,
    /// Number of messages read in a burst: 200.
    pub burst: u32,
    /// Number of messages read in a burst from a client of `hearth.status.v1`, which need not poll:
    /// 40.
    pub burst_v1: u32,
    /// Number of messages read per second after the burst: 20.
    pub per_second: u32,
    /// Maximum time from an open socket to `identify`, in `hearth.status.v1`: 3 s.
    pub identify: Duration,
    /// Maximum time for a publisher to answer a command: 3 s.
    pub publisher: Duration,
    /// Maximum time for the owner to decide an approval: 2 minutes.
    pub approval: Duration,
    /// Lag after which a reader gets a snapshot next: 1 s.
    pub behind: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets: limits::HUB_SOCKETS_MAX,
            kept: 32,
            arriving: limits::HUB_SOCKETS_MAX,
            handshake: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            farewell: Duration::from_secs(1),
            pace: Duration::from_millis(50),
            answer: Duration::from_secs(5),
            burst: 200,
            burst_v1: 40,
            per_second: 20,
            identify: Duration::from_secs(3),
            publisher: Duration::from_secs(3),
            approval: Duration::from_secs(120),
            behind: Duration::from_secs(1),
        }
    }
}

/// Serves a [`StatusHub`] over WebSockets.
pub struct StatusServer {
    hub: StatusHub,
    token: LocalToken,
    commands: mpsc::Sender<Request>,
    origins: Vec<String>,
    approvals: Option<Approvals>,
    limits: Limits,
    world: World,
    /// The number of the next publisher.
    seats: AtomicU64,
    connected: watch::Sender<usize>,
    readers: Readers,
}

impl StatusServer {
    /// A server of `hub`; commands of clients with `token` are sent to `commands`.
    #[must_use]
    pub fn new(hub: StatusHub, token: LocalToken, commands: mpsc::Sender<Request>) -> Self {
        Self {
            hub,
            token,
            commands,
            origins: Vec::new(),
            approvals: None,
            limits: Limits::default(),
            world: World::default(),
            seats: AtomicU64::new(0),
            connected: watch::Sender::default(),
            readers: Readers::default(),
        }
    }

    /// Allows web pages of these origins, besides Hearth's own.
    #[must_use]
    pub fn allow(mut self, origins: Vec<String>) -> Self {
        self.origins = origins;
        self
    }

    /// Asks the owner about commands of programs without the token, instead of refusing them.
    #[must_use]
    pub fn ask_owner(mut self, approvals: Approvals) -> Self {
        self.approvals = Some(approvals);
        self
    }

    /// Replaces the limits.
    #[must_use]
    pub fn limit(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Replaces the system's clock and random number generator.
    #[must_use]
    pub fn within(mut self, world: World) -> Self {
        self.world = world;
        self
    }

    /// The number of open sockets.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<usize> {
        self.connected.subscribe()
    }

    /// Accepts connections until `stop`, then closes every socket with a close frame.
    ///
    /// # Errors
    /// If the listener has no address.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let port = listener.local_addr()?.port();
        let access = Access::new(port, &self.origins);
        let token_check = TokenCheck::new(
            self.token.clone(),
            self.approvals.clone(),
            Instant::now().into_std(),
        );
        let gate = Gate {
            access,
            token_check,
            port,
            behind: self.limits.behind,
            room: SocketSlots::new(self.limits.sockets, self.limits.kept),
            message_max: limits::HUB_MESSAGE_MAX,
        };
        let (server, gate) = (Arc::new(self), Arc::new(gate));
        let mut sockets = JoinSet::new();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = server.readers.show(server.hub.subscribe(), server.limits.pace) => {}
            () = server.accept(&listener, &gate, &mut sockets, &stop) => {}
        }
        while let Some(ended) = sockets.join_next().await {
            note(ended);
        }
        Ok(())
    }

    /// Accepts connections forever.
    async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
        gate: &Arc<Gate>,
        sockets: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) {
        let arrivals = Arrivals::new(self.limits.arriving);
        loop {
            let accepted = tokio::select! {
                biased;
                Some(ended) = sockets.join_next() => {
                    note(ended);
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (server, gate, stop) = (self.clone(), gate.clone(), stop.clone());
                    let arrival = arrivals.enter();
                    sockets
                        .spawn(async move { server.welcome(stream, &gate, arrival, stop).await });
                }
                Err(error) => {
                    // Usually no file descriptor is left; some connections must close first.
                    tracing::warn!(%error, "the hub cannot accept");
                    sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn welcome(
        &self,
        stream: TcpStream,
        gate: &Gate,
        arrival: Arrival,
        stop: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "no TCP_NODELAY");
        }
        // Boxed and freed once the socket is open, so that an idle socket does not keep the memory.
        let opening = timeout(self.limits.handshake, Box::pin(upgrade(stream, gate)));
        let opening = arrival.unless_cut(opening);
        let Some(Some(Ok(Some(opened)))) = stop.run_until_cancelled(opening).await else {
            return;
        };
        self.connected.send_modify(|count| *count += 1);
        // Each mode is boxed on its own, so that no socket has the size of the larger one.
        let serving: Pin<Box<dyn Future<Output = _> + Send>> = if opened.agreed.is_v1 {
            Box::pin(self.attend_v1(opened, arrival, gate, &stop))
        } else {
            drop(arrival);
            Box::pin(self.attend_legacy(opened, gate, &stop))
        };
        let ended = serving.await;
        self.connected.send_modify(|count| *count -= 1);
        if let Err(error) = ended {
            tracing::debug!(%error, "a socket of the hub ended");
        }
    }
}

impl StatusServer {
    async fn attend_legacy(
        &self,
        opened: Opened,
        gate: &Gate,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let _place = opened.agreed.place;
        let (pipe, caller) = self.ends(opened.stream, opened.origin, gate);
        let _joined = self.readers.join(pipe.connection.clone());
        let session = legacy::Session {
            pipe,
            grant: opened.agreed.grant,
            caller,
            held: None,
            hub: self.hub.clone(),
            commands: self.commands.clone(),
            limits: self.limits,
            world: &self.world,
        };
        session.run(stop).await
    }

    async fn attend_v1(
        &self,
        opened: Opened,
        arrival: Arrival,
        gate: &Gate,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let (mut pipe, caller) = self.ends(opened.stream, opened.origin, gate);
        let _joined = self.readers.join(pipe.connection.clone());
        let greeting = v1::Greeting {
            token_check: &gate.token_check,
            port: gate.port,
            nonce: Nonce((self.world.random)()),
            grant: opened.agreed.grant,
            within: self.limits.identify,
            room: &gate.room,
            place: opened.agreed.place,
        };
        let meeting = Box::pin(greeting.handshake(&mut pipe, stop));
        let Some(met) = arrival.unless_cut(meeting).await else {
            return Ok(());
        };
        match met? {
            Handshake::Client(client, _place) => {
                drop(arrival);
                let slot = client.may_publish().then(|| {
                    let number = self.seats.fetch_add(1, Ordering::Relaxed);
                    PublisherSlot::new(self.hub.clone(), number, client.name.clone())
                });
                let session = v1::Session {
                    slot,
                    pipe,
                    client,
                    caller,
                    held: None,
                    hub: self.hub.clone(),
                    commands: self.commands.clone(),
                    limits: self.limits,
                    world: &self.world,
                };
                session.run(stop).await
            }
            // Still counts as arriving: closing waits for the client, and there may be many.
            Handshake::Stranger(code, reason) => {
                let closed = arrival.unless_cut(pipe.close(code, reason)).await;
                closed.unwrap_or(Ok(()))
            }
            Handshake::Gone => Ok(()),
        }
    }

    /// Both ends of an open socket: the hub's pipe, and the identity of the client.
    fn ends(
        &self,
        stream: WebSocketStream<Wire>,
        origin: Option<String>,
        gate: &Gate,
    ) -> (Pipe, Caller) {
        let pipe = Pipe::new(stream, self.limits.stall, self.limits.farewell);
        let caller = Caller {
            approvals: self.approvals.clone(),
            from: pipe.connection.stream().peer_addr().ok(),
            port: gate.port,
            origin,
            peer: None,
            within: self.limits.approval,
        };
        (pipe, caller)
    }
}

impl fmt::Debug for StatusServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatusServer with {} sockets", *self.connected.borrow())
    }
}

fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a socket of the hub broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_limits_are_those_of_the_hub() {
        let Limits {
            sockets,
            handshake,
            stall,
            farewell,
            pace,
            answer,
            burst,
            burst_v1,
            per_second,
            identify,
            publisher,
            approval,
            behind,
            kept,
            arriving,
        } = Limits::default();
        let millis = |time: Duration| format!("{} ms", time.as_millis());
        let wanted = [
            sockets.to_string(),
            kept.to_string(),
            arriving.to_string(),
            millis(handshake),
            millis(identify),
            format!("{} bytes", limits::HUB_MESSAGE_MAX),
            burst.to_string(),
            burst_v1.to_string(),
            per_second.to_string(),
            millis(pace),
            millis(behind),
            millis(stall),
            millis(farewell),
            millis(answer),
            millis(publisher),
            millis(approval),
        ];
        let page = include_str!("../../../docs/PROTOCOL.md");
        let (_, table) = page.split_once("### Limits").unwrap();
        let (table, _) = table.split_once("### Close codes").unwrap();
        let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
        let shown: Vec<_> = rows
            .map(|row| row.trim_end_matches(" |").rsplit(" | ").next().unwrap())
            .collect();
        assert_eq!(shown, wanted);
    }
}
