//! Opens the engine that the settings name.

use std::{path::Path, sync::Arc, time::Duration};

use engine::{Clock, Engine, Ollama, OpenAiCompatible, Spec};
use engine_builtin::Builtin;
use proto::status::{Hop, HopState};
use tokio::{sync::watch, time::sleep};
use worker::Activity;

use crate::{Settings, StartError};

/// Opens the engine. `auto` prefers an Ollama that responds to the built-in engine.
pub(crate) async fn open(settings: &Settings) -> Result<Arc<dyn Engine>, StartError> {
    match &settings.engine {
        Spec::Auto => auto(settings).await,
        Spec::Ollama(url) => ollama(settings, url.as_ref().unwrap_or(&settings.ollama)),
        Spec::Builtin(path) => builtin(path.as_deref().unwrap_or(&settings.model)).await,
        Spec::OpenAi(url) => {
            let key = settings.engine_key.as_ref();
            let times = settings.engine_times.clone();
            let opened = OpenAiCompatible::new(url, key, times, Clock::default());
            Ok(Arc::new(opened.map_err(refused)?))
        }
    }
}

async fn auto(settings: &Settings) -> Result<Arc<dyn Engine>, StartError> {
    let ollama = ollama(settings, &settings.ollama)?;
    let Err(silent) = ollama.report().await else {
        return Ok(ollama);
    };
    match builtin(&settings.model).await {
        Ok(builtin) => Ok(builtin),
        Err(error) => {
            // Ollama may still be started; until then the status shows the engine as down.
            tracing::warn!(ollama = %silent, builtin = %error, "no engine is available; retrying Ollama");
            Ok(ollama)
        }
    }
}

fn ollama(settings: &Settings, url: &engine::Url) -> Result<Arc<dyn Engine>, StartError> {
    let times = settings.engine_times.clone();
    Ok(Arc::new(Ollama::new(url, times).map_err(refused)?))
}

async fn builtin(path: &Path) -> Result<Arc<dyn Engine>, StartError> {
    let path = path.to_owned();
    let opening = move || Builtin::open(&path, engine_builtin::Settings::default());
    match tokio::task::spawn_blocking(opening).await {
        Ok(Ok(builtin)) => Ok(Arc::new(builtin)),
        Ok(Err(error)) => Err(refused(error)),
        Err(error) => Err(refused(error)),
    }
}

fn refused(error: impl std::fmt::Display) -> StartError {
    StartError::Engine(error.to_string())
}

/// Checks periodically whether the engine is up. Used without a worker, which would notice with
/// each job.
#[derive(Debug)]
pub(crate) struct EngineWatch {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) activity: watch::Sender<Activity>,
    /// The interval between two checks.
    pub(crate) apart: Duration,
}

impl EngineWatch {
    /// Runs forever, and publishes each change.
    pub(crate) async fn run(self) {
        loop {
            sleep(self.apart).await;
            let found = look(&*self.engine).await;
            self.activity.send_if_modified(|activity| {
                let is_new = activity.engine != found;
                activity.engine = found;
                is_new
            });
        }
    }
}

/// Checks once whether the engine is up.
pub(crate) async fn look(engine: &dyn Engine) -> Hop {
    let (state, problem) = match engine.report().await {
        Ok(report) if report.engine_up => (HopState::Up, String::new()),
        Ok(_) => (
            HopState::Down,
            "the engine reports that it is not ready".to_owned(),
        ),
        Err(error) => (HopState::Down, error.to_string()),
    };
    Hop {
        state,
        name: engine.name(),
        problem,
    }
}
