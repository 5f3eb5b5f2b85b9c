use std::{io, path::PathBuf};

/// Why a model file cannot be opened, in words for the owner.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No file there.
    #[error(
        "there is no model file at {0}; name a GGUF file with --model, or run `./x setup` in Hearth's \
         source folder to download the default model"
    )]
    Missing(PathBuf),
    /// There, but not readable.
    #[error("the model file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not a model, or one in another format.
    #[error("{0} is not a GGUF model file; the built-in engine runs GGUF files only")]
    NotGguf(PathBuf),
    /// A GGUF file cut short or overwritten.
    #[error("the model file {0} is damaged or incomplete; download it again")]
    Damaged(PathBuf),
    /// A GGUF file that llama.cpp cannot run, or that does not write text.
    #[error(
        "the built-in engine cannot run {path}: it does not support the architecture `{architecture}`, \
         or the file is damaged; use a chat model, or Ollama"
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What the file says it is.
        architecture: String,
    },
    /// The arithmetic was compiled for newer processors.
    #[error("the built-in engine needs a processor with AVX2, FMA, F16C and BMI2; use Ollama here")]
    Processor,
    /// The process already runs llama.cpp outside this crate.
    #[error("llama.cpp is already in use by another part of this process")]
    Taken,
    /// No thread for it.
    #[error("no thread could be started for the built-in engine: {0}")]
    Thread(io::Error),
}
