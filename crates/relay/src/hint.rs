//! What clients made by Stainless (OpenAI's and Anthropic's) say by the way.

use std::time::Duration;

use http::HeaderMap;

/// Seconds that the client waits: for the next bytes in Python, for the head elsewhere.
const TIMEOUTS: [&str; 2] = ["x-stainless-read-timeout", "x-stainless-timeout"];
/// A hint beyond this says nothing.
const LONGEST: f64 = 86_400.0;

/// How long the client waits for an answer that does not stream, if it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitsFor(pub(crate) Option<Duration>);

impl WaitsFor {
    /// It is a hint: what cannot be read is none.
    pub(crate) fn in_headers(headers: &HeaderMap) -> Self {
        let mut said = TIMEOUTS.iter().filter_map(|name| headers.get(*name));
        let seconds = said
            .next()
            .and_then(|said| said.to_str().ok()?.parse().ok());
        let is_sane = |seconds: &f64| *seconds > 0.0 && *seconds <= LONGEST;
        Self(seconds.filter(is_sane).map(Duration::from_secs_f64))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn a_timeout_is_a_hint_and_nonsense_is_none() {
        let hint = |value: &str| {
            let name = HeaderName::from_static(TIMEOUTS[0]);
            WaitsFor::in_headers(&HeaderMap::from_iter([(name, value.parse().unwrap())])).0
        };
        assert_eq!(hint("600"), Some(Duration::from_secs(600)));
        assert_eq!(hint("0.5"), Some(Duration::from_millis(500)));
        for nonsense in ["", "0", "-1", "NaN", "inf", "1e300", "NOT_GIVEN"] {
            assert_eq!(hint(nonsense), None, "{nonsense}");
        }
        let name = HeaderName::from_static(TIMEOUTS[1]);
        let other = HeaderMap::from_iter([(name, "7".parse().unwrap())]);
        assert_eq!(WaitsFor::in_headers(&other).0, Some(Duration::from_secs(7)));
        assert_eq!(WaitsFor::in_headers(&HeaderMap::new()).0, None);
    }
}
