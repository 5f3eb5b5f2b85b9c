//! A relay, a worker and a scripted Ollama, connected by real sockets.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use engine::{EngineTimes, Ollama, parse_host};
use hearth_tests::{scripted_ollama::ScriptedOllama, test_bed::client};
use proto::{Account, Timestamp, WorkerId};
use queue::{Ceiling, Keys as _, MemoryQueue, Scope, Serve};
use relay::{Relay, RelaySettings, SystemWorld, World as _, keys};
use reqwest::{Method, Response};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use worker::{Random, Tuning, Worker, WorkerHandle, WorkerSettings};

/// Timeout of every wait; only a bug takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// The carrier between worker and relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// A WebSocket.
    WebSocket,
    /// Polling, because a proxy refuses upgrades.
    Polls,
}

/// A relay, its workers and their engine. All of them stop when this is dropped.
pub(crate) struct Site {
    pub(crate) relay: SocketAddr,
    pub(crate) ollama: ScriptedOllama,
    pub(crate) store: Arc<MemoryQueue>,
    pub(crate) http: reqwest::Client,
    pub(crate) key: String,
    pub(crate) workers: Vec<WorkerHandle>,
    doorway: SocketAddr,
    _tasks: JoinSet<()>,
    leave: CancellationToken,
    at_work: JoinSet<()>,
    _stop: DropGuard,
}

impl Site {
    /// A site with one worker that has one slot.
    pub(crate) async fn start(carrier: Carrier) -> Self {
        let mut site = Self::without_worker(carrier).await;
        site.add_worker("home", |_| {}).await;
        site
    }

