//! The files under `fixtures/` are the contract of the status hub; docs/PROTOCOL.md shows them.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{collections::BTreeSet, fs, path::Path};

use hearth_proto::status::{
    ClientMessage, ServerMessage,
    v1::{HubMessage, PeerMessage},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// Parses the value as this type and checks that nothing was lost.
fn round<T: DeserializeOwned + Serialize>(name: &str, value: &Value) -> T {
    let message: T = serde_json::from_value(value.clone()).expect(name);
    assert_eq!(serde_json::to_value(&message).unwrap(), *value, "{name}");
    message
}

fn read(name: &str) -> (String, Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let text = fs::read_to_string(folder.join(name)).expect(name);
    let value = serde_json::from_str(&text).expect(name);
    (text, value)
}

fn names(folder: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder);
    let files = fs::read_dir(path).unwrap();
    let name = |file: fs::DirEntry| file.file_name().into_string().unwrap();
    files
        .map(|file| format!("{folder}/{}", name(file.unwrap())))
        .collect()
}

/// Returns each example of the document: the name of its fixture, and its text.
fn shown() -> Vec<(&'static str, &'static str)> {
    let parts = DOCUMENT.split("<!-- fixture: ").skip(1);
    let example = |part: &'static str| {
        let (name, rest) = part.split_once(" -->\n```json\n").unwrap();
        (name, rest.split_once("```\n").unwrap().0)
    };
    parts.map(example).collect()
}

#[test]
fn the_document_shows_every_fixture_of_the_hub_as_it_is() {
    let shown = shown();
    for (name, text) in &shown {
        assert_eq!(*text, read(name).0, "{name}");
    }
    let shown: BTreeSet<_> = shown.into_iter().map(|(name, _)| name.to_owned()).collect();
    let all = names("status-v1").into_iter().chain(names("legacy"));
    let all = all.chain(names("http"));
    let all: BTreeSet<_> = all.chain(["status.json".to_owned()]).collect();
    assert_eq!(shown, all);
    let plain = DOCUMENT.matches("```json").count();
    assert_eq!(plain, shown.len(), "an example without a fixture");
}

#[test]
fn every_fixture_of_v1_is_a_message_that_is_known() {
    for name in names("status-v1") {
        let (_, value) = read(&name);
        match value["type"].as_str() {
            // The response of a publisher needs no name: the hub knows what it asked.
            Some("response") if value.get("request").is_none() => {
                round::<PeerMessage>(&name, &value);
            }
            Some("identify" | "reidentify" | "request" | "publish") => {
                assert_ne!(
                    round::<PeerMessage>(&name, &value),
                    PeerMessage::Unknown,
                    "{name}"
                );
            }
            _ => assert_ne!(
                round::<HubMessage>(&name, &value),
                HubMessage::Unknown,
                "{name}"
            ),
        }
    }
}

#[test]
fn every_fixture_of_the_legacy_mode_is_a_message_that_is_known() {
    for name in names("legacy") {
        let (_, value) = read(&name);
        if value["type"] == "command" {
            assert_ne!(
                round::<ClientMessage>(&name, &value),
                ClientMessage::Unknown,
                "{name}"
            );
        } else {
            assert_ne!(
                round::<ServerMessage>(&name, &value),
                ServerMessage::Unknown,
                "{name}"
            );
        }
    }
}
