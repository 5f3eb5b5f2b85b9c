//! An Ollama over a real socket that does what a test tells it to: answers, dies, falls silent.
//!
//! Without a script it answers like an Ollama whose models repeat what they are told.

mod talk;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// For example `POST`.
    pub method: String,
    /// For example `/api/chat`.
    pub path: String,
    /// Names in lower case.
    pub headers: HashMap<String, String>,
    /// The body's bytes.
    pub body: Bytes,
}

/// One step of a scripted answer.
#[derive(Debug, Clone)]
pub enum Step {
    /// The status line and the headers of a chunked answer.
    Head(u16, Option<&'static str>),
    /// One chunk of the body.
    Send(Bytes),
    /// Nothing until the gate opens.
    Wait(Gate),
    /// Nothing for so long: a model that thinks.
    Pause(Duration),
    /// The proper end of the body.
    Finish,
    /// The connection is closed in the middle.
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
    /// Lets everything through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        let mut open = self.0.subscribe();
        // The sender is `self`; it cannot be gone.
        drop(open.wait_for(|open| *open).await);
    }
}

/// A scripted answer to one request.
#[derive(Debug, Clone, Default)]
pub struct Answer(Vec<Step>);

impl Answer {
    /// A stream of lines, each in a chunk of its own, with a proper end.
    pub fn lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self::begin().send_lines(lines).then(Step::Finish)
    }

    /// The head of a stream of lines, to be continued.
    #[must_use]
    pub fn begin() -> Self {
        Self(vec![Step::Head(200, Some("application/x-ndjson"))])
    }

    /// A status with a JSON body, as Ollama words its errors.
    #[must_use]
    pub fn json(status: u16, body: &str) -> Self {
        let kind = "application/json; charset=utf-8";
        Self(vec![Step::Head(status, Some(kind))])
            .then(Step::Send(Bytes::copy_from_slice(body.as_bytes())))
            .then(Step::Finish)
    }

    /// A status with nothing else.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self(vec![Step::Head(status, None), Step::Finish])
    }

    /// No answer at all until the gate opens, then the steps that follow.
    #[must_use]
    pub fn after(gate: &Gate) -> Self {
        Self(vec![Step::Wait(gate.clone())])
    }

    /// More lines.
    #[must_use]
    pub fn send_lines<'a>(mut self, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let chunk = |line: &str| Step::Send(Bytes::from(format!("{line}\n")));
        self.0.extend(lines.into_iter().map(chunk));
        self
    }

    /// One more step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// All steps of another answer.
    #[must_use]
    pub fn then_all(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// Makes the answer to a request.
#[derive(Clone)]
struct Writer(Arc<dyn Fn(&Request) -> Answer + Send + Sync>);

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// What every connection shares.
#[derive(Debug, Default)]
struct Stage {
    scripts: Mutex<HashMap<String, VecDeque<Answer>>>,
    settled: Mutex<HashMap<String, Writer>>,
    models: Mutex<Vec<(String, bool)>>,
    requests: Mutex<Vec<Request>>,
    arrived: watch::Sender<usize>,
    left: watch::Sender<usize>,
}

/// The server. Ends when dropped.
#[derive(Debug)]
pub struct ScriptedOllama {
    address: SocketAddr,
    stage: Arc<Stage>,
    tasks: Option<JoinSet<()>>,
}

impl ScriptedOllama {
    /// Starts one on a free port, with one model called `tiny:latest`.
    ///
    /// # Errors
    /// If no port can be had.
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

    /// Its address as a client wants it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request for `path` gets this answer; several wait in line.
    pub fn script(&self, path: &str, answer: Answer) {
        let mut scripts = lock(&self.stage.scripts);
        scripts
            .entry(path.to_owned())
            .or_default()
            .push_back(answer);
    }

    /// Every request for `path` without a script of its own gets this answer from now on.
    pub fn settle(&self, path: &str, answer: Answer) {
        self.settle_with(path, move |_| answer.clone());
    }

    /// The same, with an answer of its own for each request.
    pub fn settle_with(
        &self,
        path: &str,
        write: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) {
        let writer = Writer(Arc::new(write));
        lock(&self.stage.settled).insert(path.to_owned(), writer);
    }

    /// Which models it has, and whether each is in memory.
    pub fn set_models(&self, models: &[(&str, bool)]) {
        let models = models
            .iter()
            .map(|(name, loaded)| ((*name).to_owned(), *loaded));
        *lock(&self.stage.models) = models.collect();
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.stage.requests).clone()
    }

    /// Every request for one path so far.
    #[must_use]
    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path == path);
        requests
    }

    /// Waits until so many requests for `path` have arrived.
    pub async fn until_asked(&self, path: &str, times: usize) {
        let mut arrived = self.stage.arrived.subscribe();
        let is_there = |_: &usize| self.requests_for(path).len() >= times;
        // The sender is held by `self`.
        drop(arrived.wait_for(is_there).await);
    }

    /// Waits until so many clients have gone before their answer was finished.
    pub async fn until_left(&self, times: usize) {
        let mut left = self.stage.left.subscribe();
        drop(left.wait_for(|left| *left >= times).await);
    }

    /// How many clients have gone before their answer was finished.
    #[must_use]
    pub fn left(&self) -> usize {
        *self.stage.left.borrow()
    }

    /// Dies: every connection breaks, and new ones are refused.
    pub async fn go_down(&mut self) {
        if let Some(mut tasks) = self.tasks.take() {
            tasks.shutdown().await;
        }
    }

    /// Comes back at the same address.
    ///
    /// # Errors
    /// If somebody else took the port meanwhile.
    pub async fn come_back(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serve(listener);
        Ok(())
    }
}

impl Stage {
    fn note(&self, request: Request) {
        lock(&self.requests).push(request);
        self.arrived.send_modify(|count| *count += 1);
    }

    fn answer(&self, request: &Request) -> Answer {
        let scripted = lock(&self.scripts)
            .get_mut(&request.path)
            .and_then(VecDeque::pop_front);
        if let Some(scripted) = scripted {
            return scripted;
        }
        let settled = lock(&self.settled).get(&request.path).cloned();
        match settled {
            Some(Writer(write)) => write(request),
            None => talk::answer(request, &lock(&self.models)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
