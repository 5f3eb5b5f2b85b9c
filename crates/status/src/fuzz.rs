//! Readers of what overlays, hubs and assistants say, for `tests/fuzz`.

use http::{HeaderMap, HeaderValue, Uri, header};
use proto::status::v1::HubMessage;

use crate::{Access, access::OWN_ORIGINS, dial::Shown, foreign, message, sockets, talk};

/// No answer is longer, whatever was asked.
const LONGEST: usize = 4_096;

/// A client without a subprotocol.
pub fn legacy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let message::Heard::Answer(answer) = message::read(text)
    {
        is_short(&answer, text);
    }
}

/// A client of `hearth.status.v1`.
pub fn v1(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let talk::Heard::Refuse(answer) = talk::read(text)
    {
        is_short(&answer, text);
    }
}

fn is_short<T: serde::Serialize>(answer: &T, asked: &str) {
    let answer = serde_json::to_string(answer).unwrap_or_default();
    assert!((1..LONGEST).contains(&answer.len()), "{asked}");
}

/// A hub of Hearth's or a foreign assistant, message by message.
pub fn heard(bytes: &[u8]) {
    let mut shown = Shown::default();
    let text = String::from_utf8_lossy(bytes);
    for text in std::iter::once(&*text).chain(text.lines()) {
        drop(foreign::read(text));
        drop(foreign::read_bare(text));
        if let Ok(message) = serde_json::from_str::<HubMessage>(text) {
            drop(shown.read(message));
        }
    }
}

/// The head of an upgrade: target, `Host`, `Origin`, another `Host`, a line each.
pub fn access(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let uri = lines.next().and_then(|uri| Uri::try_from(uri).ok());
    let mut headers = HeaderMap::new();
    for name in [header::HOST, header::ORIGIN, header::HOST] {
        if let Some(Ok(value)) = lines.next().map(HeaderValue::from_bytes) {
            headers.append(name, value);
        }
    }
    let Some(uri) = uri else { return };
    if Access::new(6001, &[]).check(&uri, &headers).is_err() {
        return;
    }
    let hosts = headers.get_all(header::HOST).iter();
    let hosts: Vec<&[u8]> = hosts.map(HeaderValue::as_bytes).collect();
    let authority = uri.authority().map(|named| named.as_str().as_bytes());
    for host in hosts.iter().copied().chain(authority) {
        let own: [&[u8]; 3] = [b"127.0.0.1:6001", b"localhost:6001", b"[::1]:6001"];
        let is_own = own.iter().any(|own| host.eq_ignore_ascii_case(own));
        assert!(is_own, "{host:?} is let in");
    }
    assert_eq!(hosts.len(), 1, "{hosts:?} are let in");
    let strange = headers.get_all(header::ORIGIN).iter();
    let mut strange = strange.filter(|origin| !OWN_ORIGINS.iter().any(|own| origin == own));
    assert_eq!(strange.next(), None, "is let in");
}

/// The kernel's table of sockets.
pub fn holder(bytes: &[u8]) {
    let _ = sockets::rows(&String::from_utf8_lossy(bytes)).count();
}
