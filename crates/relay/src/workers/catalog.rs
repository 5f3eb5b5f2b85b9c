//! What workers report of their engines: models, details of each model, and models in memory.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use proto::{Detail, LeaseToken, ModelName, Timestamp, WorkerReport, limits};
use queue::{ModelPatterns, Serve};
use serde_json::value::RawValue;

use super::memory::{MemoryFull, WorkerMemory};
use crate::{Relay, auth::Caller, offer::narrow};

/// Assumed overhead of one stored entry, in bytes.
const ENTRY: usize = 64;

/// Details of a worker's engine beyond its report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Details {
    shows: Arc<BTreeMap<String, Arc<RawValue>>>,
    running: Arc<Vec<Box<RawValue>>>,
}

/// Stored information about one worker.
#[derive(Debug, Clone)]
pub(super) struct WorkerInfo {
    pub(super) details: Details,
    /// Size of all model details, in bytes; `report` is the size of the report.
    bytes: usize,
    report: usize,
    memory: WorkerMemory,
    /// Number of jobs it runs at once, if it reported that.
    pub(super) slots: Option<u32>,
    /// Time of its last poll; `None` for a worker that is connected.
    pub(super) seen: Option<Timestamp>,
    /// Leases of a worker that does not name them when it renews them, the oldest first, and until
    /// when it renews each.
    pub(super) lent: VecDeque<(LeaseToken, Timestamp)>,
}

impl WorkerInfo {
    /// Creates an entry without information.
    pub(super) fn nothing(memory: WorkerMemory) -> Self {
        Self {
            details: Details::default(),
            bytes: 0,
            report: 0,
            memory,
            slots: None,
            seen: None,
            lent: VecDeque::new(),
        }
    }

    /// Returns why this detail does not fit in the memory limits; `None` if it fits.
    pub(super) fn full(&self, detail: &Detail) -> Option<MemoryFull> {
        let more = match detail {
            Detail::Show(told) => show_size(&told.model.canonical(), &told.show),
            Detail::Running(running) => running_size(running),
        };
        self.memory.full(more)
    }

    /// Stores a detail, or drops it if it does not fit.
    pub(super) fn take(&mut self, detail: Detail, report: &WorkerReport) {
        match detail {
            Detail::Show(told) => {
                let name = told.model.canonical();
                let size = show_size(&name, &told.show);
                self.forget(&name);
                self.weigh();
                let is_reported = report.models.iter().any(|m| m.name.is_same(&told.model));
                if is_reported
                    && told.show.get().len() <= limits::SHOW_MAX
                    && self.bytes + size <= limits::SHOWS_MAX
                    && self.memory.full(size).is_none()
                {
                    self.bytes += size;
                    Arc::make_mut(&mut self.details.shows).insert(name, told.show.into());
                }
            }
            Detail::Running(mut running) => {
                running.truncate(limits::RUNNING_MAX);
                running.retain(|entry| entry.get().len() <= limits::SHOW_MAX);
                self.details.running = Arc::default();
                self.weigh();
                if self.memory.full(running_size(&running)).is_none() {
                    self.details.running = Arc::new(running);
                }
            }
        }
        self.weigh();
    }

    fn forget(&mut self, name: &str) {
        if let Some(show) = self.details.forget(name) {
            self.bytes -= show_size(name, &show);
        }
    }

    /// Removes details of models that the worker no longer has, or that have changed.
    pub(super) fn keep(&mut self, report: &WorkerReport, before: Option<&WorkerReport>) {
        for name in self.details.outdated(report, before) {
            self.forget(&name);
        }
        let models = report.models.iter();
        let sizes = models.map(|m| ENTRY + m.name.as_str().len() + m.tag.get().len());
        self.report = sizes.sum();
        self.weigh();
    }

    fn weigh(&mut self) {
        let running = running_size(&self.details.running);
        self.memory.set(self.report + self.bytes + running);
    }
}

/// Returns each model's entry in a report by canonical name; the first of one name counts.
fn tags(report: &WorkerReport) -> HashMap<String, &str> {
    let mut tags = HashMap::with_capacity(report.models.len());
    for model in &report.models {
        let tag = tags.entry(model.name.canonical());
        tag.or_insert(model.tag.get());
    }
    tags
}

fn show_size(name: &str, show: &RawValue) -> usize {
    ENTRY + name.len() + show.get().len()
}

fn running_size(running: &[Box<RawValue>]) -> usize {
    running.iter().map(|entry| ENTRY + entry.get().len()).sum()
}

impl Details {
    fn forget(&mut self, name: &str) -> Option<Arc<RawValue>> {
        if self.shows.contains_key(name) {
            Arc::make_mut(&mut self.shows).remove(name)
        } else {
            None
        }
    }

