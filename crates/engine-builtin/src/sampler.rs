//! Choosing the next token.

use engine::EngineError;
use llama_cpp_2::{
    context::LlamaContext,
    json_schema_to_grammar,
    model::LlamaModel,
    sampling::LlamaSampler,
    token::{LlamaToken, data_array::LlamaTokenDataArray},
};

use crate::{options::Options, request::refused};

/// Chooses the next token.
pub(crate) struct Sampler {
    chain: LlamaSampler,
    grammar: Option<LlamaSampler>,
}

impl Sampler {
    /// Creates a sampler. `prompt` counts for the repetition penalties.
    pub(crate) fn new(
        model: &LlamaModel,
        options: &Options,
        schema: Option<&str>,
        prompt: &[LlamaToken],
        num_ctx: u32,
    ) -> Result<Self, EngineError> {
        let grammar = schema.map(|schema| grammar(model, schema)).transpose()?;
        let chain = LlamaSampler::chain(links(model, options, prompt, num_ctx), true);
        Ok(Self { chain, grammar })
    }

    /// Chooses a token from the current logits.
    pub(crate) fn next(&mut self, context: &LlamaContext<'_>) -> Result<LlamaToken, EngineError> {
        let Some(grammar) = &mut self.grammar else {
            // This call also accepts the token.
            return Ok(self.chain.sample(context, -1));
        };
        // Checking the most likely token first is much cheaper than checking the whole vocabulary.
        let mut candidates = context.token_data_array_ith(-1);
        self.chain.apply(&mut candidates);
        let mut chosen = selected(&candidates)?;
        if !allows(grammar, &candidates, chosen) {
            candidates = context.token_data_array_ith(-1);
            grammar.apply(&mut candidates);
            self.chain.apply(&mut candidates);
            chosen = selected(&candidates)?;
        }
        grammar.try_accept(chosen).map_err(|_| {
            EngineError::Broken("the model found no token that fits the format".to_owned())
        })?;
        self.chain.accept(chosen);
        Ok(chosen)
    }
}

fn grammar(model: &LlamaModel, schema: &str) -> Result<LlamaSampler, EngineError> {
    let bad = || {
        refused(
            400,
            "the built-in engine cannot turn the JSON schema in `format` into a grammar",
        )
    };
    let grammar = json_schema_to_grammar(schema).map_err(|_| bad())?;
    LlamaSampler::grammar(model, &grammar, "root").map_err(|_| bad())
}

/// Returns the sampler chain, in llama.cpp's own order.
fn links(
    model: &LlamaModel,
    options: &Options,
    prompt: &[LlamaToken],
    num_ctx: u32,
) -> Vec<LlamaSampler> {
    let all = i32::try_from(num_ctx).unwrap_or(i32::MAX);
    let last_n = match options.repeat_last_n {
        ..0 => all,
        last_n => last_n.min(all),
    };
    let mut links = Vec::new();
    let penalties = [options.presence_penalty, options.frequency_penalty];
    let is_penalised = penalties != [0.0, 0.0] || options.repeat_penalty != 1.0;
    if last_n > 0 && is_penalised {
        let [presence, frequency] = penalties;
        let repeat = options.repeat_penalty;
        let vocabulary = model.n_vocab();
        let recent = prompt
            .len()
            .saturating_sub(usize::try_from(last_n).unwrap_or(0));
        links.push(
            LlamaSampler::penalties(vocabulary, last_n, repeat, frequency, presence)
                .with_tokens(prompt.iter().skip(recent)),
        );
    }
    // A smaller temperature would overflow, and means the same.
    if options.temperature < 1e-4 {
        links.push(LlamaSampler::greedy());
        return links;
    }
    links.push(LlamaSampler::top_k(options.top_k));
    if options.typical_p < 1.0 {
        links.push(LlamaSampler::typical(options.typical_p, 1));
    }
    links.push(LlamaSampler::top_p(options.top_p, 1));
    links.push(LlamaSampler::min_p(options.min_p, 1));
    links.push(LlamaSampler::temp(options.temperature));
    links.push(LlamaSampler::dist(seed(options.seed)));
    links
}

/// Converts a seed. llama.cpp's largest one means "a different one for each request".
fn seed(seed: i64) -> u32 {
    if seed < 0 {
        return u32::MAX;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is in range")]
    let seed = (seed as u64 % u64::from(u32::MAX)) as u32;
    seed
}

fn selected(candidates: &LlamaTokenDataArray) -> Result<LlamaToken, EngineError> {
    let token = candidates.selected_token();
    token.ok_or_else(|| EngineError::Broken("llama.cpp chose no token".to_owned()))
}

/// Whether the grammar permits the chosen token.
fn allows(
    grammar: &mut LlamaSampler,
    candidates: &LlamaTokenDataArray,
    chosen: LlamaToken,
) -> bool {
    let one = candidates
        .data
        .iter()
        .filter(|candidate| candidate.id() == chosen);
    let mut one = LlamaTokenDataArray::from_iter(one.copied(), false);
    grammar.apply(&mut one);
    one.data
        .iter()
        .any(|candidate| candidate.logit() > f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_but_a_negative_one_is_a_fixed_seed() {
        assert_eq!(seed(7), 7);
        assert_eq!(seed(-1), u32::MAX);
        assert_eq!(seed(i64::from(u32::MAX)), 0);
        assert_ne!(seed(i64::MAX), u32::MAX);
    }
}
