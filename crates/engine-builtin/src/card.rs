//! The metadata of a model file, in the formats of Ollama's `/api/tags`, `/api/show` and `/api/ps`.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use jiff::Timestamp;
use proto::{MODEL_NAME_MAX, ModelName};
use serde::Serialize;
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use sha2::{Digest, Sha256};

/// The metadata of a model file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) architecture: String,
    /// `general.basename`, or else `general.name`, or else the name of the file.
    pub(crate) basename: String,
    /// `general.size_label`.
    pub(crate) size_label: Option<String>,
    pub(crate) parameters: u64,
    /// `general.file_type`.
    pub(crate) file_type: Option<u32>,
    pub(crate) context_length: u32,
    pub(crate) embedding_length: u32,
    /// Chat template; empty if the file has none.
    pub(crate) template: String,
}

/// The model as in `/api/tags`.
#[derive(Debug)]
pub(crate) struct Card {
    pub(crate) name: ModelName,
    pub(crate) tag: Box<RawValue>,
    /// The model as in `/api/show`.
    pub(crate) show: Box<RawValue>,
}

impl Card {
    pub(crate) fn new(facts: &Facts, size: u64, modified: Timestamp, digest: &str) -> Option<Self> {
        let name = model_name(facts)?;
        let tag = Tag {
            name: name.as_str(),
            model: name.as_str(),
            modified_at: modified.to_string(),
            size,
            digest,
            details: Details::of(facts),
            capabilities: CAPABILITIES,
        };
        let show = json!({
            "modelfile": "", "parameters": "", "template": facts.template,
            "details": Details::of(facts), "model_info": model_info(facts), "tensors": [],
            "capabilities": CAPABILITIES, "modified_at": modified.to_string(),
        });
        let tag = to_raw_value(&tag).ok()?;
        let show = to_raw_value(&show).ok()?;
        Some(Self { name, tag, show })
    }

    /// Returns the model as in `/api/ps` while it is in memory.
    pub(crate) fn running(&self, expires: Timestamp, context: u32) -> Option<Box<RawValue>> {
        let mut entry: Map<String, Value> = serde_json::from_str(self.tag.get()).ok()?;
        entry.shift_remove("modified_at");
        entry.shift_remove("capabilities");
        if let Some(details) = entry.get_mut("details").and_then(Value::as_object_mut) {
            details.retain(|key, _| !key.ends_with("_length"));
        }
        entry.insert("expires_at".into(), expires.to_string().into());
        entry.insert("size_vram".into(), 0.into());
        entry.insert("context_length".into(), context.into());
        to_raw_value(&entry).ok()
    }
}

/// Capabilities with any model: tools, images and embeddings are not supported.
const CAPABILITIES: [&str; 1] = ["completion"];

