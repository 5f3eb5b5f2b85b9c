//! [`Builtin`]: the engine's public side, which passes requests to the thread that owns the model.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use engine::{Engine, EngineError, Lines};
use futures_util::stream;
use jiff::Timestamp;
use proto::{Body, EngineKind, ModelEntry, ModelName, Op, WorkerReport, limits};
use serde_json::value::RawValue;
use tokio::sync::watch;

use crate::{
    Activity, OpenError, Phase, Settings,
    card::{Card, identity},
    line, llama,
    request::{self, Request},
    runner::Runner,
    ticket::{self, Ticket},
};

/// Stack size of the thread, in bytes: some tokenizers of llama.cpp recurse deeper the longer the
/// text. Memory is committed only as it is used.
const STACK: usize = 64 * 1024 * 1024;

/// Ollama's value for a model that is never unloaded.
const FOREVER: Duration = Duration::from_nanos(i64::MAX as u64);

/// The engine in this process. Dropping it aborts the current answer and ends its thread.
pub struct Builtin {
    card: Card,
    path: PathBuf,
    trained: u32,
    settings: Arc<Settings>,
    tickets: SyncSender<Ticket>,
    activity: watch::Receiver<Activity>,
    stop: Arc<AtomicBool>,
}

impl Builtin {
    /// Reads the metadata of the model file and starts the thread. Reads no weights: they are
    /// loaded with the first request. Blocks while the vocabulary is read (about 0.1 s).
    ///
    /// # Errors
    /// [`OpenError`] if the file does not exist, or llama.cpp cannot run it here.
    pub fn open(path: &Path, settings: Settings) -> Result<Self, OpenError> {
        let unreadable = |source: io::Error| {
            let path = path.to_path_buf();
            if source.kind() == io::ErrorKind::NotFound {
                return OpenError::Missing(path);
            }
            OpenError::Unreadable { path, source }
        };
        let file = path.metadata().map_err(unreadable)?;
        let backend = llama::backend()?;
        let facts = llama::facts(backend, path)?;
        let digest = identity(path, file.len()).map_err(unreadable)?;
        let modified = file.modified().ok();
        let modified = modified.and_then(|time| Timestamp::try_from(time).ok());
        let modified = modified.unwrap_or(Timestamp::UNIX_EPOCH);
        let card = Card::new(&facts, file.len(), modified, &digest);
        let card = card.ok_or_else(|| OpenError::Damaged(path.to_path_buf()))?;

        // If the file does not state a context length, only the owner's limit applies.
        let trained = match facts.context_length {
            0 => settings.num_ctx_max,
            length => length,
        };
        let settings = Arc::new(settings);
        let (tickets, waiting) = sync_channel(settings.waiting.max(1));
        let (publish, activity) = watch::channel(Activity::default());
        let runner = Runner {
            backend,
            path: path.to_path_buf(),
            trained,
            settings: Arc::clone(&settings),
            tickets: waiting,
            activity: publish,
        };
        thread::Builder::new()
            .name("hearth-model".to_owned())
            .stack_size(STACK)
            .spawn(move || runner.run())
            .map_err(OpenError::Thread)?;
        Ok(Self {
            card,
            path: path.to_path_buf(),
            trained,
            settings,
            tickets,
            activity,
            stop: Arc::default(),
        })
    }

    /// Returns the name of its only model, for example `smollm2:135m`.
    #[must_use]
    pub const fn model(&self) -> &ModelName {
        &self.card.name
    }

    /// Subscribes to its state. The channel closes when the engine was dropped and its thread has
    /// ended.
    #[must_use]
    pub fn activity(&self) -> watch::Receiver<Activity> {
        self.activity.clone()
    }

    async fn submit(&self, request: Request) -> Result<Lines, EngineError> {
        let num_ctx = self.settings.context(request.options.num_ctx, self.trained);
        let most_lines = usize::try_from(num_ctx)
            .unwrap_or(usize::MAX / 4)
            .saturating_add(4);
        let (answer, receipt) = ticket::pair(most_lines, Arc::clone(&self.stop));
        let ticket = Ticket {
            request,
            asked: Instant::now(),
            answer,
        };
        match self.tickets.try_send(ticket) {
            Ok(()) => receipt.lines().await,
            Err(TrySendError::Full(_)) => Err(EngineError::Busy(format!(
                "{} requests are already waiting for the built-in engine; try again later",
                self.settings.waiting
            ))),
            Err(TrySendError::Disconnected(_)) => Err(EngineError::Unavailable(
                "the thread of the built-in engine has ended; start the program again".to_owned(),
            )),
        }
    }
}

impl Drop for Builtin {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Builtin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builtin")
            .field("model", &self.card.name)
            .field("activity", &*self.activity.borrow())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Engine for Builtin {
    fn name(&self) -> String {
        format!("built-in {}", self.card.name)
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Builtin
    }

    async fn report(&self) -> Result<WorkerReport, EngineError> {
        if !tokio::fs::try_exists(&self.path).await.unwrap_or(false) {
            let path = self.path.display();
            return Err(EngineError::Unavailable(format!(
                "the model file {path} is gone; put it back"
            )));
        }
        Ok(WorkerReport {
            model_changes: false,
            engine: self.kind(),
            engine_version: env!("CARGO_PKG_VERSION").to_owned(),
            engine_up: true,
            models: vec![ModelEntry {
                name: self.card.name.clone(),
                loaded: self.activity.borrow().phase.is_loaded(),
                tag: self.card.tag.clone(),
            }],
        })
    }

    async fn show(&self, _: &ModelEntry) -> Result<Option<Box<RawValue>>, EngineError> {
        let fits = self.card.show.get().len() <= limits::SHOW_MAX;
        Ok(fits.then(|| self.card.show.clone()))
    }

    async fn running(&self) -> Result<Vec<Box<RawValue>>, EngineError> {
        let activity = *self.activity.borrow();
        if !activity.phase.is_loaded() {
            return Ok(Vec::new());
        }
        let now = (self.settings.clock)();
        let stays = match (activity.phase, activity.unload_at) {
            (Phase::Working, _) => self.settings.keep_alive,
            (_, Some(at)) => at.saturating_duration_since(Instant::now()),
            (_, None) => FOREVER,
        };
        let expires = now.checked_add(stays).unwrap_or(Timestamp::MAX);
        let context = self.settings.context(None, self.trained);
        Ok(self.card.running(expires, context).into_iter().collect())
    }

    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError> {
        match op {
            Op::Embed => {
                let model = request::embed(&body.0, &self.card.name)?;
                let line = line::no_embeddings(&model);
                Ok(Box::pin(stream::iter([Ok(line)])))
            }
            Op::Pull | Op::Copy | Op::Delete | Op::Create => Err(EngineError::Refused {
                status: 400,
                message: "the built-in engine's model cannot be changed".into(),
            }),
            Op::Chat | Op::Generate => {
                let request = Request::read(op, &body.0, &self.card.name)?;
                self.submit(request).await
            }
        }
    }
}
