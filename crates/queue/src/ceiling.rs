//! The ceiling of a key: the models and priorities that it permits.

use std::{fmt, str::FromStr};

use proto::{MODEL_NAME_MAX, ModelName, Priority};
use serde::{Deserialize, Serialize};

/// A pattern of model names: `*` matches any run of characters, `?` matches one. A pattern without
/// wild cards matches one model under any of its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ModelPattern(String);

/// The text is not a valid pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern must be a model name of at most 128 characters; `*` and `?` are wild cards")]
pub struct InvalidPattern;

impl ModelPattern {
    /// Whether the pattern matches this model.
    #[must_use]
    pub fn matches(&self, model: &ModelName) -> bool {
        self.matches_canonical(&model.canonical())
    }

    /// Whether the pattern matches a name that is already canonical.
    fn matches_canonical(&self, name: &str) -> bool {
        if globs(&self.0, name) {
            return true;
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        !last.contains(':') && globs(&self.0, &format!("{name}:latest"))
    }

    /// The single model that the pattern matches, if it has no wild cards.
    fn only(&self) -> Option<ModelName> {
        let name = Some(&self.0).filter(|text| !text.contains(['*', '?']));
        name.and_then(|name| name.parse().ok())
    }
}

impl FromStr for ModelPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if text.is_empty() || text.len() > MODEL_NAME_MAX {
            return Err(InvalidPattern);
        }
        // With its wild cards replaced by letters, a pattern must be a valid model name.
        let name: ModelName = text
            .replace(['*', '?'], "x")
            .parse()
            .map_err(|_| InvalidPattern)?;
        let is_wild = text.contains(['*', '?']);
        Ok(Self(if is_wild {
            text.to_ascii_lowercase()
        } else {
            name.canonical()
        }))
    }
}

