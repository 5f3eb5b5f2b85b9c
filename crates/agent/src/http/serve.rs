use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service as _, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use status::{Arrival, Arrivals};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Limits, stall_timeout::StallTimeout};

/// Timeout of a request head, and of an idle connection.
const HEAD: Duration = Duration::from_secs(10);
/// Maximum time for the last responses when the server stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves until `stop`; stream readers then receive the last status.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) {
    let arrivals = Arrivals::new(limits.asking);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                note(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the local HTTP server cannot accept a connection");
                let _ = stop
                    .run_until_cancelled(sleep(Duration::from_millis(200)))
                    .await;
                continue;
            }
        };
        let arrival = Arc::new(arrivals.enter());
        let (router, stop) = (router.clone(), stop.clone());
        connections.spawn(talk(stream, arrival, router, limits.stall, stop));
    }
    let last = async {
        while let Some(ended) = connections.join_next().await {
            note(ended);
        }
    };
    if timeout(FAREWELL, last).await.is_err() {
        tracing::debug!("some local connections did not end in time");
    }
}

/// Serves one connection until it ends, the server stops, or it is closed to make room for others.
async fn talk(
    stream: TcpStream,
    arrival: Arc<Arrival>,
    router: Router,
    stall: Duration,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let (router, known) = (TowerToHyperService::new(router), arrival.clone());
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(known.clone());
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(StallTimeout::new(stream, stall)), answer);
    tokio::pin!(connection);
    let serving = async {
        match stop.run_until_cancelled(connection.as_mut()).await {
            Some(served) => served,
            None => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Some(Err(error)) = arrival.unless_cut(serving).await {
        tracing::debug!(%error, "a local connection ended early");
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a local connection failed");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use engine::Clock;
    use status::{Access, StatusHub, bind_loopback};
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
        net::TcpSocket,
        sync::watch,
    };

    use super::*;
    use crate::http::{Events, Metrics, router};

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Served {
        hub: StatusHub,
        addr: SocketAddr,
        stop: CancellationToken,
        run: JoinSet<()>,
    }

    impl Served {
        async fn start(limits: Limits) -> Self {
            let bound = bind_loopback(&[0]).await.unwrap();
            let (hub, stop) = (StatusHub::default(), CancellationToken::new());
            let events = Events::new(hub.clone(), Clock::default(), limits, stop.clone());
            let metrics = Metrics {
                activity: watch::channel(worker::Activity::default()).1,
                subscribers: watch::channel(0).1,
            };
            let access = Access::new(bound.addr.port(), &[]);
            let router = router(hub.clone(), access, events, metrics);
            let mut run = JoinSet::new();
            run.spawn(serve(bound.listener, router, limits, stop.clone()));
            Self {
                hub,
                addr: bound.addr,
                stop,
                run,
            }
        }

        async fn reader(&self, until: &str) -> BufReader<TcpStream> {
            self.over(TcpStream::connect(self.addr).await.unwrap(), until)
                .await
        }

        /// A reader with a small receive buffer, so that not reading blocks the server soon.
        async fn narrow(&self, until: &str) -> BufReader<TcpStream> {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(64 * 1024).unwrap();
            self.over(socket.connect(self.addr).await.unwrap(), until)
                .await
        }

        async fn over(&self, mut stream: TcpStream, until: &str) -> BufReader<TcpStream> {
            let head = format!("GET /status/stream HTTP/1.1\r\nHost: {}\r\n\r\n", self.addr);
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut reader = BufReader::new(stream);
            line(&mut reader, until).await;
            reader
        }
    }

    async fn line(reader: &mut BufReader<TcpStream>, needle: &str) {
        let reading = async {
            let mut line = String::new();
            while !line.contains(needle) {
                line.clear();
                assert_ne!(reader.read_line(&mut line).await.unwrap(), 0, "it ended");
            }
        };
        timeout(PATIENCE, reading).await.unwrap();
    }

    #[tokio::test]
    async fn who_takes_nothing_is_cut_off_and_slows_nobody() {
        let served = Served::start(Limits {
            streams: 2,
            stall: Duration::from_millis(200),
            pace: Duration::ZERO,
            ..Limits::default()
        })
        .await;
        let mut stuck = served.narrow("data: ").await;
        let mut good = served.reader("data: ").await;
        served.reader("HTTP/1.1 503").await;
        // Until the stalled reader's slot is free; the other reader receives each status.
        let pushing = async {
            for n in 0.. {
                let text = format!("{n}/{}", "x".repeat(16 * 1024));
                served.hub.update(|status| status.text = text);
                line(&mut good, &format!("\"text\":\"{n}/")).await;
                let mut third = served.reader("HTTP/1.1").await;
                let mut head = String::new();
                while head != "\r\n" {
                    head.clear();
                    third.read_line(&mut head).await.unwrap();
                    if head.contains("text/event-stream") {
                        return;
                    }
                }
            }
        };
        timeout(PATIENCE, pushing).await.unwrap();
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, stuck.read_to_end(&mut rest))
            .await
            .unwrap();
        drop(read);
        assert!(
            rest.len() < 1024 * 1024,
            "kept for one who does not read: {}",
            rest.len()
        );
    }

    #[tokio::test]
    async fn whoever_holds_connections_keeps_nobody_from_asking() {
        let served = Served::start(Limits {
            streams: 2,
            asking: 4,
            ..Limits::default()
        })
        .await;
        let mut readers = [served.reader("data: ").await, served.reader("data: ").await];
        let (mut silent, mut ended) = (Vec::new(), JoinSet::new());
        for _ in 0..40 {
            silent.push(TcpStream::connect(served.addr).await.unwrap());
        }
        let ask = async |path: &str| {
            let mut asker = TcpStream::connect(served.addr).await.unwrap();
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                served.addr
            );
            asker.write_all(head.as_bytes()).await.unwrap();
            let mut said = String::new();
            let read = timeout(PATIENCE, asker.read_to_string(&mut said)).await;
            read.unwrap().unwrap();
            said
        };
        let said = ask("/api/status").await;
        assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
        let said = ask("/status/stream").await;
        assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
        assert!(
            said.contains("\"busy\"") && said.contains("retry-after: 5"),
            "{said}"
        );
        for mut stream in silent {
            ended.spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
        // Well within the timeout of a request head.
        for _ in 0..36 {
            let cut = timeout(HEAD / 2, ended.join_next()).await.unwrap();
            drop(cut.unwrap().unwrap());
        }
        // Stream readers do not count against the limit of other connections.
        served.hub.update(|status| status.text = "still".into());
        for reader in &mut readers {
            line(reader, "\"text\":\"still\"").await;
        }
    }

    #[tokio::test]
    async fn a_stop_tells_the_last_status_and_ends_every_answer() {
        let mut served = Served::start(Limits::default()).await;
        let mut reader = served.reader("data: ").await;
        served.hub.update(|status| status.text = "farewell".into());
        served.stop.cancel();
        line(&mut reader, "farewell").await;
        let mut rest = String::new();
        timeout(PATIENCE, reader.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        assert!(rest.ends_with("0\r\n\r\n"), "{rest:?}");
        timeout(PATIENCE, served.run.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
