//! Damaged messages at every reader of this crate: each is answered shortly, none panics.

use std::fs;

use http::HeaderMap;
use proto::status::v1::HubMessage;
use tests::mutate::mutate;

use crate::{Access, dial::Shown, foreign, holder, message, talk};

const ROUNDS: usize = 4_000;
/// No answer is longer, whatever was asked.
const LONGEST: usize = 4_096;

/// The fixtures of the protocol, and what was found worth keeping.
fn corpus() -> Vec<Vec<u8>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto/fixtures");
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut files: Vec<_> = [
        root.to_owned(),
        format!("{root}/legacy"),
        format!("{root}/status-v1"),
        kept.to_owned(),
    ]
    .iter()
    .flat_map(|folder| fs::read_dir(folder).unwrap())
    .map(|entry| entry.unwrap().path())
    .filter(|path| path.is_file())
    .collect();
    // The order of a folder is no order.
    files.sort();
    let corpus: Vec<_> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(corpus.len() > 30, "{}", corpus.len());
    corpus
}

#[test]
fn damaged_messages_of_clients_are_answered_shortly() {
    mutate(&corpus(), 1, ROUNDS, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else {
            return;
        };
        if let message::Heard::Answer(answer) = message::read(text) {
            assert!(
                serde_json::to_string(&answer).unwrap().len() < LONGEST,
                "{text}"
            );
        }
        if let talk::Heard::Refuse(answer) = talk::read(text) {
            assert!(
                serde_json::to_string(&answer).unwrap().len() < LONGEST,
                "{text}"
            );
        }
    });
}

#[test]
fn damaged_messages_of_hubs_and_assistants_are_read_or_skipped() {
    let mut shown = Shown::default();
    mutate(&corpus(), 2, ROUNDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        drop(foreign::read(&text));
        drop(foreign::read_bare(&text));
        if let Ok(message) = serde_json::from_str::<HubMessage>(&text) {
            drop(shown.read(message));
        }
    });
}

#[test]
fn damaged_tables_and_request_lines_are_no_panic() {
    let table = fs::read("/proc/net/tcp").unwrap_or_default();
    let uris = [
        "/?token=x&a=1",
        "http://evil.com:6001/",
        "//[::1]:6001/?%00;key=1",
    ];
    let mut corpus: Vec<Vec<u8>> = uris.iter().map(|uri| uri.as_bytes().to_vec()).collect();
    corpus.push(table);
    let access = Access::new(6001, &[]);
    mutate(&corpus, 3, ROUNDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = holder::rows(&text).count();
        let mut headers = HeaderMap::new();
        for name in ["host", "origin"] {
            if let Ok(value) = bytes.try_into() {
                headers.insert(name, value);
            }
        }
        if let Ok(uri) = text.parse() {
            assert!(access.check(&uri, &headers).is_err(), "{text}");
        }
    });
}
