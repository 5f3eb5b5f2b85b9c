//! `/overlay`: the desktop's overlay as a page, for the browser sources of streaming software.

use axum::{
    http::{HeaderValue, Uri, header},
    response::{IntoResponse as _, Response},
};
use proto::ErrorCode;

use super::refuse;

/// A file of the pages.
struct Page {
    at: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// Empty if the pages were not built before this program.
const PAGES: &[Page] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// Allows only its own files and its own stream; no inline script, and no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// Serves a file of the overlay page.
pub(super) async fn page(uri: Uri) -> Response {
    let Some(page) = PAGES.iter().find(|page| page.at == uri.path()) else {
        return if PAGES.is_empty() {
            let message = "this program was built without its pages; \
                           run `npm ci && npm run build` in ui/ and build it again";
            refuse(ErrorCode::UnknownRoute, message)
        } else {
            refuse(ErrorCode::UnknownRoute, "there is no such file")
        };
    };
    let mut response = page.bytes.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, page.kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overlay_loads_nothing_that_is_not_served() {
        let html = PAGES.iter().find(|page| page.at == "/overlay");
        let html = html.expect("build the pages in ui/ first, as ./x does");
        let html = std::str::from_utf8(html.bytes).unwrap();
        let loads: Vec<&str> = html
            .split(['"'])
            .filter(|word| word.starts_with('/') && word.contains('.'))
            .collect();
        assert!(loads.len() >= 2, "{loads:?}");
        for file in loads {
            assert!(PAGES.iter().any(|page| page.at == file), "{file}");
        }
        assert!(!html.contains("<style") && !html.contains("javascript:"));
        assert!(html.matches("<script").count() == html.matches("src=").count());
    }

    #[test]
    fn the_policy_allows_only_what_this_listener_serves() {
        assert!(POLICY.starts_with("default-src 'none';"));
        assert!(!POLICY.contains("unsafe") && !POLICY.contains('*') && !POLICY.contains(':'));
        assert!(POLICY.contains("frame-ancestors 'none'"));
    }
}