/// Returns the metadata under the file's own keys.
fn model_info(facts: &Facts) -> Map<String, Value> {
    let mut info = Map::new();
    let mut say = |key: String, value: Value| drop(info.insert(key, value));
    let architecture = &facts.architecture;
    say("general.architecture".into(), architecture.as_str().into());
    say("general.basename".into(), facts.basename.as_str().into());
    say("general.parameter_count".into(), facts.parameters.into());
    if let Some(kind) = facts.file_type {
        say("general.file_type".into(), kind.into());
    }
    if let Some(label) = &facts.size_label {
        say("general.size_label".into(), label.as_str().into());
    }
    for (key, length) in [
        ("context_length", facts.context_length),
        ("embedding_length", facts.embedding_length),
    ] {
        // 0 means that the file does not state it.
        if length > 0 {
            say(format!("{architecture}.{key}"), length.into());
        }
    }
    info
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    model: &'a str,
    modified_at: String,
    size: u64,
    digest: &'a str,
    details: Details<'a>,
    capabilities: [&'static str; 1],
}

impl<'a> Details<'a> {
    fn of(facts: &'a Facts) -> Self {
        Self {
            parent_model: "",
            format: "gguf",
            family: &facts.architecture,
            families: [&facts.architecture],
            parameter_size: human(facts.parameters),
            quantization_level: quantization(facts.file_type),
            context_length: facts.context_length,
            embedding_length: facts.embedding_length,
        }
    }
}

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: [&'a str; 1],
    parameter_size: String,
    quantization_level: &'static str,
    context_length: u32,
    embedding_length: u32,
}

/// Returns a name like `smollm2:135m`, which does not depend on the file's location.
fn model_name(facts: &Facts) -> Option<ModelName> {
    let clean = |text: &str| {
        let text = text.to_ascii_lowercase();
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_')));
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        words.join("-")
    };
    let size = match &facts.size_label {
        Some(label) => clean(label),
        None => clean(&human(facts.parameters)),
    };
    let mut base = clean(&facts.basename);
    if base.is_empty() {
        base = clean(&facts.architecture);
    }
    if base.is_empty() {
        "model".clone_into(&mut base);
    }
    // The name may already end with its size, as `general.name` often does.
    if let Some(shorter) = base.strip_suffix(&format!("-{size}")) {
        base.truncate(shorter.len());
    }
    base.truncate(MODEL_NAME_MAX / 2);
    let mut name = format!("{base}:{}", if size.is_empty() { "latest" } else { &size });
    name.truncate(MODEL_NAME_MAX);
    ModelName::new(name).ok()
}

/// Formats a number of parameters as Ollama does: `134.52M`, `7.6B`.
fn human(number: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let scaled = |unit: u64| number as f64 / unit as f64;
    let whole = |unit: u64| number.is_multiple_of(unit);
    match number {
        1_000_000_000.. if whole(1_000_000_000) => format!("{:.0}B", scaled(1_000_000_000)),
        1_000_000_000.. => format!("{:.1}B", scaled(1_000_000_000)),
        1_000_000.. if whole(1_000_000) => format!("{:.0}M", scaled(1_000_000)),
        1_000_000.. => format!("{:.2}M", scaled(1_000_000)),
        1000.. => format!("{:.0}K", scaled(1000)),
        _ => number.to_string(),
    }
}

/// Returns the name of a GGUF file type.
const fn quantization(file_type: Option<u32>) -> &'static str {
    match file_type {
        Some(0) => "F32",
        Some(1) => "F16",
        Some(2) => "Q4_0",
        Some(3) => "Q4_1",
        Some(7) => "Q8_0",
        Some(8) => "Q5_0",
        Some(9) => "Q5_1",
        Some(10) => "Q2_K",
        Some(11) => "Q3_K_S",
        Some(12) => "Q3_K_M",
        Some(13) => "Q3_K_L",
        Some(14) => "Q4_K_S",
        Some(15) => "Q4_K_M",
        Some(16) => "Q5_K_S",
        Some(17) => "Q5_K_M",
        Some(18) => "Q6_K",
        Some(19) => "IQ2_XXS",
        Some(20) => "IQ2_XS",
        Some(21) => "Q2_K_S",
        Some(22) => "IQ3_XS",
        Some(23) => "IQ3_XXS",
        Some(24) => "IQ1_S",
        Some(25) => "IQ4_NL",
        Some(26) => "IQ3_S",
        Some(27) => "IQ3_M",
        Some(28) => "IQ2_S",
        Some(29) => "IQ2_M",
        Some(30) => "IQ4_XS",
        Some(31) => "IQ1_M",
        Some(32) => "BF16",
        Some(36) => "TQ1_0",
        Some(37) => "TQ2_0",
        Some(38) => "MXFP4",
        Some(_) | None => "unknown",
    }
}

/// Number of bytes at either end of the file that are hashed for its identity.
const IDENTITY_PART: u64 = 64 * 1024;