impl TryFrom<String> for ModelPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<ModelPattern> for String {
    fn from(pattern: ModelPattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Matches `text` against the pattern. Takes at most `pattern.len() * text.len()` steps, for any
/// number of wild cards.
fn globs(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Position of the last `*` in the pattern, and the number of characters it has matched so far.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            Some(_) | None => {
                let Some((at, taken)) = star else {
                    return false;
                };
                star = Some((at, taken + 1));
                (p, t) = (at + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

/// The models that a key permits. An empty list permits every model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelPatterns(Vec<ModelPattern>);

impl ModelPatterns {
    /// Permits only these models; an empty list permits every model.
    #[must_use]
    pub const fn new(patterns: Vec<ModelPattern>) -> Self {
        Self(patterns)
    }

    /// Whether every model is permitted.
    #[must_use]
    pub const fn are_all(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this model is permitted.
    #[must_use]
    pub fn allow(&self, model: &ModelName) -> bool {
        self.are_all() || self.allow_canonical(&model.canonical())
    }

    /// Whether the model with this canonical name is permitted.
    pub(crate) fn allow_canonical(&self, name: &str) -> bool {
        self.are_all() || self.0.iter().any(|one| one.matches_canonical(name))
    }

    /// Returns the first pattern without wild cards, as a model name.
    #[must_use]
    pub fn first_named(&self) -> Option<ModelName> {
        self.0.iter().find_map(ModelPattern::only)
    }

    /// Iterates over the patterns.
    pub fn iter(&self) -> impl Iterator<Item = &ModelPattern> {
        self.0.iter()
    }
}

/// The limits of a key: which models and which priority its jobs may have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Models that the key may request, and that its workers may lease.
    #[serde(default, skip_serializing_if = "ModelPatterns::are_all")]
    pub models: ModelPatterns,
    /// Highest priority of its jobs; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

impl Ceiling {
    /// Whether a job may have this priority.
    #[must_use]
    pub fn allows(&self, priority: Priority) -> bool {
        self.lowered(priority) == priority
    }

    /// Returns `priority`, lowered to the highest permitted one if necessary.
    #[must_use]
    pub fn lowered(&self, priority: Priority) -> Priority {
        self.priority
            .filter(|most| most.level() > priority.level())
            .unwrap_or(priority)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn pattern(text: &str) -> ModelPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_stands_for_models_under_all_their_names() {
        for (text, names, others) in [
            (
                "llama3",
                vec!["llama3", "Llama3:latest", "library/llama3"],
                vec!["llama3:8b", "llama31"],
            ),
            ("LLAMA3:Latest", vec!["llama3"], vec!["llama3:70b"]),
            (
                "llama3:*",
                vec!["llama3", "llama3:8b"],
                vec!["llama3.1:8b", "xllama3:8b"],
            ),
            ("qwen*", vec!["qwen2.5:7b", "qwen"], vec!["hf.co/qwen"]),
            (
                "*:7b",
                vec!["qwen2.5:7b", "a/b:7b"],
                vec!["qwen2.5:70b", "qwen"],
            ),
            (
                "hf.co/*/x?",
                vec!["hf.co/a/x1", "hf.co/a/b/x2"],
                vec!["hf.co/a/x", "hf.co/a/x12"],
            ),
            ("*", vec!["anything:1b"], vec![]),
        ] {
            for name in names {
                assert!(
                    pattern(text).matches(&name.parse().unwrap()),
                    "{text} {name}"
                );
            }
            for name in others {
                assert!(
                    !pattern(text).matches(&name.parse().unwrap()),
                    "{text} {name}"
                );
            }
        }
        for wrong in ["", "a b", "ż*", "a\n", &"*".repeat(129)] {
            assert_eq!(
                wrong.parse::<ModelPattern>(),
                Err(InvalidPattern),
                "{wrong}"
            );
        }
        assert_eq!(pattern("Llama3:latest").only().unwrap().as_str(), "llama3");
        assert_eq!(pattern("llama3*").only(), None);
    }

    #[test]
    fn a_pattern_of_many_wild_cards_is_no_work() {
        let text = "a".repeat(120);
        assert!(!globs(&format!("{}b", "*a".repeat(60)), &text));
    }

    #[test]
    fn a_ceiling_lowers_what_was_not_said_and_refuses_what_was() {
        let at = |level| Priority::new(level).unwrap();
        let low = Ceiling {
            priority: Some(at(7)),
            ..Ceiling::default()
        };
        assert_eq!(low.lowered(at(5)), at(7));
        assert_eq!(low.lowered(at(9)), at(9));
        assert!(low.allows(at(7)) && !low.allows(at(6)));
        assert!(Ceiling::default().allows(at(1)));
    }

    #[test]
    fn a_key_has_to_do_with_the_models_its_patterns_stand_for_and_without_any_with_all() {
        let of =
            |texts: &[&str]| ModelPatterns::new(texts.iter().map(|text| pattern(text)).collect());
        let name = |text: &str| -> ModelName { text.parse().unwrap() };
        let some = of(&["qwen*", "llama3"]);
        assert!(some.allow(&name("qwen2.5:7b")) && some.allow(&name("Llama3:latest")));
        assert!(some.allow_canonical("llama3") && !some.allow_canonical("phi4"));
        assert!(!some.allow(&name("phi4")) && !some.are_all());
        assert_eq!(some.first_named(), Some(name("llama3")));
        assert_eq!(of(&["qwen*"]).first_named(), None);
        let texts: Vec<String> = some.iter().cloned().map(String::from).collect();
        assert_eq!(texts, ["qwen*", "llama3"]);
        let all = of(&[]);
        assert!(all.are_all() && all.allow(&name("phi4")) && all.allow_canonical("phi4"));
    }

    #[test]
    fn what_was_written_of_a_ceiling_is_read_back_and_no_pattern_is_not() {
        let written = json!({"models": ["qwen*", "llama3"], "priority": 7});
        let read: Ceiling = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), written);
        assert_eq!(serde_json::to_value(Ceiling::default()).unwrap(), json!({}));
        let wrong = json!({"models": ["a b"]});
        assert!(serde_json::from_value::<Ceiling>(wrong).is_err());
    }

    #[test]
    fn a_pattern_is_as_long_as_a_name_may_be_and_no_longer() {
        let text = "x".repeat(MODEL_NAME_MAX - 1) + "*";
        assert!(text.parse::<ModelPattern>().is_ok());
        assert_eq!(
            format!("x{text}").parse::<ModelPattern>(),
            Err(InvalidPattern)
        );
    }

    /// Slow reference implementation.
    fn plainly(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), _) => (0..=text.len()).any(|n| plainly(rest, &text[n..])),
            (Some((c, rest)), Some((t, others))) => (*c == b'?' || c == t) && plainly(rest, others),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn globs_are_what_their_definition_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let plain = plainly(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(globs(&pattern, &text), plain);
        }
    }
}
