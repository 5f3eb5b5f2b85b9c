//! Errors of opening a model file.

use std::{io, path::PathBuf};

/// Reasons why a model file cannot be opened, with messages for the owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file does not exist.
    #[error(
        "there is no model file at {0}; name a GGUF file with --model, or run `./x setup` in Hearth's \
         source folder to download the default model"
    )]
    Missing(PathBuf),
    /// The file exists but cannot be read.
    #[error("the model file {path} cannot be read: {source}")]
    Unreadable {
        /// Path of the file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The file is not a model, or has another format.
    #[error("{0} is not a GGUF model file; the built-in engine runs GGUF files only")]
    NotGguf(PathBuf),
    /// The GGUF file is truncated or corrupted.
    #[error("the model file {0} is damaged or incomplete; download it again")]
    Damaged(PathBuf),
    /// llama.cpp cannot run the model, or the model does not generate text.
    #[error(
        "the built-in engine cannot run {path}: it does not support the architecture `{architecture}`, \
         or the file is damaged; use a chat model, or Ollama"
    )]
    Unsupported {
        /// Path of the file.
        path: PathBuf,
        /// Architecture according to the file.
        architecture: String,
    },
    /// This build requires a newer processor.
    #[error("the built-in engine needs a processor with AVX2, FMA, F16C and BMI2; use Ollama here")]
    Processor,
    /// The process already uses llama.cpp outside this crate.
    #[error("llama.cpp is already in use by another part of this process")]
    Taken,
    /// The thread could not be started.
    #[error("no thread could be started for the built-in engine: {0}")]
    Thread(io::Error),
}
