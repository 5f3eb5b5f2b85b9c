//! Parsers of untrusted input, exposed to the fuzz targets in `tests/fuzz`.

use std::{net::SocketAddr, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::HOST};
use proto::Timestamp;
use queue::{Cursor, ModelPattern};

use crate::{
    Config, Network, PublicUrl, PushUrl, WebhookAllowed, auth, hint, jwt, keys, loopback,
    multipart,
    peer::Peer,
    pipeline, request_options, session, target,
    webhook::{self, Secret},
};

/// Parses an API key.
pub fn key(bytes: &[u8]) {
    const LENGTH: usize = "hearth_00112233aabb__01020304".len() + 64;
    if let Some(text) = text(bytes)
        && keys::parse(text).is_some()
    {
        assert_eq!(text.len(), LENGTH, "{text} is read as a key");
    }
}

const NOW: Timestamp = Timestamp(1_000_000_000_000);
const KEY: [u8; 32] = [7; 32];

/// The only valid tokens.
static GIVEN: LazyLock<[String; 2]> = LazyLock::new(|| {
    let bearer = jwt::Bearer {
        user: 3,
        generation: 1,
    };
    [jwt::Kind::Access, jwt::Kind::Refresh]
        .map(|kind| jwt::sign(&KEY, kind, bearer, NOW.into(), [1; 32]))
});

/// Verifies a login token.
pub fn token(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for (kind, given) in [jwt::Kind::Access, jwt::Kind::Refresh]
        .into_iter()
        .zip(&*GIVEN)
    {
        if jwt::read(&KEY, kind, text, NOW).is_ok() {
            assert_eq!(text, given, "a token opens that was not given out");
        }
    }
    for kind in [session::Kind::Access, session::Kind::Renew] {
        let read = session::read(&KEY, kind, text, NOW);
        assert!(read.is_err(), "no session was ever begun");
    }
}

/// Parses request headers, one per line.
pub fn head(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    drop((
        request_options::idempotency_key(&headers),
        request_options::worker(&headers),
    ));
    drop((
        request_options::wanted_for(&headers),
        request_options::priority(&headers),
    ));
    let _ = (
        hint::WaitsFor::in_headers(&headers),
        auth::in_headers(&headers),
    );

    let listener = SocketAddr::from(([127, 0, 0, 1], 8787));
    if loopback::admit(&headers, None, listener).is_ok() {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.unwrap_or_default().to_ascii_lowercase();
        let own = ["127.0.0.1:8787", "localhost:8787", "[::1]:8787"];
        assert!(own.contains(&host.as_str()), "{host} is let in");
    }
    let stranger = SocketAddr::from(([203, 0, 113, 9], 1));
    let Ok(proxy) = "127.0.0.1".parse::<Network>() else {
        return;
    };
    let proxies = [proxy];
    let seen = Peer::of(stranger, false, &proxies, &headers);
    assert_eq!(seen.address, stranger.ip(), "a stranger is another");
    assert!(!seen.is_secure);
    Peer::of(listener, false, &proxies, &headers);
}

/// Parses a request target, and checks that the form for logs hides keys.
pub fn path(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(uri) = text.parse::<Uri>() else { return };
    let shown = target::shown(uri.path());
    let keys = uri
        .path()
        .split('/')
        .filter(|part| keys::parse(part).is_some());
    for key in keys {
        assert!(!shown.contains(key), "{shown} shows a key");
    }
    if let Some((key, rest)) = pipeline::path_key(&uri) {
        assert!(
            key.is_empty() || shown.starts_with("/k/…"),
            "{shown} shows {key}"
        );
        assert!(rest.path().starts_with('/'));
    }
}

/// Parses a form: the content type, a line feed, the body.
pub fn form(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (kind, body) = bytes.split_at(end.unwrap_or(0));
    if let Some(kind) = text(kind) {
        let body = Bytes::copy_from_slice(body);
        drop(multipart::parse(kind, &body));
    }
}

/// Parses a webhook URL, and a webhook secret.
pub fn webhook(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    drop(webhook::check(text, &[]));
    if let Some(secret) = Secret::parse(text) {
        let again = Secret::parse(secret.reveal().expose());
        assert_eq!(again.map(Secret::into_bytes), Some(secret.into_bytes()));
    }
}

/// Parses a settings file.
pub fn settings(bytes: &[u8]) {
    if let Some(text) = text(bytes) {
        drop(Config::parse(PathBuf::from("relay.toml"), text).map_err(|error| error.to_string()));
    }
}

/// Parses values of options and query parameters.
pub fn options(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(network) = text.parse::<Network>() {
        assert_eq!(network.to_string().parse(), Ok(network));
    }
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.to_string().parse::<Cursor>().ok(), Some(cursor));
    }
    drop((text.parse::<PublicUrl>(), text.parse::<PushUrl>()));
    drop((text.parse::<WebhookAllowed>(), text.parse::<ModelPattern>()));
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}
