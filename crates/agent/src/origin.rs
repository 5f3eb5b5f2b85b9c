//! The origin of each setting.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use engine::Url;

use crate::SettingsError;

/// The source of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default.
    Default,
    /// This settings file.
    File(PathBuf),
    /// This environment variable.
    Env(String),
    /// This option on the command line, without dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// An absolute path, which does not depend on the working folder.
pub(crate) fn absolute(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

/// One line of `--print-config`.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) from: Origin,
}

impl fmt::Display for Line {
    /// Writes the line as it may appear in the settings file; commented out if it is a default, or
    /// may not appear there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, from } = self;
        let written = match (*name, from) {
            (_, Origin::Default) | ("key" | "engine-key" | "ollama-host", _) => {
                return write!(f, "# {name} = {value} # {from}");
            }
            (
                "plain-http"
                | "allow-model-changes"
                | "status-port"
                | "http-port"
                | "slots"
                | "job-limit"
                | "first-line-timeout"
                | "next-line-timeout",
                Origin::File(_) | Origin::Env(_) | Origin::Flag(_),
            ) => value.clone(),
            ("origins", _) => toml::Value::from(value.split(' ').collect::<Vec<_>>()).to_string(),
            _ => toml::Value::from(value.as_str()).to_string(),
        };
        write!(f, "{name} = {written} # {from}")
    }
}

/// Resolves each setting from the source with the highest precedence, and records that source.
pub(crate) struct Resolver<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    file: PathBuf,
    lines: Vec<Line>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(env: &'a dyn Fn(&str) -> Option<String>, file: PathBuf) -> Self {
        Self {
            env,
            file,
            lines: Vec::new(),
        }
    }

    /// The value of a variable, if it is not empty.
    pub(crate) fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    /// The flag, else the variable of the same name, else the file; parsed by `read`.
    pub(crate) fn pick<T>(
        &mut self,
        name: &'static str,
        flag: Option<impl ToString>,
        file: Option<impl ToString>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Picked<'_, 'a, T>, SettingsError> {
        let variable = format!("HEARTH_{}", name.to_ascii_uppercase().replace('-', "_"));
        let set = self.env(&variable);
        let given = match (flag, set, file) {
            (Some(value), _, _) => Some((value.to_string(), Origin::Flag(name))),
            (None, Some(value), _) => Some((value, Origin::Env(variable))),
            (None, None, Some(value)) => Some((value.to_string(), Origin::File(self.file.clone()))),
            (None, None, None) => None,
        };
        let found = match given {
            Some((value, from)) => Some(self.read(name, value, from, read)?),
            None => None,
        };
        Ok(Picked {
            from: self,
            name,
            found,
        })
    }

    /// The address of Ollama: the flag, else `OLLAMA_HOST`.
    pub(crate) fn ollama(
        &mut self,
        flag: Option<String>,
        read: impl Fn(&str) -> Result<Url, String>,
    ) -> Result<Url, SettingsError> {
        const NAME: &str = "ollama-host";
        const VARIABLE: &str = "OLLAMA_HOST";
        let (value, from) = match (flag, self.env(VARIABLE)) {
            (Some(value), _) => (value, Origin::Flag(NAME)),
            (None, Some(value)) => (value, Origin::Env(VARIABLE.to_owned())),
            (None, None) => ("127.0.0.1:11434".to_owned(), Origin::Default),
        };
        self.read(NAME, value, from, read)
    }

    fn read<T>(
        &mut self,
        name: &'static str,
        value: String,
        from: Origin,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, SettingsError> {
        match read(&value) {
            Ok(read) => {
                self.lines.push(Line { name, value, from });
                Ok(read)
            }
            Err(problem) => Err(SettingsError::Value {
                name,
                from,
                problem,
            }),
        }
    }

    /// Records a setting that only the file can hold.
    pub(crate) fn note(&mut self, name: &'static str, value: &str, is_default: bool) {
        let from = if is_default {
            Origin::Default
        } else {
            Origin::File(self.file.clone())
        };
        self.lines.push(Line {
            name,
            value: value.to_owned(),
            from,
        });
    }

    /// Records that a secret is set, and its source.
    pub(crate) fn secret(&mut self, name: &'static str, from: Origin) {
        self.lines.push(Line {
            name,
            value: "(set, not shown)".to_owned(),
            from,
        });
    }

    pub(crate) fn origin_of(&self, name: &str) -> Origin {
        let line = self.lines.iter().find(|line| line.name == name);
        line.map_or(Origin::Default, |line| line.from.clone())
    }

    pub(crate) fn lines(self) -> Vec<Line> {
        self.lines
    }
}

/// A setting that some source may have set.
pub(crate) struct Picked<'r, 'a, T> {
    from: &'r mut Resolver<'a>,
    name: &'static str,
    found: Option<T>,
}

impl<T> Picked<'_, '_, T> {
    /// The value, or its default; the line shows the default as `shown`.
    pub(crate) fn or(self, shown: &str, usual: T) -> T {
        self.found.unwrap_or_else(|| {
            self.from.lines.push(Line {
                name: self.name,
                value: shown.to_owned(),
                from: Origin::Default,
            });
            usual
        })
    }

    /// The value, if it is set.
    pub(crate) fn found(self) -> Option<T> {
        self.found
    }
}

/// A path as text, for [`Resolver::pick`].
pub(crate) fn shown(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.display().to_string())
}

/// Reads a path.
pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    Ok(text.into())
}

/// Reads a setting that is on or off.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "use true or false".to_owned())
}
