//! What workers told of their engines: the models, what each shows, and what is in memory.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use proto::{Detail, ModelName, Timestamp, WorkerReport, limits};
use queue::{ModelPatterns, Serve};
use serde_json::value::RawValue;

use crate::{Relay, auth::Caller, offer::narrow};

/// What a worker told of its engine beyond its report. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    shows: BTreeMap<String, Arc<RawValue>>,
    bytes: usize,
    running: Arc<Vec<Box<RawValue>>>,
    /// How many jobs it runs at once, if it said so.
    pub(super) slots: Option<u32>,
    /// When it was heard last; not known of one that is connected.
    pub(super) seen: Option<Timestamp>,
}

impl Told {
    pub(super) fn take(&mut self, detail: Detail, report: &WorkerReport) {
        match detail {
            Detail::Show(told) => {
                let size = told.show.get().len();
                let name = told.model.canonical();
                self.forget(&name);
                let is_reported = report.models.iter().any(|m| m.name.is_same(&told.model));
                if is_reported && size <= limits::SHOW_MAX && self.bytes + size <= limits::SHOWS_MAX
                {
                    self.bytes += size;
                    self.shows.insert(name, told.show.into());
                }
            }
            Detail::Running(mut running) => {
                running.truncate(limits::RUNNING_MAX);
                running.retain(|entry| entry.get().len() <= limits::SHOW_MAX);
                self.running = Arc::new(running);
            }
        }
    }

    fn forget(&mut self, name: &str) {
        let size = self.shows.remove(name).map_or(0, |show| show.get().len());
        self.bytes -= size;
    }

    /// Drops what is told of models the worker has no more, or that are others than before.
    pub(super) fn keep(&mut self, report: &WorkerReport, before: Option<&WorkerReport>) {
        let find = |report: &WorkerReport, name: &str| {
            let mut models = report.models.iter();
            let entry = models.find(|m| m.name.canonical() == name)?;
            Some(entry.tag.get().to_owned())
        };
        let has = |name: &String| {
            let now = find(report, name);
            now.is_some()
                && before
                    .and_then(|before| find(before, name))
                    .is_none_or(|was| Some(was) == now)
        };
        let gone: Vec<String> = self
            .shows
            .keys()
            .filter(|name| !has(name))
            .cloned()
            .collect();
        for name in gone {
            self.forget(&name);
        }
    }
}

/// What is known of a worker, also of one that went a moment ago.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) serve: Serve,
    pub(super) report: Arc<WorkerReport>,
    pub(super) told: Told,
    /// When it is forgotten; for those that are gone.
    pub(super) until: Timestamp,
}

/// What is known of the engines that serve an account, those that are up first.
#[derive(Debug, Default)]
pub(crate) struct Library {
    known: Vec<Known>,
    up: usize,
}

impl Library {
    /// The first `up` of them are online, and their engines are up.
    pub(super) fn new(known: Vec<Known>, up: usize) -> Self {
        Self { known, up }
    }

    /// How many could answer now.
    pub(crate) const fn up(&self) -> usize {
        self.up
    }

    pub(crate) fn reports(&self) -> impl Iterator<Item = &WorkerReport> {
        self.known.iter().map(|known| &*known.report)
    }

    /// The same as far as a key reaches.
    fn within(mut self, within: &ModelPatterns) -> Self {
        if within.are_all() {
            return self;
        }
        for Known { report, told, .. } in &mut self.known {
            narrow(report, within);
            told.keep(report, None);
            let is_within = |entry: &RawValue| {
                let name = dialect::ollama::running_name(entry);
                name.is_some_and(|name| within.allow(&name))
            };
            let running = Arc::make_mut(&mut told.running);
            running.retain(|entry| is_within(entry));
        }
        self
    }

    /// Whether any worker was ever heard of.
    pub(crate) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The engine's own answer to `/api/show`, else what its entry in `/api/tags` says.
    pub(crate) fn show(&self, model: &ModelName) -> Option<Bytes> {
        let name = model.canonical();
        let shown = self
            .known
            .iter()
            .find_map(|known| known.told.shows.get(&name));
        if let Some(show) = shown {
            return Some(Bytes::copy_from_slice(show.get().as_bytes()));
        }
        let mut models = self.reports().flat_map(|report| &report.models);
        let entry = models.find(|entry| entry.name.is_same(model))?;
        dialect::ollama::show_of_tag(&entry.tag)
    }

    pub(crate) fn running(&self, now: Timestamp) -> Bytes {
        let running = self.known.iter().flat_map(|known| &*known.told.running);
        dialect::ollama::running(running.map(|entry| &**entry), now)
    }
}

impl Relay {
    /// What this caller can be told of the engines that serve his account.
    pub(crate) fn library(&self, caller: &Caller) -> Library {
        let library = self.workers.library(&caller.account, self.now());
        library.within(&caller.ceiling.models)
    }
}
