//! Initialization of llama.cpp, and reading of model metadata.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use llama_cpp_2::{
    LogOptions,
    gguf::GgufContext,
    llama_backend::LlamaBackend,
    model::{LlamaModel, params::LlamaModelParams},
    send_logs_to_tracing,
};

use crate::{OpenError, card::Facts};

/// Returns llama.cpp, initialized once per process. Its messages are logged at debug level only.
pub(crate) fn backend() -> Result<&'static LlamaBackend, OpenError> {
    static BACKEND: OnceLock<Option<LlamaBackend>> = OnceLock::new();
    if !processor_suffices() {
        return Err(OpenError::Processor);
    }
    let set_up = || {
        let wanted = tracing::enabled!(target: "llama-cpp-2", tracing::Level::DEBUG);
        send_logs_to_tracing(LogOptions::default().with_logs_enabled(wanted));
        LlamaBackend::init().ok()
    };
    BACKEND.get_or_init(set_up).as_ref().ok_or(OpenError::Taken)
}

/// Whether the processor supports this build: llama.cpp is compiled for x86-64 with the
/// instructions of 2013 (Haswell) and crashes on older processors.
#[cfg(target_arch = "x86_64")]
fn processor_suffices() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("bmi2")
}

#[cfg(not(target_arch = "x86_64"))]
const fn processor_suffices() -> bool {
    true
}

/// Reads the metadata of a model file without loading its weights.
pub(crate) fn facts(backend: &LlamaBackend, path: &Path) -> Result<Facts, OpenError> {
    let owned = || path.to_path_buf();
    let unreadable = |source| OpenError::Unreadable {
        path: owned(),
        source,
    };
    let mut magic = Vec::new();
    let mut file = File::open(path).map_err(unreadable)?;
    file.by_ref()
        .take(4)
        .read_to_end(&mut magic)
        .map_err(unreadable)?;
    if magic != b"GGUF" || path.to_str().is_none() {
        return Err(OpenError::NotGguf(owned()));
    }
    let Some(header) = GgufContext::from_file(path).map(Header) else {
        return Err(OpenError::Damaged(owned()));
    };
    let architecture = header.text("general.architecture").unwrap_or_default();
    let unsupported = |path: PathBuf| OpenError::Unsupported {
        path,
        architecture: architecture.clone(),
    };
    if architecture.contains("bert") || architecture.starts_with("t5") {
        return Err(unsupported(owned()));
    }
    let vocabulary = LlamaModelParams::default().with_vocab_only(true);
    let model =
        LlamaModel::load_from_file(backend, path, &vocabulary).map_err(|_| unsupported(owned()))?;
    let of_architecture = |key: &str| header.number(&format!("{architecture}.{key}")).unwrap_or(0);
    let file_name = || {
        path.file_stem()
            .map(|name| name.to_string_lossy().into_owned())
    };
    Ok(Facts {
        basename: header
            .text("general.basename")
            .or_else(|| header.text("general.name"))
            .or_else(file_name)
            .unwrap_or_default(),
        size_label: header.text("general.size_label"),
        parameters: model.n_params(),
        file_type: header.number("general.file_type"),
        context_length: of_architecture("context_length"),
        embedding_length: of_architecture("embedding_length"),
        template: header.text("tokenizer.chat_template").unwrap_or_default(),
        architecture: architecture.clone(),
    })
}

/// The metadata of a GGUF file. llama.cpp aborts the process if a value is read as another type.
struct Header(GgufContext);

impl Header {
    /// GGUF's number of the type text.
    const TEXT: i64 = 8;
    /// GGUF's number of the type of unsigned 32-bit integers.
    const NUMBER: i64 = 4;

    fn text(&self, key: &str) -> Option<String> {
        let at = self.find(key, Self::TEXT)?;
        self.0
            .val_str(at)
            .map(str::to_owned)
            .filter(|text| !text.is_empty())
    }

    fn number(&self, key: &str) -> Option<u32> {
        let at = self.find(key, Self::NUMBER)?;
        Some(self.0.val_u32(at))
    }

    fn find(&self, key: &str, kind: i64) -> Option<i64> {
        let at = self.0.find_key(key);
        (at >= 0 && i64::from(self.0.kv_type(at)) == kind).then_some(at)
    }
}
