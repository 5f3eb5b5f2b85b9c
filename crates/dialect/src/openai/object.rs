//! Common parts of the objects and chunks of chat and text completions.

use serde::Serialize;

use crate::{
    answer::{Named, data},
    clock::seconds,
    line::Line,
};

/// The line after the last event of a stream.
pub(super) const DONE: &[u8] = b"data: [DONE]\n\n";

#[derive(Serialize)]
pub(super) struct Object<'a, C> {
    id: &'a str,
    object: &'a str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
pub(super) struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
}

impl Usage {
    pub(super) const fn of(last: &Line<'_>) -> Self {
        Self {
            prompt_tokens: last.prompt_eval_count,
            completion_tokens: last.eval_count,
            total_tokens: last.prompt_eval_count.saturating_add(last.eval_count),
        }
    }
}

/// The common first fields of every object of one answer.
#[derive(Debug)]
pub(super) struct Head {
    id: String,
    pub(super) named: Named,
}

impl Head {
    pub(super) fn new(prefix: &str, named: Named) -> Self {
        let id = format!("{prefix}{}", named.job);
        Self { id, named }
    }

    pub(super) fn object<'a, C>(
        &'a self,
        object: &'a str,
        choices: C,
        usage: Option<Usage>,
    ) -> Object<'a, C> {
        Object {
            id: &self.id,
            object,
            created: seconds(self.named.created),
            model: &self.named.model,
            system_fingerprint: "fp_hearth",
            choices,
            usage,
        }
    }

    /// Writes the end of a stream: the token counts if requested, and `[DONE]`.
    pub(super) fn end(&self, out: &mut Vec<u8>, object: &str, usage: Option<Usage>) {
        if usage.is_some() {
            let none: [(); 0] = [];
            data(out, &self.object(object, none, usage));
        }
        out.extend_from_slice(DONE);
    }
}

/// Returns the reason why a completion ended.
pub(super) fn finish_reason(last: &Line<'_>) -> &'static str {
    if last.is_cut() { "length" } else { "stop" }
}
