//! The dashboard: the page at `/` and the files that it loads.

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use proto::ErrorCode;

use crate::error::ApiError;

/// One file of the dashboard.
struct Page {
    at: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// Files of the dashboard; empty if the pages were not built before this program.
const PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Content security policy: only own files and the own relay, no inline scripts, no framing.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Whether the `Accept` header asks for an HTML page.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).into_iter();
    let ranges = values.filter_map(|value| value.to_str().ok());
    let mut ranges = ranges.flat_map(|value| value.split(','));
    ranges.any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts
            .next()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("text/html"));
        is_html && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// Returns the page itself.
pub(crate) fn dashboard() -> Response {
    file("/", "no-cache")
}

/// Serves `GET /assets/{file}`. The name of a file changes with its content, so it can be cached
/// for ever.
pub(crate) async fn asset(uri: Uri) -> Response {
    file(uri.path(), "max-age=31536000, immutable")
}

fn file(at: &str, kept: &'static str) -> Response {
    let Some(page) = PAGES.iter().find(|page| page.at == at) else {
        let message = if PAGES.is_empty() {
            "this program was built without its pages; \
             run `npm ci && npm run build` in ui/ and build it again"
        } else {
            "the dashboard has no such file; reload the page"
        };
        return ApiError::new(ErrorCode::UnknownRoute, message).into_response();
    };
    let mut response = page.bytes.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, page.kind),
        (header::CACHE_CONTROL, kept),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_loads_nothing_that_is_not_served() {
        let html = PAGES.iter().find(|page| page.at == "/");
        let html = html.expect("build the pages in ui/ first, as ./x does");
        let html = std::str::from_utf8(html.bytes).unwrap();
        let quoted = html.split('"').filter(|word| word.starts_with('/'));
        let loads: Vec<&str> = quoted.filter(|word| word.contains('.')).collect();
        assert!(loads.len() >= 2, "{loads:?}");
        for file in loads {
            assert!(PAGES.iter().any(|page| page.at == file), "{file}");
        }
        assert!(!html.contains("<style") && !html.contains("style=") && !html.contains(" on"));
        assert_eq!(
            html.matches("<script").count(),
            html.matches("src=").count()
        );
        assert!(
            !PAGES.iter().any(|page| page.at.contains("overlay")),
            "nothing else is served"
        );
    }

    #[test]
    fn the_policy_lets_the_page_load_and_call_its_own_relay_only() {
        assert!(POLICY.starts_with("default-src 'none';"));
        assert!(!POLICY.contains("unsafe") && !POLICY.contains('*') && !POLICY.contains(':'));
        assert!(POLICY.contains("frame-ancestors 'none'"));
    }

    #[test]
    fn only_who_asks_for_a_page_gets_one() {
        let wants = |accept: &'static str| {
            let value = HeaderValue::from_static(accept);
            wants_page(&HeaderMap::from_iter([(header::ACCEPT, value)]))
        };
        assert!(wants("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"));
        assert!(wants("application/json, Text/HTML;level=1;q=0.5"));
        for other in ["*/*", "text/plain", "application/json", "text/html;q=0", ""] {
            assert!(!wants(other), "{other}");
        }
        assert!(!wants_page(&HeaderMap::new()));
    }
}