    pub(crate) async fn without_worker(carrier: Carrier) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(MemoryQueue::default());
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let key = create_key(&store, &[Scope::Enqueue, Scope::Read]).await;
        let mut settings = RelaySettings::default();
        settings.drain = Duration::ZERO;
        let relay = Relay::new(store.clone(), settings, Arc::new(SystemWorld));
        let served = relay::serve(listener, relay, stop.clone());
        tasks.spawn(async move { served.await.unwrap() });
        let mut doorway = address;
        if carrier == Carrier::Polls {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            doorway = listener.local_addr().unwrap();
            tasks.spawn(refuse_upgrades(listener, address));
        }
        Self {
            relay: address,
            ollama: ScriptedOllama::start().await.unwrap(),
            store,
            http: client(),
            key,
            workers: Vec::new(),
            doorway,
            _tasks: tasks,
            leave: stop.child_token(),
            at_work: JoinSet::new(),
            _stop: stop.drop_guard(),
        }
    }

    /// Starts a worker in front of the Ollama and waits until its models are offered.
    pub(crate) async fn add_worker(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut WorkerSettings),
    ) {
        self.add(name, change).await;
        let is_offered = |tags: &str| tags.contains(r#""name""#);
        self.until(Method::GET, "/api/tags", "", is_offered).await;
    }

    /// Starts a worker in front of the Ollama.
    pub(crate) async fn add(&mut self, name: &str, change: impl FnOnce(&mut WorkerSettings)) {
        let url = format!("http://{}", self.doorway).parse().unwrap();
        let key = create_key(&self.store, &[Scope::Work]).await;
        let name = WorkerId::new(name).unwrap();
        let mut settings = WorkerSettings::new(url, key.into(), name);
        settings.drain = Duration::ZERO;
        let short = Duration::from_millis(5);
        settings.tuning = Tuning {
            reconnect: (short, short),
            engine_retry: (short, short),
            random: Random::new(|| 0.0),
            ..Tuning::default()
        };
        change(&mut settings);
        let host = parse_host(&self.ollama.url()).unwrap();
        let engine = Ollama::new(&host.url, EngineTimes::default()).unwrap();
        let (worker, handle) = Worker::new(settings, Arc::new(engine));
        let run = worker.run(self.leave.clone());
        self.at_work.spawn(async move { run.await.unwrap() });
        self.workers.push(handle);
    }

    /// Stops every worker and waits until the relay has noticed.
    pub(crate) async fn stop_workers(&mut self) {
        self.leave.cancel();
        bounded(async { while self.at_work.join_next().await.is_some() {} }).await;
        let chat = r#"{"model":"tiny","messages":[]}"#;
        self.until(Method::POST, "/api/chat", chat, |body| {
            body.contains("no worker")
        })
        .await;
    }

    /// Repeats a request until the answer is as expected.
    pub(crate) async fn until(
        &self,
        method: Method,
        path: &str,
        body: &str,
        is_there: impl Fn(&str) -> bool,
    ) -> String {
        let mut last = String::new();
        let asking = async {
            loop {
                last = self.ask(method.clone(), path, body).await.body;
                if is_there(&last) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let found = timeout(PATIENCE, asking).await.is_ok();
        assert!(found, "{path} never answers as it should: {last}");
        last
    }

    /// Sends a request with the client's key.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &str) -> Exchange {
        let response = self.begin(method, path, body).await;
        bounded(Exchange::read(response)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Exchange {
        self.ask(Method::POST, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Exchange {
        self.ask(Method::GET, path, "").await
    }

    /// Starts a request in its own task.
    pub(crate) fn asking(&self, path: &str, body: &str) -> JoinHandle<Exchange> {
        let request = self
            .http
            .post(format!("http://{}{path}", self.relay))
            .bearer_auth(&self.key)
            .body(body.to_owned());
        tokio::spawn(async move { Exchange::read(request.send().await.unwrap()).await })
    }

    /// The start of an answer.
    pub(crate) async fn begin(&self, method: Method, path: &str, body: &str) -> Response {
        let request = self
            .http
            .request(method, format!("http://{}{path}", self.relay))
            .bearer_auth(&self.key)
            .body(body.to_owned());
        bounded(request.send()).await.unwrap()
    }

    /// The bodies that arrived at the Ollama's `path`, in order.
    pub(crate) fn arrived(&self, path: &str) -> Vec<String> {
        let bodies = self.ollama.requests_for(path).into_iter();
        bodies
            .map(|request| String::from_utf8(request.body.to_vec()).unwrap())
            .collect()
    }
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) status: u16,
    pub(crate) kind: String,
    pub(crate) body: String,
}

impl Exchange {
    async fn read(response: Response) -> Self {
        let kind = response.headers().get("content-type");
        let kind = kind.map(|kind| kind.to_str().unwrap().to_owned());
        Self {
            status: response.status().as_u16(),
            kind: kind.unwrap_or_default(),
            body: response.text().await.unwrap(),
        }
    }
}

pub(crate) async fn bounded<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

pub(crate) async fn create_key(store: &MemoryQueue, scopes: &[Scope]) -> String {
    create_key_within(store, scopes, Ceiling::default()).await
}

pub(crate) async fn create_key_within(
    store: &MemoryQueue,
    scopes: &[Scope],
    ceiling: Ceiling,
) -> String {
    let n = store.list_keys().await.unwrap().len();
    let for_ = keys::KeyFor {
        name: format!("key-{n}"),
        account: Account::new("default").unwrap(),
        scopes: scopes.iter().copied().collect::<BTreeSet<_>>(),
        serve: Serve::All,
        ceiling,
        expires_at: None,
    };
    let id = SystemWorld.random().unwrap()[..6].try_into().unwrap();
    let (text, record) = keys::mint(for_, id, SystemWorld.random().unwrap(), Timestamp(0));
    store.create_key(record).await.unwrap();
    text.reveal().to_owned()
}

/// A proxy that refuses WebSocket upgrades.
async fn refuse_upgrades(listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // Either side may close at any time.
            drop(pass_unless_upgrade(client, target).await);
        });
    }
}

async fn pass_unless_upgrade(mut client: TcpStream, target: SocketAddr) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut begun = Vec::new();
    while !begun.windows(4).any(|window| window == b"\r\n\r\n") {
        if client.read_buf(&mut begun).await? == 0 {
            return Ok(());
        }
    }
    if String::from_utf8_lossy(&begun)
        .to_lowercase()
        .contains("upgrade: websocket")
    {
        let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(refusal).await;
    }
    let mut server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    server.write_all(&begun).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
