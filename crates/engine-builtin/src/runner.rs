//! The thread that owns the model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use engine::EngineError;
use llama_cpp_2::{
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
};
use tokio::sync::watch;

use crate::{
    Activity, Phase, Settings,
    generation::{Counter, Failed, Generation},
    keep_alive::KeepAlive,
    line::{DoneReason, LineWriter, Metrics},
    request::{Shape, Work},
    session::Session,
    ticket::Ticket,
};

/// The thread that owns the model and processes requests in order.
///
/// It blocks on a channel: until the next request while the model is unloaded, and at most until
/// `keep_alive` has passed while it is loaded. Nothing else wakes it.
pub(crate) struct Runner {
    pub(crate) backend: &'static LlamaBackend,
    pub(crate) path: PathBuf,
    pub(crate) trained: u32,
    pub(crate) settings: Arc<Settings>,
    pub(crate) tickets: Receiver<Ticket>,
    pub(crate) activity: watch::Sender<Activity>,
}

/// The action after a request.
enum Next {
    Stay(KeepAlive),
    Unload,
}

impl Runner {
    /// Runs until all senders are gone.
    pub(crate) fn run(self) {
        while catch_unwind(AssertUnwindSafe(|| self.run_until_closed())).is_err() {
            // The requester already got the error, because its ticket was dropped.
            tracing::error!("the built-in engine failed; it is restarted");
            self.enter(Phase::Unloaded);
        }
    }

    fn run_until_closed(&self) {
        while let Ok(ticket) = self.tickets.recv() {
            if !ticket.answer.is_wanted() {
                continue;
            }
            if let Work::Unload(shape) = ticket.request.work {
                self.answer_at_once(ticket, shape, DoneReason::Unload);
                continue;
            }
            self.enter(Phase::Loading);
            let started = Instant::now();
            match self.load() {
                Ok(model) => {
                    tracing::info!(elapsed = ?started.elapsed(), "the built-in model was loaded");
                    self.serve(&model, ticket, started.elapsed());
                    drop(model);
                    tracing::info!("the built-in model was unloaded");
                }
                Err(error) => ticket.answer.fail(error),
            }
            self.enter(Phase::Unloaded);
        }
    }

    fn load(&self) -> Result<LlamaModel, EngineError> {
        let path = &self.path;
        let unavailable = |why: &str| {
            let path = path.display();
            EngineError::Unavailable(format!("the model file {path} {why}"))
        };
        if !path.is_file() {
            return Err(unavailable("is gone; put it back"));
        }
        // The file was validated when the engine was opened.
        LlamaModel::load_from_file(self.backend, path, &LlamaModelParams::default()).map_err(|_| {
            unavailable("cannot be loaded: not enough memory, or it was changed since")
        })
    }

    /// Processes requests with the loaded model until it is to be unloaded.
    fn serve(&self, model: &LlamaModel, first: Ticket, mut load: Duration) {
        let mut session = None;
        let mut next = Some(first);
        let mut keep = KeepAlive::For(self.settings.keep_alive);
        let mut unload_at = self.unload_at(keep);
        loop {
            let Some(ticket) = next.take().or_else(|| self.wait(unload_at)) else {
                return;
            };
            if !ticket.answer.is_wanted() {
                continue;
            }
            self.enter(Phase::Working);
            match self.answer(model, &mut session, ticket, std::mem::take(&mut load)) {
                Next::Stay(for_) => keep = for_,
                Next::Unload => return,
            }
            unload_at = self.unload_at(keep);
            self.activity
                .send_modify(|activity| activity.unload_at = unload_at);
            self.enter(Phase::Ready);
        }
    }

    /// Returns the next request; `None` once it is time to unload or to stop.
    fn wait(&self, unload_at: Option<Instant>) -> Option<Ticket> {
        let Some(at) = unload_at else {
            return self.tickets.recv().ok();
        };
        let left = at.saturating_duration_since(Instant::now());
        self.tickets.recv_timeout(left).ok()
    }

    fn unload_at(&self, keep: KeepAlive) -> Option<Instant> {
        match keep {
            KeepAlive::For(time) => Instant::now().checked_add(time),
            KeepAlive::Forever => None,
        }
    }

    fn answer<'m>(
        &self,
        model: &'m LlamaModel,
        session: &mut Option<Session<'m>>,
        ticket: Ticket,
        load: Duration,
    ) -> Next {
        let keep = ticket.request.keep_alive;
        let keep = keep.unwrap_or(KeepAlive::For(self.settings.keep_alive));
        let next = match keep {
            KeepAlive::For(time) if time.is_zero() => Next::Unload,
            KeepAlive::For(_) | KeepAlive::Forever => Next::Stay(keep),
        };
        match ticket.request.work {
            Work::Load(shape) => self.answer_at_once(ticket, shape, DoneReason::Load),
            Work::Unload(shape) => self.answer_at_once(ticket, shape, DoneReason::Unload),
            Work::Chat(_) | Work::Generate(_) => self.generate(model, session, ticket, load),
        }
        next
    }

    fn generate<'m>(
        &self,
        model: &'m LlamaModel,
        kept: &mut Option<Session<'m>>,
        ticket: Ticket,
        load: Duration,
    ) {
        let Ticket {
            request,
            asked,
            answer,
        } = ticket;
        let num_ctx = self.settings.context(request.options.num_ctx, self.trained);
        let fits = |session: &Session<'m>| session.num_ctx() == num_ctx;
        let session = match kept.take().filter(fits) {
            Some(session) => Ok(session),
            None => Session::new(self.backend, model, num_ctx, self.settings.thread_count()),
        };
        let mut session = match session {
            Ok(session) => session,
            Err(error) => return answer.fail(error),
        };
        let generation = Generation {
            model,
            session: &mut session,
            lines: self.writer(&request.model, request.work.shape()),
            asked,
            load,
        };
        match generation.run(&request, answer, &mut Counting(&self.activity)) {
            Ok(()) => *kept = Some(session),
            Err(Failed { answer, error }) => {
                if matches!(error, EngineError::Refused { .. }) {
                    *kept = Some(session);
                }
                answer.fail(error);
            }
        }
    }

    fn answer_at_once(&self, ticket: Ticket, shape: Shape, reason: DoneReason) {
        let writer = self.writer(&ticket.request.model, shape);
        let line = writer.done("", reason, None, Metrics::default());
        ticket.answer.last(line);
    }

    fn writer(&self, model: &str, shape: Shape) -> LineWriter {
        LineWriter {
            model: model.to_owned(),
            shape,
            clock: self.settings.clock,
        }
    }

    fn enter(&self, phase: Phase) {
        self.activity.send_modify(|activity| activity.phase = phase);
    }
}

/// Publishes token counts in the engine's [`Activity`].
struct Counting<'a>(&'a watch::Sender<Activity>);

impl Counter for Counting<'_> {
    fn read(&mut self, tokens: usize) {
        self.0
            .send_modify(|activity| activity.read += tokens as u64);
    }

    fn written(&mut self) {
        self.0.send_modify(|activity| activity.written += 1);
    }
}
