//! Deciding whether a request can be served, and by which model, before it is queued.

use proto::{Account, ErrorCode, ModelName, Op};

use crate::{Relay, error::ApiError};

/// Whether a job may wait for a worker that is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The requester waits on the line: somebody must be online now.
    Now,
    /// The requester comes back for the answer.
    Kept,
}

impl Relay {
    /// The model for a request of this account that asked for `asked`.
    pub(crate) fn choose_model(
        &self,
        account: &Account,
        op: Op,
        asked: Option<&str>,
        patience: Patience,
    ) -> Result<ModelName, ApiError> {
        let offer = self.workers.offer(account, self.now());
        let chosen = match asked {
            Some(name) => Some(
                ModelName::new(name)
                    .map_err(|_| ApiError::new(ErrorCode::BadRequest, "invalid model name"))?,
            ),
            None => self.settings.default_model.clone(),
        };
        if offer.is_empty() && patience == Patience::Now {
            return Err(ApiError::new(
                ErrorCode::NoWorker,
                "no worker is online to answer; start the agent, or submit a job to be kept",
            ));
        }
        let Some(model) = chosen.or_else(|| offer.models().next().cloned()) else {
            return Err(if offer.is_empty() {
                ApiError::new(
                    ErrorCode::NoWorker,
                    "no model was named and no worker is online to choose one; name a model",
                )
            } else {
                ApiError::new(ErrorCode::BadRequest, "model is required")
            });
        };
        if !offer.is_empty() && !offer.has(&model) {
            let message = dialect::ollama::model_not_found(op, model.as_str());
            return Err(ApiError::new(ErrorCode::UnknownModel, message));
        }
        Ok(model)
    }
}
