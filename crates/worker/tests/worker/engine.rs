//! An engine whose answers are controlled by the test.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use engine::{Engine, EngineError, Lines};
use futures_util::stream;
use proto::{Body, EngineKind, ModelEntry, ModelName, Op, WorkerReport};
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

/// The test's side of one request: accepts lines and errors, and shows when the worker dropped it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) op: Op,
    pub(crate) body: Body,
    pub(crate) lines: mpsc::Sender<Result<Bytes, EngineError>>,
}

impl Asked {
    pub(crate) async fn say(&self, line: &str) {
        let line = Bytes::from(line.to_owned());
        self.lines.send(Ok(line)).await.unwrap();
    }

    pub(crate) async fn fail(&self, error: EngineError) {
        self.lines.send(Err(error)).await.unwrap();
    }

    /// Waits until the worker has dropped the answer.
    pub(crate) async fn until_dropped(&self) {
        self.lines.closed().await;
    }
}

#[derive(Debug)]
pub(crate) struct Script {
    models: Mutex<Vec<(String, bool)>>,
    health: watch::Sender<Option<EngineError>>,
    refusals: Mutex<Vec<EngineError>>,
    asked: mpsc::Sender<Asked>,
    pub(crate) looks: watch::Sender<usize>,
}

impl Script {
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<Asked>) {
        let (asked, requests) = mpsc::channel(100);
        let script = Self {
            models: Mutex::new(vec![("tiny:latest".into(), true)]),
            health: watch::Sender::new(None),
            refusals: Mutex::default(),
            asked,
            looks: watch::Sender::new(0),
        };
        (Arc::new(script), requests)
    }

    pub(crate) fn set_down(&self, down: bool) {
        let error = EngineError::Unavailable("connection refused".into());
        self.health.send_replace(down.then_some(error));
    }

    /// Makes the next start fail with this error; several errors are used in order.
    pub(crate) fn refuse(&self, error: EngineError) {
        self.refusals.lock().unwrap().insert(0, error);
    }

    pub(crate) fn set_models(&self, models: &[(&str, bool)]) {
        let models = models
            .iter()
            .map(|(name, loaded)| ((*name).into(), *loaded));
        *self.models.lock().unwrap() = models.collect();
    }
}

#[async_trait]
impl Engine for Script {
    fn name(&self) -> String {
        "script".into()
    }

    fn kind(&self) -> EngineKind {
        EngineKind::Ollama
    }

    async fn report(&self) -> Result<WorkerReport, EngineError> {
        self.looks.send_modify(|looks| *looks += 1);
        if let Some(error) = self.health.borrow().clone() {
            return Err(error);
        }
        let models = self.models.lock().unwrap().clone();
        let entry = |(name, loaded): (String, bool)| ModelEntry {
            name: ModelName::new(name).unwrap(),
            loaded,
            tag: RawValue::from_string("{}".into()).unwrap(),
        };
        Ok(WorkerReport {
            model_changes: false,
            engine: EngineKind::Ollama,
            engine_version: "1".into(),
            engine_up: true,
            models: models.into_iter().map(entry).collect(),
        })
    }

    async fn start(&self, op: Op, body: Body) -> Result<Lines, EngineError> {
        if let Some(error) = self.refusals.lock().unwrap().pop() {
            return Err(error);
        }
        assert!(!body.0.ends_with(b"panic"), "this engine has a fault");
        let (lines, given) = mpsc::channel(1);
        self.asked.send(Asked { op, body, lines }).await.unwrap();
        Ok(Box::pin(stream::unfold(given, |mut given| async {
            given.recv().await.map(|line| (line, given))
        })))
    }
}
