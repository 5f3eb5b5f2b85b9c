//! An Ollama on a real socket that a test controls: it answers, breaks off, or falls silent.
//!
//! Without a script it answers like an Ollama whose models repeat their input.

mod talk;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// For example `POST`.
    pub method: String,
    /// For example `/api/chat`.
    pub path: String,
    /// The headers; names are in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Bytes,
}

/// One step of a scripted answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends the status line and headers of a chunked answer.
    Head(u16, Option<&'static str>),
    /// Sends one chunk of the body.
    Send(Bytes),
    /// Waits until the gate opens.
    Wait(Gate),
    /// Waits for this time.
    Pause(Duration),
    /// Sends the end of the body.
    Finish,
    /// Closes the connection in the middle.
    Cut,
}

/// Holds an answer back until a test opens it.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Opens the gate for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut open = self.0.subscribe();
        // `self` holds the sender.
        drop(open.wait_for(|open| *open).await);
    }
}

/// A scripted answer to one request.
#[derive(Debug, Clone, Default)]
pub struct Answer(Vec<Step>);

impl Answer {
    /// A stream of lines, one chunk each, with a proper end.
    pub fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self::begin().send_lines(lines).then(Step::Finish)
    }

    /// The head of a stream of lines, to be continued.
    #[must_use]
    pub fn begin() -> Self {
        Self(vec![Step::Head(200, Some("application/x-ndjson"))])
    }

    /// A status with a JSON body, as in Ollama's errors.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        let kind = "application/json; charset=utf-8";
        Self(vec![Step::Head(status, Some(kind))])
            .then(Step::Send(Bytes::copy_from_slice(body.as_bytes())))
            .then(Step::Finish)
    }

    /// A status without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self(vec![Step::Head(status, None), Step::Finish])
    }

    /// Waits for the gate before anything is sent.
    #[must_use]
    pub fn after(gate: &Gate) -> Self {
        Self(vec![Step::Wait(gate.clone())])
    }

    /// Adds lines.
    #[must_use]
    pub fn send_lines<'a>(mut self, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let chunk = |line: &str| Step::Send(Bytes::from(format!("{line}\n")));
        self.0.extend(lines.into_iter().map(chunk));
        self
    }

    /// Adds a step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Adds all steps of another answer.
    #[must_use]
    pub fn then_all(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// Computes the answer to a request.
#[derive(Clone)]
struct Writer(Arc<dyn Fn(&Request) -> Answer + Send + Sync>);

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// State shared by all connections.
#[derive(Debug, Default)]
struct Stage {
    scripts: Mutex<HashMap<String, VecDeque<Answer>>>,
    settled: Mutex<HashMap<String, Writer>>,
    models: Mutex<Vec<(String, bool)>>,
    requests: Mutex<Vec<Request>>,
    arrived: watch::Sender<usize>,
    left: watch::Sender<usize>,
}

/// The server. Stops when dropped.
#[derive(Debug)]
pub struct ScriptedOllama {
    address: SocketAddr,
    stage: Arc<Stage>,
    tasks: Option<JoinSet<()>>,
}

impl ScriptedOllama {
    /// Starts a server on a free port, with one model called `tiny:latest`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut ollama = Self {
            address: listener.local_addr()?,
            stage: Arc::default(),
            tasks: None,
        };
        ollama.set_models(&[("tiny:latest", false)]);
        ollama.serve(listener);
        Ok(ollama)
    }

    fn serve(&mut self, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        tasks.spawn(wire::accept(listener, Arc::clone(&self.stage)));
        self.tasks = Some(tasks);
    }

    /// The URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the answer to the next request for `path`; further answers are queued.
    pub fn script(&self, path: &str, answer: Answer) {
        let mut scripts = self.stage.scripts.lock();
        scripts
            .entry(path.to_owned())
            .or_default()
            .push_back(answer);
    }

    /// Sets the answer to every request for `path` without a queued one.
    pub fn settle(&self, path: &str, answer: Answer) {
        self.settle_with(path, move |_| answer.clone());
    }

    /// Sets a function that answers every request for `path` without a queued answer.
    pub fn settle_with(
        &self,
        path: &str,
        write: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) {
        let writer = Writer(Arc::new(write));
        self.stage.settled.lock().insert(path.to_owned(), writer);
    }

    /// Sets the models, and whether each is loaded.
    pub fn set_models(&self, models: &[(&str, bool)]) {
        let models = models
            .iter()
            .map(|(name, loaded)| ((*name).to_owned(), *loaded));
        *self.stage.models.lock() = models.collect();
    }

    /// All requests so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.stage.requests.lock().clone()
    }

    /// All requests for one path so far.
    #[must_use]
    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// Waits until this many requests for `path` have arrived.
    pub async fn until_asked(&self, path: &str, times: usize) {
        let mut arrived = self.stage.arrived.subscribe();
        let is_there = |_: &usize| self.requests_for(path).len() >= times;
        // `self` holds the sender.
        drop(arrived.wait_for(is_there).await);
    }

    /// Waits until this many clients have disconnected before the end of their answer.
    pub async fn until_left(&self, times: usize) {
        let mut left = self.stage.left.subscribe();
        drop(left.wait_for(|left| *left >= times).await);
    }

    /// Number of clients that have disconnected before the end of their answer.
    #[must_use]
    pub fn left(&self) -> usize {
        *self.stage.left.borrow()
    }

    /// Breaks every connection and refuses new ones.
    pub async fn go_down(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    /// Listens again at the same address.
    ///
    /// # Errors
    /// If another program has taken the port.
    pub async fn come_back(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serve(listener);
        Ok(())
    }
}

impl Stage {
    fn note(&self, request: Request) {
        self.requests.lock().push(request);
        self.arrived.send_modify(|count| *count += 1);
    }

    fn answer(&self, request: &Request) -> Answer {
        let scripted = self
            .scripts
            .lock()
            .get_mut(&request.path)
            .and_then(VecDeque::pop_front);
        if let Some(scripted) = scripted {
            return scripted;
        }
        let settled = self.settled.lock().get(&request.path).cloned();
        match settled {
            Some(Writer(write)) => write(request),
            None => talk::answer(request, &self.models.lock()),
        }
    }
}