    /// Returns the models whose stored details are outdated.
    fn outdated(&self, report: &WorkerReport, before: Option<&WorkerReport>) -> Vec<String> {
        if self.shows.is_empty() {
            return Vec::new();
        }
        let now = tags(report);
        let before = before.map(tags).unwrap_or_default();
        let holds = |name: &String| {
            let tag = now.get(name);
            tag.is_some_and(|tag| before.get(name).is_none_or(|was| was == tag))
        };
        let names = self.shows.keys();
        names.filter(|name| !holds(name)).cloned().collect()
    }
}

/// Stored information about a worker that disconnected recently.
#[derive(Debug)]
pub(super) struct DepartedWorker {
    pub(super) serve: Serve,
    pub(super) report: Arc<WorkerReport>,
    pub(super) told: WorkerInfo,
    /// Time when it is removed.
    pub(super) until: Timestamp,
}

/// Stored information about one engine.
#[derive(Debug)]
pub(super) struct EngineInfo {
    pub(super) report: Arc<WorkerReport>,
    pub(super) details: Details,
}

/// Stored information about the engines that serve an account, those that are up first.
#[derive(Debug, Default)]
pub(crate) struct EngineCatalog {
    known: Vec<EngineInfo>,
    up: usize,
}

impl EngineCatalog {
    /// Creates a library; the first `up` engines are up and their workers online.
    pub(super) fn new(known: Vec<EngineInfo>, up: usize) -> Self {
        Self { known, up }
    }

    /// Returns the number of engines that are up.
    pub(crate) const fn up(&self) -> usize {
        self.up
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = &WorkerReport> {
        self.known.iter().map(|known| &*known.report)
    }

    /// Restricts the library to the models that a key may use.
    fn within(mut self, allowed_models: &ModelPatterns) -> Self {
        if allowed_models.are_all() {
            return self;
        }
        for EngineInfo { report, details } in &mut self.known {
            narrow(report, allowed_models);
            for name in details.outdated(report, None) {
                details.forget(&name);
            }
            let is_within = |entry: &RawValue| {
                let name = dialect::ollama::running_name(entry);
                name.is_some_and(|name| allowed_models.allow(&name))
            };
            let running = Arc::make_mut(&mut details.running);
            running.retain(|entry| is_within(entry));
        }
        self
    }

    /// Whether no worker is known.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns the engine's own answer to `/api/show`, or one made from its entry in `/api/tags`.
    pub(crate) fn show(&self, model: &ModelName) -> Option<Bytes> {
        let name = model.canonical();
        let shown = self
            .known
            .iter()
            .find_map(|known| known.details.shows.get(&name));
        if let Some(show) = shown {
            return Some(Bytes::copy_from_slice(show.get().as_bytes()));
        }
        let mut models = self.reports().flat_map(|report| &report.models);
        let entry = models.find(|entry| entry.name.is_same(model))?;
        dialect::ollama::show_of_tag(&entry.tag)
    }

    pub(crate) fn running(&self, now: Timestamp) -> Bytes {
        let running = self.known.iter().flat_map(|known| &*known.details.running);
        dialect::ollama::running(running.map(|entry| &**entry), now)
    }
}

impl Relay {
    /// Returns the library that this caller may see.
    pub(crate) fn catalog(&self, caller: &Caller) -> EngineCatalog {
        let catalog = self.workers.catalog(&caller.account, self.now());
        catalog.within(&caller.ceiling.models)
    }
}

#[cfg(test)]
mod tests {
    use proto::{Account, WorkerId};

    use super::*;
    use crate::workers::{OnlineWorker, Workers};

    #[test]
    fn what_a_worker_told_is_shared_with_whoever_asks() {
        let workers = Workers::default();
        let id = workers.new_id();
        let report = WorkerReport {
            engine: proto::EngineKind::Ollama,
            engine_version: String::new(),
            engine_up: true,
            model_changes: false,
            models: vec![],
        };
        let link = crate::workers::Link {
            worker: WorkerId::new("w").unwrap(),
            maybe_dead: Arc::default(),
            displaced: tokio_util::sync::CancellationToken::new(),
            routing_entry: Arc::new(crate::routing::Routing::default().join()),
        };
        let online = OnlineWorker {
            key: None,
            serve: Serve::All,
            allowed_models: ModelPatterns::default(),
            report: Some(Arc::new(report)),
            until: None,
            poll: None,
            link: Some(link),
            carrier: proto::admin::WorkerCarrier::Websocket,
        };
        workers.register(id, online);
        let asked = || workers.catalog(&Account::new("a").unwrap(), Timestamp(1));
        let [one, other] = [asked(), asked()].map(|mut catalog| catalog.known.remove(0).details);
        assert!(Arc::ptr_eq(&one.shows, &other.shows));
        assert!(Arc::ptr_eq(&one.running, &other.running));
    }
}
