//! Foreign formats of points in time.

use proto::Timestamp;

/// Formats RFC 3339 in UTC with milliseconds, for `created_at`.
pub(crate) fn rfc3339(now: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(now.0)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        .to_string()
}

/// Formats RFC 3339 in UTC with whole seconds, for Anthropic's `created_at`.
pub(crate) fn rfc3339_seconds(now: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(now.0)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

/// Returns whole seconds since 1970, for OpenAI's `created`.
pub(crate) const fn seconds(now: Timestamp) -> i64 {
    now.0.div_euclid(1000)
}

/// Parses an RFC 3339 text to seconds since 1970; 0 if it is invalid.
pub(crate) fn seconds_of(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_as_ollama_writes_it_and_read_back() {
        let noon = Timestamp(1_732_276_800_123);
        assert_eq!(rfc3339(noon), "2024-11-22T12:00:00.123Z");
        assert_eq!(seconds_of("2024-11-22T13:00:00.5+01:00"), seconds(noon));
        assert_eq!(seconds_of("yesterday"), 0);
    }
}
