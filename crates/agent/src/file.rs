//! The settings file, `hearth.toml`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::SettingsError;

/// The keys of the settings file; any other key is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct File {
    pub(crate) relay: Option<String>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) plain_http: Option<bool>,
    pub(crate) engine: Option<String>,
    pub(crate) engine_key_file: Option<PathBuf>,
    pub(crate) model: Option<PathBuf>,
    pub(crate) status_port: Option<u16>,
    pub(crate) http_port: Option<u16>,
    pub(crate) slots: Option<u32>,
    pub(crate) job_limit: Option<u32>,
    pub(crate) first_line_timeout: Option<u32>,
    pub(crate) next_line_timeout: Option<u32>,
    pub(crate) allow_model_changes: Option<bool>,
    pub(crate) name: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) origins: Vec<String>,
}

impl File {
    /// Reads the file. A missing file is empty, unless `must_exist`.
    pub(crate) fn read(path: &Path, must_exist: bool) -> Result<Self, SettingsError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
                return Ok(Self::default());
            }
            Err(why) => {
                return Err(SettingsError::File {
                    path: path.to_owned(),
                    why,
                });
            }
        };
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        toml::from_str(text).map_err(|error| {
            // The error's own text quotes the line, which may contain a secret.
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let line = text.as_bytes()[..at]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            SettingsError::Toml {
                path: path.to_owned(),
                line,
                problem: error.message().to_owned(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_named_with_its_line_and_nothing_of_it_is_quoted() {
        let usual = "relay = \"https://relay.example\"\nkey-file = \"/k\"\nslots = 2\n\
                     origins = [\"https://a.example\"]\nlanguage = \"pl\"\n";
        let path = Path::new("hearth.toml");
        let mut refused = 0;
        ::tests::mutate::mutate(&[usual.into()], 1, 2_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match File::parse(path, &text) {
                Err(SettingsError::Toml { line, problem, .. }) => {
                    refused += 1;
                    assert!(
                        (1..=text.matches('\n').count() + 1).contains(&line),
                        "{text}"
                    );
                    assert!(!problem.contains("relay.example"), "{problem}");
                }
                Err(other) => panic!("{other}"),
                Ok(_) => {}
            }
        });
        assert!(refused > 100, "{refused}");
        assert!(File::parse(path, usual).is_ok());
    }
}
