//! Programs that ask the owner for leave to give commands, and those that have it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A program whose command waits for the owner's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Waiting {
    /// Names it in `approve` and `deny`.
    pub id: String,
    /// Who asks.
    pub who: Program,
    /// The command's word.
    pub command: String,
    /// When it is refused unless somebody answers.
    #[cfg_attr(test, ts(type = "number"))]
    pub until: Timestamp,
}

/// A program that may give commands until that is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Allowed {
    /// Names it in `revoke`.
    pub id: String,
    /// Who asked, as it was then.
    pub who: Program,
    /// Since when.
    #[cfg_attr(test, ts(type = "number"))]
    pub since: Timestamp,
}

/// What is known of a program. None of it is proof: a program may call itself anything, and may
/// be run by another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Program {
    /// What it calls itself; may be empty.
    pub name: String,
    /// The file that its process runs, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its process, where the system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// The web page it is, if it is one of those on the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// Everything the owner is asked, and everything he allowed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Pairs {
    /// The oldest first.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// The oldest first.
    #[serde(default)]
    pub allowed: Vec<Allowed>,
}

impl Program {
    /// What to call it: its name, its file's name, its page, or nothing.
    #[must_use]
    pub fn title(&self) -> &str {
        let file = || self.file.as_deref()?.rsplit(['/', '\\']).next();
        let named = Some(&*self.name).filter(|name| !name.is_empty());
        named
            .or_else(file)
            .or(self.origin.as_deref())
            .unwrap_or_default()
    }
}

/// A token on its way to the program it was made for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Its text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_the_best_that_is_known() {
        let program = |name: &str, file: Option<&str>| Program {
            name: name.into(),
            file: file.map(Into::into),
            origin: Some("http://localhost:1420".into()),
            ..Program::default()
        };
        assert_eq!(program("dock", Some("/usr/bin/python3")).title(), "dock");
        assert_eq!(program("", Some("/usr/bin/python3")).title(), "python3");
        assert_eq!(program("", None).title(), "http://localhost:1420");
        assert_eq!(Program::default().title(), "");
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new("abc".into())), "Secret(…)");
    }
}
