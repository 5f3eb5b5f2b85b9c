//! Programs that ask the owner for permission to send commands, and those that have it.

use serde::{Deserialize, Serialize};

pub use crate::Secret;
use crate::Timestamp;

/// A program whose command waits for the owner's approval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Waiting {
    /// Identifier for `approve` and `deny`.
    pub id: String,
    /// The program.
    pub who: Program,
    /// Name of the command.
    pub command: String,
    /// Time at which it is refused unless the owner answers.
    #[cfg_attr(test, ts(type = "number"))]
    pub until: Timestamp,
}

/// A program that may send commands until its permission is revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Allowed {
    /// Identifier for `revoke`.
    pub id: String,
    /// The program, as it was when it asked.
    pub who: Program,
    /// Time of the approval.
    #[cfg_attr(test, ts(type = "number"))]
    pub since: Timestamp,
}

/// Information about a program. None of it is proof: a program may use any name, and may be run
/// by another one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Program {
    /// Name of the program, as it reported it; may be empty.
    pub name: String,
    /// Executable file of its process, if the system reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Process id, if the system reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    /// Origin of the web page, if it is an allowed one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// All pending questions to the owner, and all permanent permissions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(test, derive(ts_rs::TS))]
pub struct Pairs {
    /// Pending questions, oldest first.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// Permissions, oldest first.
    #[serde(default)]
    pub allowed: Vec<Allowed>,
}

impl Program {
    /// Returns what to display: its name, its file's name, its origin, or an empty text.
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
}
