//! Generates docs/asyncapi.json from the types: `UPDATE=1` writes it, a test compares it.

use std::{fs, path::Path};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{
    limits,
    status::{
        ClientMessage, ServerMessage,
        v1::{
            CLOSE_LATE, CLOSE_PROTOCOL, CLOSE_RATE_LIMITED, CLOSE_UNAUTHORIZED, CLOSE_VERSION,
            HubMessage, PeerMessage, SUBPROTOCOL,
        },
    },
};

/// The messages of the document: their names, the fixtures used as examples, and which of them
/// belong to each name.
struct Messages {
    generator: schemars::SchemaGenerator,
    all: Map<String, Value>,
}

impl Messages {
    fn add<T: JsonSchema>(&mut self, name: &str, summary: &str, examples: &[impl AsRef<str>]) {
        let payload = self.generator.subschema_for::<T>();
        let example =
            |file: &str| json!({ "name": file.replace('/', "-"), "payload": fixture(file) });
        let examples: Vec<_> = examples.iter().map(|file| example(file.as_ref())).collect();
        let message = json!({ "contentType": "application/json", "summary": summary,
            "payload": payload, "examples": examples });
        self.all.insert(name.to_owned(), message);
    }
}

fn fixture(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let text = fs::read_to_string(folder.join(format!("{name}.json"))).expect(name);
    serde_json::from_str(&text).expect(name)
}

fn v1(name: &str) -> String {
    format!("status-v1/{name}")
}

fn document() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    let mut messages = Messages {
        generator: settings.into_generator(),
        all: Map::new(),
    };
    messages.add::<ServerMessage>(
        "LegacyFromHub",
        "A message from the hub in the legacy mode.",
        &[
            "status",
            "legacy/ack",
            "legacy/error",
            "legacy/pong",
            "legacy/approval",
            "legacy/granted",
        ],
    );
    messages.add::<ClientMessage>(
        "LegacyToHub",
        "A message from a client in the legacy mode.",
        &["legacy/command", "legacy/ping"],
    );
    messages.add::<HubMessage>(
        "FromHub",
        "A message from the hub in hearth.status.v1.",
        &[
            "hello",
            "identified",
            "snapshot",
            "delta",
            "response",
            "refusal",
            "published",
            "field-taken",
            "pong",
            "error",
            "errand",
            "taken",
            "approval",
            "granted",
            "approved",
            "pairs",
        ]
        .map(v1),
    );
    messages.add::<PeerMessage>(
        "ToHub",
        "A message from a client in hearth.status.v1.",
        &[
            "identify",
            "reidentify",
            "request",
            "ping",
            "publish",
            "errand-done",
            "approve",
        ]
        .map(v1),
    );

    let channel = |from: &str, to: &str, description: String| {
        let message = |name: &str| json!({ "$ref": format!("#/components/messages/{name}") });
        let token = "`Bearer` and the token in the data folder: permits commands.";
        let headers = json!({ "type": "object", "properties":
            { "Authorization": { "type": "string", "description": token } } });
        json!({ "address": "/", "description": description, "messages":
            { from: message(from), to: message(to) }, "bindings": { "ws": { "headers": headers } } })
    };
    let closes = [
        (1001, "the hub shuts down"),
        (1002, "a frame violates the WebSocket protocol"),
        (1007, "a text message is not UTF-8"),
        (1009, "a message is too long"),
        (
            1013,
            "the hub is full; only clients that prove a token are accepted",
        ),
        (CLOSE_PROTOCOL, "the first message is not `identify`"),
        (CLOSE_LATE, "`identify` arrived too late"),
        (CLOSE_UNAUTHORIZED, "the proof is wrong"),
        (CLOSE_VERSION, "the version is not supported"),
        (CLOSE_RATE_LIMITED, "too many wrong proofs"),
    ];
    let closes = closes.map(|(code, why)| (code.to_string(), why.into()));
    let operation = |action: &str, channel: &str, message: &str| {
        json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") },
            "messages": [{ "$ref": format!("#/channels/{channel}/messages/{message}") }] })
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hearth's status hub",
            "version": "1",
            "description": format!("The status of the agent on this machine, and commands to it. \
                docs/PROTOCOL.md describes each message; a message has at most {} bytes.",
                limits::HUB_MESSAGE_MAX),
        },
        "defaultContentType": "application/json",
        "servers": { "local": { "host": "127.0.0.1:6001", "protocol": "ws",
            "description": "127.0.0.1:6000 if that port is taken." } },
        "channels": {
            "legacy": channel("LegacyFromHub", "LegacyToHub", "Without a subprotocol.".to_owned()),
            "v1": channel("FromHub", "ToHub", format!("With the subprotocol `{SUBPROTOCOL}`.")),
        },
        "operations": {
            "legacyHear": operation("receive", "legacy", "LegacyFromHub"),
            "legacySay": operation("send", "legacy", "LegacyToHub"),
            "hear": operation("receive", "v1", "FromHub"),
            "say": operation("send", "v1", "ToHub"),
        },
        "x-close-codes": Map::from_iter(closes),
        "components": {
            "messages": messages.all,
            "schemas": messages.generator.take_definitions(true),
        },
    })
}

/// Collects all references, each of which must resolve.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let to = fields.get("$ref").and_then(Value::as_str);
            found.extend(to.map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_hubs_document_for_machines_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/asyncapi.json");
    let document = document();
    let written = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &written).unwrap();
    }
    let protocol = include_str!("../../../docs/PROTOCOL.md");
    let codes = document["x-close-codes"].as_object().unwrap();
    let told = protocol.split("## Close codes").nth(1);
    let rows = told.unwrap().split("\n## ").next().unwrap().lines();
    let rows = rows.filter_map(|row| row.strip_prefix("| ")?.split(' ').next());
    let rows: Vec<_> = rows.filter(|code| code.parse::<u16>().is_ok()).collect();
    assert_eq!(codes.keys().collect::<Vec<_>>(), rows);
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 20, "{found:?}");
    for to in found {
        let at = to.strip_prefix('#').unwrap();
        assert!(document.pointer(at).is_some(), "{to} leads nowhere");
    }
    let kept = fs::read_to_string(&path).unwrap();
    assert!(
        kept == written,
        "run UPDATE=1 cargo test -p hearth-proto --features schema asyncapi"
    );
}
