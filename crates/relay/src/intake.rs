//! Decides, before a request is queued, whether it can be served and by which model.

use proto::{ErrorCode, ModelName, Op, WorkerId};

use crate::{Relay, auth::Caller, error::ApiError, offer::Availability, target::unknown_model};

/// Whether a job may wait for a worker that is not online yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attendance {
    /// The requester waits for the response: a worker must be online now.
    Now,
    /// The requester fetches the answer later.
    Kept,
}

impl Relay {
    /// Chooses the model for a caller's request, which may name one in `asked`.
    pub(crate) fn choose_model(
        &self,
        caller: &Caller,
        op: Op,
        asked: Option<&str>,
        attendance: Attendance,
    ) -> Result<ModelName, ApiError> {
        if self.drain.is_cancelled() {
            return Err(ApiError::draining());
        }
        let worker = caller.worker.as_ref();
        let offer = self.workers.offer(&caller.account, worker, self.now());
        let within = &caller.ceiling.models;
        let chosen = match asked {
            Some(name) => {
                let name = ModelName::new(name)
                    .map_err(|_| ApiError::new(ErrorCode::BadRequest, "invalid model name"))?;
                caller.permit(&name)?;
                Some(name)
            }
            None => self.settings.default_model.clone(),
        };
        let chosen = chosen.filter(|model| within.allow(model));
        let model = chosen.or_else(|| offer.first_model(within).cloned());
        let model = model.or_else(|| within.first_named());
        let availability = match &model {
            Some(model) => offer.availability(model),
            None => offer.without_model(),
        };
        match (model, availability) {
            (Some(model), Availability::Served) => Ok(model),
            (Some(model), Availability::EngineDown | Availability::NobodyOnline)
                if attendance == Attendance::Kept =>
            {
                Ok(model)
            }
            (Some(model), Availability::Unknown) => {
                let message = dialect::ollama::model_not_found(op, model.as_str());
                Err(ApiError::new(ErrorCode::UnknownModel, message))
            }
            (None, Availability::Served | Availability::Unknown) => Err(without_model(op)),
            (_, Availability::EngineDown) => Err(ApiError::new(
                ErrorCode::EngineUnavailable,
                "an agent is online, but its engine is down; start the engine, or name a model and \
                 submit the request to /api/jobs, where it waits",
            )),
            (model, Availability::NobodyOnline) => Err(nobody_online(worker, model.as_ref())),
        }
    }
}

fn nobody_online(worker: Option<&WorkerId>, model: Option<&ModelName>) -> ApiError {
    let who = match worker {
        Some(worker) => format!("the worker {worker} is not online"),
        None => "no worker is online".into(),
    };
    let how = match model {
        Some(_) => "submit the request to /api/jobs, where it waits",
        None => "name a model and submit the request to /api/jobs, where it waits",
    };
    let message = format!("{who}; start the agent, or {how}");
    ApiError::new(ErrorCode::NoWorker, message)
}

/// Ollama reports a missing model for some operations, and an unknown one for others.
fn without_model(op: Op) -> ApiError {
    match op {
        Op::Chat => ApiError::new(ErrorCode::BadRequest, "model is required"),
        Op::Generate | Op::Embed | Op::Pull | Op::Copy | Op::Delete | Op::Create => {
            unknown_model("")
        }
    }
}
