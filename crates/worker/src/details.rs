//! Details about the engine's models, and which of them a link has sent.

use std::collections::{HashMap, HashSet};

use proto::{Detail, ModelEntry, ModelName, ModelShow, WorkerReport};
use serde_json::value::RawValue;

/// Details about the engine's models beyond its report.
///
/// Everything is numbered in the order in which it was learned, so that each link sends everything
/// once.
#[derive(Debug, Default)]
pub(crate) struct Details {
    shows: HashMap<ModelName, Known>,
    running: (u64, Vec<Box<RawValue>>),
    last: u64,
}

/// Details of one model, valid while its entry in the report is unchanged.
#[derive(Debug)]
struct Known {
    tag: Box<RawValue>,
    show: Option<Box<RawValue>>,
    number: u64,
}

impl Details {
    /// Drops what is no longer in the report.
    pub(crate) fn keep(&mut self, report: &WorkerReport) {
        let names: HashSet<_> = report.models.iter().map(|entry| &entry.name).collect();
        self.shows.retain(|name, _| names.contains(name));
    }

    /// Returns a model of the report whose details are unknown or outdated.
    pub(crate) fn unknown(&self, report: &WorkerReport) -> Option<ModelEntry> {
        let is_unknown = |entry: &&ModelEntry| {
            let known = self.shows.get(&entry.name);
            known.is_none_or(|known| known.tag.get() != entry.tag.get())
        };
        report.models.iter().find(is_unknown).cloned()
    }

    /// Records the details of a model; `None` if the engine has none.
    pub(crate) fn learned(&mut self, model: ModelEntry, show: Option<Box<RawValue>>) {
        self.last += 1;
        let known = Known {
            tag: model.tag,
            show,
            number: self.last,
        };
        self.shows.insert(model.name, known);
    }

    /// Records which models are in memory. Returns `false` if nothing changed.
    pub(crate) fn set_running(&mut self, running: Vec<Box<RawValue>>) -> bool {
        let texts = |entries: &[Box<RawValue>]| {
            let texts = entries.iter().map(|entry| entry.get().to_owned());
            texts.collect::<Vec<_>>()
        };
        if texts(&self.running.1) == texts(&running) {
            return false;
        }
        self.last += 1;
        self.running = (self.last, running);
        true
    }

    /// Returns the first detail after number `told`, and its own number; 0 stands for the
    /// beginning.
    pub(crate) fn after(&self, told: u64) -> Option<(u64, Detail)> {
        let shows = self.shows.iter().filter(|(_, known)| known.number > told);
        let show = shows.min_by_key(|(_, known)| known.number);
        let (number, running) = &self.running;
        let is_running_first = show.is_none_or(|(_, known)| *number < known.number);
        if *number > told && is_running_first {
            return Some((*number, Detail::Running(running.clone())));
        }
        let (model, known) = show?;
        let Some(show) = known.show.clone() else {
            return self.after(known.number);
        };
        let model = model.clone();
        Some((known.number, Detail::Show(ModelShow { model, show })))
    }
}

#[cfg(test)]
mod tests {
    use proto::EngineKind;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn report(models: &[(&str, &str)]) -> WorkerReport {
        let entry = |(name, tag): &(&str, &str)| ModelEntry {
            name: ModelName::new(*name).unwrap(),
            loaded: false,
            tag: raw(tag),
        };
        WorkerReport {
            model_changes: false,
            engine: EngineKind::Ollama,
            engine_version: String::new(),
            engine_up: true,
            models: models.iter().map(entry).collect(),
        }
    }

    fn told(details: &Details, mut after: u64) -> Vec<String> {
        let mut all = Vec::new();
        while let Some((number, detail)) = details.after(after) {
            assert!(number > after);
            after = number;
            all.push(serde_json::to_string(&detail).unwrap());
        }
        all
    }

    #[test]
    fn a_model_is_asked_about_once_until_its_entry_changes() {
        let mut details = Details::default();
        let old = report(&[("a", "1"), ("b", "1")]);
        for name in ["a", "b"] {
            let unknown = details.unknown(&old).unwrap();
            assert_eq!(unknown.name.as_str(), name);
            details.learned(unknown, Some(raw("{}")));
        }
        assert!(details.unknown(&old).is_none());
        let new = report(&[("a", "1"), ("b", "2")]);
        assert_eq!(details.unknown(&new).unwrap().name.as_str(), "b");
    }

    #[test]
    fn each_link_is_told_everything_once_in_the_order_it_was_learned() {
        let mut details = Details::default();
        let report = report(&[("a", "1"), ("silent", "1"), ("b", "1")]);
        for show in [Some(raw("1")), None, Some(raw("2"))] {
            details.learned(details.unknown(&report).unwrap(), show);
        }
        assert!(details.set_running(vec![raw("{}")]));
        assert!(!details.set_running(vec![raw("{}")]), "nothing new");
        let (a, b) = (
            r#"{"show":{"model":"a","show":1}}"#,
            r#"{"show":{"model":"b","show":2}}"#,
        );
        assert_eq!(told(&details, 0), [a, b, r#"{"running":[{}]}"#]);
        assert!(details.set_running(vec![]));
        assert_eq!(told(&details, 4), [r#"{"running":[]}"#]);
        details.keep(&self::report(&[("b", "1")]));
        assert_eq!(told(&details, 0), [b, r#"{"running":[]}"#]);
    }
}
