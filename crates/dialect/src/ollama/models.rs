//! Answers about models, built from the reports of workers.

use std::{borrow::Cow, cmp::Reverse, collections::HashSet};

use bytes::Bytes;
use proto::{ModelName, Timestamp, WorkerReport};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::RawValue};

use super::json;

/// Version reported while no Ollama is online: the lowest one that known clients accept.
pub const VERSION_FLOOR: &str = "0.6.4";

/// Returns the body of `GET /api/tags`: each model of the workers once, its entry byte for byte.
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

/// Returns every model of several workers once, in the order of the reports.
pub(crate) fn merged<'a>(
    reports: impl IntoIterator<Item = &'a WorkerReport>,
) -> Vec<(&'a ModelName, &'a RawValue)> {
    let mut names = HashSet::new();
    let models = reports.into_iter().flat_map(|report| &report.models);
    let merged = models.filter(|model| names.insert(model.name.canonical()));
    merged.map(|model| (&model.name, &*model.tag)).collect()
}

/// Returns the body of `GET /api/ps`: each loaded model once, the longest-lived first, without
/// expired ones; entries byte for byte.
#[must_use]
pub fn running<'a>(entries: impl IntoIterator<Item = &'a RawValue>, now: Timestamp) -> Bytes {
    #[derive(Deserialize)]
    struct Entry<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
        #[serde(default)]
        expires_at: Option<String>,
    }
    #[derive(Serialize)]
    struct Running<'a> {
        models: Vec<&'a RawValue>,
    }
    let now = jiff::Timestamp::from_millisecond(now.0).unwrap_or_default();
    let read = |entry: &'a RawValue| {
        let Entry { name, expires_at } = serde_json::from_str(entry.get()).ok()?;
        let until = expires_at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
        Some((until, name, entry))
    };
    let mut known: Vec<_> = entries.into_iter().filter_map(read).collect();
    known.retain(|(until, ..)| until.is_none_or(|until| until > now));
    known.sort_by_key(|(until, ..)| Reverse(*until));
    let mut names = HashSet::new();
    known.retain(|(_, name, _)| names.insert(name.clone()));
    let models = known.into_iter().map(|(.., entry)| entry).collect();
    json(&Running { models })
}

/// Returns the model of an entry of `/api/ps`.
#[must_use]
pub fn running_name(entry: &RawValue) -> Option<ModelName> {
    #[derive(Deserialize)]
    struct Entry {
        name: ModelName,
    }
    let entry: Entry = serde_json::from_str(entry.get()).ok()?;
    Some(entry.name)
}

/// Returns an answer to `POST /api/show` from a model's entry in `/api/tags`, used until the
/// engine's own answer is known. Contains only what the entry does. `None` if it is not an object.
#[must_use]
pub fn show_of_tag(tag: &RawValue) -> Option<Bytes> {
    let mut tag: Map<String, Value> = serde_json::from_str(tag.get()).ok()?;
    let mut show = Map::new();
    for (name, default) in [
        ("details", Value::Object(Map::new())),
        ("model_info", Value::Object(Map::new())),
        ("capabilities", Value::Array(Vec::new())),
        ("modified_at", Value::Null),
    ] {
        let said = tag.shift_remove(name).unwrap_or(default);
        if !said.is_null() {
            show.insert(name.into(), said);
        }
    }
    Some(json(&show))
}

/// Returns the body of `GET /api/version`: the lowest of these versions, or [`VERSION_FLOOR`].
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
            model_changes: false,
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
    fn running_models_are_listed_once_the_longest_lived_first_and_no_longer_than_they_run() {
        let entries = [
            r#"{"name":"a", "expires_at":"1970-01-01T00:00:09Z","size":1}"#,
            r#"{"name":"b","expires_at":"2319-03-04T03:54:46.728006853Z"}"#,
            r#"{"name":"a","expires_at":"1970-01-01T03:00:20+02:00"}"#,
            r#"{"name":"over","expires_at":"1970-01-01T00:00:01Z"}"#,
            r#"{"name":"silent"}"#,
            "7",
        ]
        .map(|entry| RawValue::from_string(entry.to_owned()).unwrap());
        let listed = running(entries.iter().map(|entry| &**entry), Timestamp(5_000));
        assert_eq!(
            listed,
            format!(
                r#"{{"models":[{},{},{}]}}"#,
                entries[1], entries[2], entries[4]
            )
        );
        assert_eq!(running([], Timestamp(0)), r#"{"models":[]}"#);
    }

    #[test]
    fn a_model_is_shown_by_its_entry_while_nothing_else_is_known() {
        let tag = r#"{"name":"m","details":{"family":"llama"},"modified_at":"x","size":1}"#;
        let tag = RawValue::from_string(tag.to_owned()).unwrap();
        assert_eq!(
            show_of_tag(&tag).unwrap(),
            r#"{"details":{"family":"llama"},"model_info":{},"capabilities":[],"modified_at":"x"}"#
        );
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
