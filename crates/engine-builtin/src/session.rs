//! The model's context (KV cache) of one text, reused for prompts with the same beginning.

use std::num::NonZeroU32;

use engine::EngineError;
use llama_cpp_2::{
    DecodeError,
    context::{LlamaContext, params::LlamaContextParams},
    llama_backend::LlamaBackend,
    llama_batch::{BatchAddError, LlamaBatch},
    model::LlamaModel,
    token::LlamaToken,
};

/// Number of prompt tokens computed at once. Between two blocks the engine checks whether the
/// answer is still wanted. Blocks always begin at multiples of this number, so that cached and
/// recomputed blocks are identical bit for bit, and equal seeds give equal answers.
pub(crate) const BLOCK: usize = 64;

/// The model's context of one text.
pub(crate) struct Session<'m> {
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    num_ctx: u32,
    /// Prompt tokens in the context, complete blocks only.
    blocks: Vec<LlamaToken>,
    /// Number of tokens in the context.
    length: usize,
    /// Whether the context can be truncated.
    can_cut: bool,
}

/// Outcome of processing a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Done,
    Unwanted,
}

impl<'m> Session<'m> {
    pub(crate) fn new(
        backend: &LlamaBackend,
        model: &'m LlamaModel,
        num_ctx: u32,
        threads: i32,
    ) -> Result<Self, EngineError> {
        let block = u32::try_from(BLOCK).unwrap_or(u32::MAX);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(num_ctx))
            .with_n_batch(block)
            .with_n_ubatch(block)
            .with_n_threads(threads)
            .with_n_threads_batch(threads);
        let context = model.new_context(backend, params).map_err(|_| {
            EngineError::Unavailable(format!(
                "not enough memory for a context of {num_ctx} tokens; ask for a smaller num_ctx"
            ))
        })?;
        Ok(Self {
            context,
            batch: LlamaBatch::new(BLOCK, 1),
            num_ctx,
            blocks: Vec::new(),
            length: 0,
            can_cut: !(model.is_recurrent() || model.is_hybrid()),
        })
    }

    pub(crate) const fn num_ctx(&self) -> u32 {
        self.num_ctx
    }

    /// Returns the context, from which the next token is sampled.
    pub(crate) const fn context(&self) -> &LlamaContext<'m> {
        &self.context
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length >= usize::try_from(self.num_ctx).unwrap_or(usize::MAX)
    }

    /// Processes a prompt block by block while `go_on`, called with the number of tokens of the
    /// next block, returns `true`. The common beginning with an earlier prompt is not recomputed.
    pub(crate) fn read(
        &mut self,
        prompt: &[LlamaToken],
        mut go_on: impl FnMut(usize) -> bool,
    ) -> Result<Reading, EngineError> {
        let kept = if self.can_cut {
            reusable(&self.blocks, prompt)
        } else {
            0
        };
        self.cut(kept)?;
        let rest = prompt.get(kept..).unwrap_or_default();
        for block in rest.chunks(BLOCK) {
            if !go_on(block.len()) {
                return Ok(Reading::Unwanted);
            }
            self.decode(block)?;
            if block.len() == BLOCK {
                self.blocks.extend_from_slice(block);
            }
        }
        Ok(Reading::Done)
    }

    /// Processes one token of the answer.
    pub(crate) fn push(&mut self, token: LlamaToken) -> Result<(), EngineError> {
        self.decode(&[token])
    }

    /// Truncates the context to the first `keep` tokens.
    fn cut(&mut self, keep: usize) -> Result<(), EngineError> {
        let from = u32::try_from(keep).unwrap_or(u32::MAX);
        let is_cut = keep > 0 && matches!(self.forget(Some(from)), Ok(true));
        let keep = if is_cut { keep } else { 0 };
        if !is_cut && !matches!(self.forget(None), Ok(true)) {
            return Err(EngineError::Broken(
                "llama.cpp kept an old prompt".to_owned(),
            ));
        }
        self.blocks.truncate(keep);
        self.length = keep;
        Ok(())
    }

    fn forget(&mut self, from: Option<u32>) -> Result<bool, impl std::error::Error + use<>> {
        self.context.clear_kv_cache_seq(Some(0), from, None)
    }

    fn decode(&mut self, tokens: &[LlamaToken]) -> Result<(), EngineError> {
        let last = tokens.len().saturating_sub(1);
        self.batch.clear();
        for (at, token) in tokens.iter().enumerate() {
            let position = i32::try_from(self.length + at).unwrap_or(i32::MAX);
            let added = self.batch.add(*token, position, &[0], at == last);
            added.map_err(|error: BatchAddError| broken(&error))?;
        }
        let decoded = self.context.decode(&mut self.batch);
        decoded.map_err(|error: DecodeError| broken(&error))?;
        self.length += tokens.len();
        Ok(())
    }
}

fn broken(error: &dyn std::error::Error) -> EngineError {
    EngineError::Broken(format!(
        "llama.cpp could not compute the next token: {error}"
    ))
}

/// Number of tokens of `prompt` that are in the context as complete blocks. At least one token is
/// left to compute, because the answer is sampled after the last one.
fn reusable(blocks: &[LlamaToken], prompt: &[LlamaToken]) -> usize {
    let same = blocks
        .iter()
        .zip(prompt)
        .take_while(|(a, b)| a == b)
        .count();
    let same = same.min(prompt.len().saturating_sub(1));
    same - same % BLOCK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(range: std::ops::Range<i32>) -> Vec<LlamaToken> {
        range.map(LlamaToken).collect()
    }

    #[test]
    fn only_whole_equal_blocks_are_reused_and_one_token_is_always_computed() {
        let block = i32::try_from(BLOCK).unwrap();
        let cached = tokens(0..2 * block);
        assert_eq!(reusable(&cached, &tokens(0..3 * block)), 2 * BLOCK);
        assert_eq!(reusable(&cached, &cached), BLOCK);
        assert_eq!(reusable(&cached, &tokens(0..block)), 0);
        assert_eq!(reusable(&cached, &tokens(1..3 * block)), 0);
        assert_eq!(reusable(&cached, &[]), 0);
    }

    proptest! {
        #[test]
        fn what_is_reused_is_always_a_true_prefix(
            cached in prop::collection::vec(0i32..2, 0..300),
            prompt in prop::collection::vec(0i32..2, 0..300),
            shared in 0usize..300,
        ) {
            let mut prompt = prompt;
            let shared = shared.min(cached.len()).min(prompt.len());
            prompt[..shared].copy_from_slice(&cached[..shared]);
            let cached: Vec<_> = cached.into_iter().map(LlamaToken).collect();
            let prompt: Vec<_> = prompt.into_iter().map(LlamaToken).collect();
            let kept = reusable(&cached, &prompt);
            prop_assert_eq!(kept % BLOCK, 0);
            prop_assert!(kept == 0 || kept < prompt.len());
            prop_assert_eq!(&cached[..kept], &prompt[..kept]);
        }
    }
}
