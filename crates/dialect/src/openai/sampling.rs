//! The sampling and length fields shared by chat and text completions.

use proto::ErrorDetail;
use serde::Deserialize;

use crate::native::{Options, bad, limit};

/// The fields as the requester wrote them.
#[derive(Deserialize)]
pub(super) struct Sampling {
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    seed: Option<i64>,
    stop: Option<Stop>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    n: Option<u32>,
    best_of: Option<u32>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "stop must be a string or a list of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// The options of a stream.
#[derive(Deserialize)]
pub(super) struct StreamOptions {
    include_usage: Option<bool>,
}

impl Sampling {
    /// Returns the native options. Temperature and `top_p` default to 1 here.
    pub(super) fn options(self) -> Result<Options, ErrorDetail> {
        for (field, choices) in [("n", self.n), ("best_of", self.best_of)] {
            if choices.is_some_and(|choices| choices != 1) {
                return Err(bad(format!(
                    "{field} must be 1: one request has one answer here; send it again for more"
                )));
            }
        }
        Ok(Options {
            temperature: Some(self.temperature.unwrap_or(1.0)),
            top_p: Some(self.top_p.unwrap_or(1.0)),
            num_predict: match self.max_completion_tokens {
                None => limit("max_tokens", self.max_tokens)?,
                newer => limit("max_completion_tokens", newer)?,
            },
            seed: self.seed,
            stop: match self.stop {
                None => Vec::new(),
                Some(Stop::One(stop)) => vec![stop],
                Some(Stop::Many(stops)) => stops,
            },
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
            ..Options::default()
        })
    }
}

/// Whether a stream ends with the token counts.
pub(super) fn includes_usage(options: Option<&StreamOptions>) -> bool {
    let asked = options.and_then(|options| options.include_usage);
    asked.unwrap_or(false)
}