/// Returns 64 hexadecimal digits that identify a model file: the SHA-256 of its length and both
/// ends.
///
/// This is an identity, not a checksum: reading gigabytes for a list of models would take too long.
/// Ollama's digest is that of a manifest, so the two are not comparable anyway.
pub(crate) fn identity(path: &Path, size: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    hash.update(size.to_le_bytes());
    let mut part = Vec::new();
    file.by_ref().take(IDENTITY_PART).read_to_end(&mut part)?;
    hash.update(&part);
    file.seek(SeekFrom::Start(size.saturating_sub(IDENTITY_PART)))?;
    part.clear();
    file.take(IDENTITY_PART).read_to_end(&mut part)?;
    hash.update(&part);
    Ok(proto::hex::encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn smollm2() -> Facts {
        Facts {
            architecture: "llama".to_owned(),
            basename: "SmolLM2".to_owned(),
            size_label: Some("135M".to_owned()),
            parameters: 134_515_008,
            file_type: Some(3),
            context_length: 8192,
            embedding_length: 576,
            template: "{{ messages }}".to_owned(),
        }
    }

    fn name(basename: &str, size_label: Option<&str>, parameters: u64) -> String {
        let facts = Facts {
            basename: basename.to_owned(),
            size_label: size_label.map(str::to_owned),
            parameters,
            ..Facts::default()
        };
        model_name(&facts).unwrap().to_string()
    }

    #[test]
    fn names_look_like_ollamas() {
        assert_eq!(model_name(&smollm2()).unwrap().as_str(), "smollm2:135m");
        assert_eq!(name("Qwen2.5", Some("7B"), 1), "qwen2.5:7b");
        assert_eq!(name("Meta Llama 3 8B", Some("8B"), 1), "meta-llama-3:8b");
        assert_eq!(name("Zażółć gęślą", None, 7_615_616_512), "za-g-l:7.6b");
        assert_eq!(name("", None, 0), "model:0");
    }

    #[test]
    fn a_tag_is_shaped_as_in_api_tags() {
        let card = Card::new(&smollm2(), 98_362_432, Timestamp::UNIX_EPOCH, "ab").unwrap();
        assert_eq!(
            card.tag.get(),
            r#"{"name":"smollm2:135m","model":"smollm2:135m","modified_at":"1970-01-01T00:00:00Z","size":98362432,"digest":"ab","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_1","context_length":8192,"embedding_length":576},"capabilities":["completion"]}"#
        );
    }

    #[test]
    fn a_model_is_shown_with_what_its_file_says() {
        let card = Card::new(&smollm2(), 1, Timestamp::UNIX_EPOCH, "ab").unwrap();
        let show: Value = serde_json::from_str(card.show.get()).unwrap();
        assert_eq!(
            show["model_info"],
            json!({
                "general.architecture": "llama", "general.basename": "SmolLM2",
                "general.parameter_count": 134_515_008, "general.file_type": 3,
                "general.size_label": "135M", "llama.context_length": 8192,
                "llama.embedding_length": 576,
            })
        );
        assert_eq!(show["capabilities"], json!(["completion"]));
        assert_eq!(show["template"], "{{ messages }}");
        assert_eq!(show["details"]["parameter_size"], "134.52M");
        let silent = Facts::default();
        let card = Card::new(&silent, 1, Timestamp::UNIX_EPOCH, "ab").unwrap();
        let show: Value = serde_json::from_str(card.show.get()).unwrap();
        assert_eq!(
            show["model_info"].get(".context_length"),
            None,
            "it does not say"
        );
    }

    #[test]
    fn a_running_model_is_shaped_as_in_api_ps() {
        let card = Card::new(&smollm2(), 98_362_432, Timestamp::UNIX_EPOCH, "ab").unwrap();
        let running = card.running(Timestamp::UNIX_EPOCH, 4096).unwrap();
        assert_eq!(
            running.get(),
            r#"{"name":"smollm2:135m","model":"smollm2:135m","size":98362432,"digest":"ab","details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"134.52M","quantization_level":"Q4_1"},"expires_at":"1970-01-01T00:00:00Z","size_vram":0,"context_length":4096}"#
        );
    }

    #[test]
    fn files_that_differ_in_length_or_at_an_end_differ_in_identity() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |bytes: &[u8]| {
            let path = folder.path().join("m");
            std::fs::write(&path, bytes).unwrap();
            identity(&path, bytes.len() as u64).unwrap()
        };
        let long = vec![7; 200_000];
        let mut other_start = long.clone();
        other_start[0] = 8;
        let mut other_end = long.clone();
        other_end[199_999] = 8;
        let of_long = identity(&long);
        assert_eq!(of_long.len(), 64);
        assert_eq!(of_long, identity(&long));
        for other in [&other_start, &other_end, &vec![7; 200_001]] {
            assert_ne!(of_long, identity(other));
        }
        assert_eq!(identity(b"").len(), 64);
    }

    proptest! {
        #[test]
        fn any_metadata_gives_a_valid_name(basename in "\\PC{0,200}", label in prop::option::of("\\PC{0,200}"), parameters: u64) {
            let facts = Facts { basename, size_label: label, parameters, ..Facts::default() };
            let name = model_name(&facts);
            prop_assert!(name.is_some());
            prop_assert_eq!(name, model_name(&facts));
        }
    }
}
