//! [`Spec`]: the engine that the owner chose on the command line.

use std::{path::PathBuf, str::FromStr};

use reqwest::Url;

use crate::parse_host;

/// The chosen engine: `auto`, `ollama[:URL]`, `builtin[:PATH]` or `openai:URL`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Spec {
    /// An Ollama if one responds at its default address, otherwise the built-in engine.
    #[default]
    Auto,
    /// An Ollama at this URL, or at `OLLAMA_HOST` if none is given.
    Ollama(Option<Url>),
    /// The built-in engine, with this model file if one is given.
    Builtin(Option<PathBuf>),
    /// A server with an OpenAI-compatible API.
    OpenAi(Url),
}

/// The text does not name an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// The kind before the colon is unknown.
    #[error("unknown engine {0:?}: use auto, ollama[:URL], builtin[:PATH] or openai:URL")]
    Unknown(String),
    /// The address is invalid.
    #[error("the address in {spec:?} cannot be used: {problem}")]
    Address {
        /// The whole text.
        spec: String,
        /// The problem.
        problem: String,
    },
    /// `openai` has no default address.
    #[error("openai needs an address: openai:http://127.0.0.1:8080")]
    NoAddress,
}

impl Spec {
    /// Parses the owner's choice; opens nothing.
    ///
    /// # Errors
    /// [`InvalidSpec`], which names the text.
    pub fn parse(text: &str) -> Result<Self, InvalidSpec> {
        let text = text.trim();
        let (word, rest) = text.split_once(':').unwrap_or((text, ""));
        let address = |problem: String| InvalidSpec::Address {
            spec: text.to_owned(),
            problem,
        };
        Ok(match (word, rest) {
            ("auto", "") => Self::Auto,
            ("ollama", "") => Self::Ollama(None),
            ("ollama", host) => {
                let host = parse_host(host).map_err(|error| address(error.to_string()))?;
                if let Some(warning) = host.warning {
                    return Err(address(warning));
                }
                Self::Ollama(Some(host.url))
            }
            ("builtin", "") => Self::Builtin(None),
            ("builtin", path) => Self::Builtin(Some(PathBuf::from(path))),
            ("openai", "") => return Err(InvalidSpec::NoAddress),
            ("openai", url) => {
                let url: Url = url.parse().map_err(|error| address(format!("{error}")))?;
                if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                    return Err(address("it must begin with http:// or https://".into()));
                }
                Self::OpenAi(url)
            }
            _ => return Err(InvalidSpec::Unknown(text.to_owned())),
        })
    }
}

impl FromStr for Spec {
    type Err = InvalidSpec;

    fn from_str(text: &str) -> Result<Self, InvalidSpec> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_an_engine_is_read() {
        let url = |text: &str| Url::parse(text).unwrap();
        for (text, spec) in [
            ("auto", Spec::Auto),
            (" ollama ", Spec::Ollama(None)),
            (
                "ollama:http://127.0.0.1:11434",
                Spec::Ollama(Some(url("http://127.0.0.1:11434"))),
            ),
            ("ollama:box:5", Spec::Ollama(Some(url("http://box:5")))),
            ("builtin", Spec::Builtin(None)),
            (
                r"builtin:C:\models\m.gguf",
                Spec::Builtin(Some(r"C:\models\m.gguf".into())),
            ),
            ("openai:https://h/v1", Spec::OpenAi(url("https://h/v1"))),
        ] {
            assert_eq!(Spec::parse(text), Ok(spec), "{text}");
        }
    }

    #[test]
    fn what_names_no_engine_is_refused_with_what_to_write() {
        for (text, says) in [
            ("", "use auto"),
            ("olama", "\"olama\""),
            ("auto:x", "\"auto:x\""),
            ("openai", "needs an address"),
            ("openai:h:5", "http://"),
            ("ollama:http://x:99999", "port"),
        ] {
            let error = Spec::parse(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
