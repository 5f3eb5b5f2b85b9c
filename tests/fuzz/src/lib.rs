//! Every parser of external input, as a function of any bytes. None may panic or take long.
//!
//! The tests run each parser on its corpus, on a few thousand damaged copies of it, and on copies
//! with lists of the maximum length; `./x fuzz` runs libFuzzer. Inputs that found a bug are kept in
//! `corpus/`.

mod answers;
#[cfg(test)]
mod repeated;
mod requests;
mod wire;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// One parser.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the target and of its corpus folder.
    pub name: &'static str,
    /// The parser.
    pub read: fn(&[u8]),
    /// Folders of the project whose files are samples too.
    samples: &'static [&'static str],
}

/// Maximum time for an input of some kilobytes.
const LONGEST: Duration = Duration::from_millis(100);
/// Number of attempts on a busy machine before a parser counts as too slow.
const TIMES: usize = 5;

impl Target {
    const fn new(name: &'static str, read: fn(&[u8]), samples: &'static [&'static str]) -> Self {
        Self {
            name,
            read,
            samples,
        }
    }

    /// Runs the parser on these bytes.
    ///
    /// # Panics
    /// If the parser does, or takes too long at every attempt.
    pub fn run(&self, bytes: &[u8]) {
        let time = || {
            let began = Instant::now();
            (self.read)(bytes);
            began.elapsed()
        };
        let is_slow = time() > LONGEST && (1..TIMES).all(|_| time() > LONGEST);
        assert!(!is_slow, "{} takes longer than {LONGEST:?}", self.name);
    }

    /// The folders of its samples, its own corpus first.
    pub fn folders(&self) -> impl Iterator<Item = PathBuf> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.join("../..");
        let own = here.join("corpus").join(self.name);
        let others = self.samples.iter().map(move |folder| root.join(folder));
        std::iter::once(own).chain(others)
    }
}

const LEGACY: &str = "crates/proto/fixtures/legacy";
const STATUS: &str = "crates/proto/fixtures/status-v1";
const OLLAMA: &str = "crates/dialect/fixtures/ollama";
const OPENAI: &str = "crates/dialect/fixtures/openai";
const RESPONSES: &str = "crates/dialect/fixtures/responses";
const ANTHROPIC: &str = "crates/dialect/fixtures/anthropic";
const POLLING: &str = "crates/dialect/fixtures/relay_polling";
const BRIDGE: &str = "crates/dialect/fixtures/bridge";
const QUERIES: &str = "crates/dialect/fixtures/queries";

/// All targets.
pub const TARGETS: &[Target] = &[
    // Messages between a worker and its relay.
    Target::new("frame", wire::frame, &[]),
    Target::new("carrier", wire::carrier, &[]),
    Target::new("arriving", worker::fuzz::arriving, &[]),
    // Requests of every API.
    Target::new("job", wire::job, &[]),
    Target::new("names", wire::names, &[]),
    Target::new("ollama-request", requests::ollama, &[OLLAMA]),
    Target::new("openai-chat", requests::openai_chat, &[OPENAI]),
    Target::new("openai-text", requests::openai_text, &[OPENAI]),
    Target::new("openai-embeddings", requests::openai_embeddings, &[OPENAI]),
    Target::new("openai-responses", requests::openai_responses, &[RESPONSES]),
    Target::new("anthropic", requests::anthropic, &[ANTHROPIC]),
    Target::new("polling", requests::polling, &[POLLING]),
    Target::new("bridge", requests::bridge, &[BRIDGE, OLLAMA]),
    Target::new("queries", requests::queries, &[QUERIES]),
    // Answers of engines and workers.
    Target::new("openai-answer", answers::openai, &[OLLAMA]),
    Target::new("anthropic-answer", answers::anthropic, &[OLLAMA]),
    Target::new("ollama-answer", answers::ollama, &[OLLAMA]),
    Target::new("engine-lines", engine::fuzz::lines, &[OLLAMA]),
    Target::new("engine-ollama", engine::fuzz::ollama, &[OLLAMA]),
    Target::new(
        "engine-openai-answer",
        engine::fuzz::openai_answer,
        &[OPENAI],
    ),
    Target::new("engine-openai-request", engine::fuzz::openai_request, &[]),
    Target::new("engine-openai-models", engine::fuzz::openai_models, &[]),
    Target::new("engine-address", engine::fuzz::address, &[]),
    // Authentication and request heads.
    Target::new("key", relay::fuzz::key, &[]),
    Target::new("token", relay::fuzz::token, &[]),
    Target::new("head", relay::fuzz::head, &[]),
    Target::new("path", relay::fuzz::path, &[]),
    Target::new("form", relay::fuzz::form, &[]),
    Target::new("webhook", relay::fuzz::webhook, &[]),
    Target::new("settings", relay::fuzz::settings, &[]),
    Target::new("options", relay::fuzz::options, &[]),
    // Messages of overlays and assistants on the user's machine.
    Target::new("hub-legacy", status::fuzz::legacy, &[LEGACY, STATUS]),
    Target::new("hub-v1", status::fuzz::v1, &[STATUS, LEGACY]),
    Target::new("hub-heard", status::fuzz::heard, &[STATUS, LEGACY]),
    Target::new("hub-access", status::fuzz::access, &[]),
    Target::new("hub-holder", status::fuzz::port_owner, &[]),
    Target::new("hub-events", status::fuzz::events, &[]),
    Target::new("hub-frames", status::fuzz::frames, &[]),
];

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        fs,
        panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    };

    use ::tests::mutate::mutate;

    use super::*;

    /// Number of damaged inputs per target.
    const ROUNDS: usize = 2_000;

    pub(crate) fn samples(folders: impl Iterator<Item = PathBuf>) -> Vec<Vec<u8>> {
        let entries = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        // The order of a folder's entries is arbitrary.
        files.sort();
        files.iter().map(|path| fs::read(path).unwrap()).collect()
    }

    #[test]
    fn no_reader_of_outside_bytes_panics_or_takes_long() {
        let rounds = std::env::var("HEARTH_FUZZ_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
        for (seed, target) in (1..).zip(TARGETS) {
            let samples = samples(target.folders());
            mutate(&samples, seed, rounds, |bytes| {
                let run = catch_unwind(AssertUnwindSafe(|| target.run(bytes)));
                run.unwrap_or_else(|panic| {
                    eprintln!("{}: {}", target.name, bytes.escape_ascii());
                    resume_unwind(panic)
                });
            });
        }
    }

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let folders = fs::read_dir(corpus).unwrap();
        let folders: BTreeSet<_> = folders.map(|entry| entry.unwrap().file_name()).collect();
        let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.into()).collect();
        assert_eq!(folders, targets);
        for target in TARGETS {
            assert!(
                samples(target.folders()).len() > 1,
                "{} has one sample",
                target.name
            );
        }
    }

    #[test]
    fn a_reader_that_dawdles_is_found() {
        fn dawdle(_: &[u8]) {
            let began = Instant::now();
            while began.elapsed() <= LONGEST {
                std::hint::spin_loop();
            }
        }
        let slow = Target::new("slow", dawdle, &[]);
        assert!(catch_unwind(|| slow.run(b"x")).is_err());
    }
}
