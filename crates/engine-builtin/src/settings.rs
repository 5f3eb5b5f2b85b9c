//! Settings of the built-in engine.

use std::{num::NonZeroU32, time::Duration};

use jiff::Timestamp;

/// The owner's settings of the built-in engine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Number of threads for the computation; half of the machine's cores when absent. llama.cpp's
    /// threads spin while they wait for each other, hundreds of times per token, so another program
    /// on one of their cores slows down the whole answer: on two cores beside busy loops, two
    /// threads generated 4 to 9 tokens a second, and one thread 16 to 19.
    pub threads: Option<NonZeroU32>,
    /// Context size in tokens when a request has no `num_ctx`.
    pub num_ctx: u32,
    /// Maximum `num_ctx` of a request; a larger one is reduced to it. The model's own limit also
    /// applies.
    pub num_ctx_max: u32,
    /// Time for which the model stays in memory after a request without `keep_alive`.
    pub keep_alive: Duration,
    /// Maximum number of waiting requests; further ones are refused as busy.
    pub waiting: usize,
    /// Wall clock for `created_at`.
    pub clock: fn() -> Timestamp,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: None,
            num_ctx: 4096,
            num_ctx_max: 32_768,
            keep_alive: Duration::from_secs(5 * 60),
            waiting: 16,
            clock: Timestamp::now,
        }
    }
}

impl Settings {
    /// Returns the context size of a request for a model trained with `trained` tokens.
    pub(crate) fn context(&self, asked: Option<i64>, trained: u32) -> u32 {
        let asked = match asked {
            Some(asked) if asked > 0 => u32::try_from(asked).unwrap_or(u32::MAX),
            Some(_) | None => self.num_ctx,
        };
        asked.min(self.num_ctx_max).min(trained).max(4)
    }

    pub(crate) fn thread_count(&self) -> i32 {
        let half = || std::thread::available_parallelism().map_or(1, |cores| cores.get() / 2);
        let chosen = |threads: NonZeroU32| usize::try_from(threads.get()).unwrap_or(usize::MAX);
        let threads = self.threads.map_or_else(half, chosen);
        i32::try_from(threads.clamp(1, 64)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_is_never_larger_than_owner_and_model_allow() {
        let settings = Settings {
            num_ctx: 4096,
            num_ctx_max: 16_384,
            ..Settings::default()
        };
        assert_eq!(settings.context(None, 8192), 4096);
        assert_eq!(settings.context(None, 2048), 2048);
        assert_eq!(settings.context(Some(9000), 8192), 8192);
        assert_eq!(settings.context(Some(i64::MAX), 1_000_000), 16_384);
        assert_eq!(settings.context(Some(1), 8192), 4);
        assert_eq!(settings.context(Some(-1), 8192), 4096);
    }
}
