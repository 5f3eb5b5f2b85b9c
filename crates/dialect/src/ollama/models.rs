//! What is told about models, from what the workers reported.

use bytes::Bytes;
use proto::{ModelName, WorkerReport};
use serde::Serialize;
use serde_json::value::RawValue;

use super::json;

/// The version told when no Ollama is online: the lowest that known clients accept.
pub const VERSION_FLOOR: &str = "0.6.4";

/// `GET /api/tags`: what the workers have, each model once, its entry byte for byte.
#[must_use]
pub fn tags<'a>(reports: impl IntoIterator<Item = &'a WorkerReport>) -> Bytes {
    #[derive(Serialize)]
    struct Tags<'a> {
        models: Vec<&'a RawValue>,
    }
    let models = merged(reports)
        .into_iter()
        .map(|(_, tag)| tag)
        .collect::<Vec<_>>();
    json(&Tags { models })
}

/// Every model of several workers once, in the order they were reported.
pub(crate) fn merged<'a>(
    reports: impl IntoIterator<Item = &'a WorkerReport>,
) -> Vec<(&'a ModelName, &'a RawValue)> {
    let mut merged: Vec<(&ModelName, &RawValue)> = Vec::new();
    for model in reports.into_iter().flat_map(|report| &report.models) {
        if !merged.iter().any(|(name, _)| name.is_same(&model.name)) {
            merged.push((&model.name, &model.tag));
        }
    }
    merged
}

/// `GET /api/version`: the lowest of these versions as dotted numbers, else [`VERSION_FLOOR`].
#[must_use]
pub fn version<'a>(versions: impl IntoIterator<Item = &'a str>) -> Bytes {
    #[derive(Serialize)]
    struct Version {
        version: String,
    }
    let lowest = versions.into_iter().filter_map(numbers).min();
    let version = lowest.map_or_else(
        || VERSION_FLOOR.to_owned(),
        |numbers| numbers.map(|n| n.to_string()).join("."),
    );
    json(&Version { version })
}

fn numbers(version: &str) -> Option<[u32; 3]> {
    let release = version.split(['-', '+']).next()?;
    let mut parts = release.trim_start_matches('v').split('.');
    let mut next = || parts.next().map_or(Ok(0), str::parse);
    let numbers = [next().ok()?, next().ok()?, next().ok()?];
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use proto::{EngineKind, ModelEntry};

    use super::*;

    fn report(models: &[(&str, &str)]) -> WorkerReport {
        WorkerReport {
            engine: EngineKind::Ollama,
            engine_version: "0.12.0".into(),
            engine_up: true,
            models: models
                .iter()
                .map(|(name, tag)| ModelEntry {
                    name: ModelName::new(*name).unwrap(),
                    loaded: false,
                    tag: RawValue::from_string((*tag).into()).unwrap(),
                })
                .collect(),
        }
    }

    #[test]
    fn models_of_several_workers_are_listed_once() {
        let a = report(&[("m:latest", r#"{"name":"m:latest", "size":1}"#)]);
        let b = report(&[("m", r#"{"name":"m"}"#), ("n:1b", r#"{"name":"n:1b"}"#)]);
        assert_eq!(
            tags([&a, &b]),
            r#"{"models":[{"name":"m:latest", "size":1},{"name":"n:1b"}]}"#
        );
        assert_eq!(tags([]), r#"{"models":[]}"#);
    }

    #[test]
    fn the_lowest_version_is_told_as_dotted_numbers() {
        assert_eq!(
            version(["0.33.0-rc2", "0.9.1", "junk"]),
            r#"{"version":"0.9.1"}"#
        );
        assert_eq!(version([]), r#"{"version":"0.6.4"}"#);
    }
}
