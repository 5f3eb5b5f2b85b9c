//! Parsers of streams, as strict as the strictest known client of each kind.

use serde_json::Value;

/// Parses server-sent events as the strictest clients do: a blank line always ends an event, and an
/// event without data is an error, even a `retry` alone.
pub(crate) fn strict_events(stream: &str) -> Vec<(String, String)> {
    let (mut events, mut name, mut data) = (Vec::new(), String::new(), None::<String>);
    assert!(stream.is_empty() || stream.ends_with('\n'), "{stream}");
    for line in stream.lines() {
        match line.split_once(':').unwrap_or((line, "")) {
            ("", "") if line.is_empty() => {
                let data = data.take();
                let data = data.unwrap_or_else(|| panic!("an event without data: {stream}"));
                assert!(!data.is_empty(), "an empty event: {stream}");
                events.push((std::mem::take(&mut name), data));
            }
            ("", _comment) => {}
            ("event", value) => value.trim_start().clone_into(&mut name),
            ("data", value) => data = Some(value.trim_start().to_owned()),
            ("id", _) => {}
            (field, _) => panic!("a field that kills clients: {field}: {stream}"),
        }
    }
    assert!(data.is_none(), "the stream ends inside an event: {stream}");
    events
}

/// Parses NDJSON as the strictest clients do: each HTTP chunk by itself, without blank lines.
pub(crate) fn strict_lines(chunk: &str) -> Vec<Value> {
    let whole = chunk.strip_suffix('\n');
    let whole = whole.unwrap_or_else(|| panic!("a chunk that ends inside a line: {chunk:?}"));
    let parse = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(value.is_object(), "{line}");
        value
    };
    whole.split('\n').map(parse).collect()
}

/// Returns a request body with one question for a route.
pub(crate) fn question(path: &str, stream: bool) -> String {
    let question = match path {
        "/v1/responses" | "/api/embed" => r#""input":"x""#,
        "/v1/completions" | "/api/generate" => r#""prompt":"x""#,
        "/v1/messages" => r#""max_tokens":9,"messages":[{"role":"user","content":"x"}]"#,
        _ => r#""messages":[{"role":"user","content":"x"}]"#,
    };
    format!(r#"{{"model":"m","stream":{stream},{question}}}"#)
}
