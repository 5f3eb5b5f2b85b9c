//! Ollama's `keep_alive`.

use std::time::Duration;

use serde_json::Value;

/// Time for which the model stays in memory after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// For this time after the last request; zero unloads it at once.
    For(Duration),
    /// For the lifetime of the engine.
    Forever,
}

impl KeepAlive {
    /// Parses `keep_alive`: a number of seconds or a Go duration; negative means for ever. The
    /// error is Ollama's own text.
    pub(crate) fn read(value: &Value) -> Result<Option<Self>, String> {
        match value {
            Value::Null => Ok(None),
            Value::Number(seconds) => Ok(Some(Self::of_seconds(
                seconds.as_f64().unwrap_or(f64::INFINITY),
            ))),
            Value::String(text) => seconds(text)
                .map(|seconds| Some(Self::of_seconds(seconds)))
                .ok_or_else(|| format!("time: invalid duration {text:?}")),
            Value::Bool(_) => Err("Unsupported type: 'bool'".to_owned()),
            Value::Array(_) => Err("Unsupported type: '[]interface {}'".to_owned()),
            Value::Object(_) => Err("Unsupported type: 'map[string]interface {}'".to_owned()),
        }
    }

    fn of_seconds(seconds: f64) -> Self {
        if seconds < 0.0 {
            return Self::Forever;
        }
        Duration::try_from_secs_f64(seconds).map_or(Self::Forever, Self::For)
    }
}

/// Parses a Go duration in seconds, like `time.ParseDuration`: `300ms`, `-1.5h`, `2h45m`, `0`.
fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, text.get(1..)?),
        b'+' => (1.0, text.get(1..)?),
        _ => (1.0, text),
    };
    if rest == "0" {
        return Some(0.0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    Some(sign * sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn seconds_and_go_durations_are_read() {
        let secs = |secs| Ok(Some(KeepAlive::For(Duration::from_secs(secs))));
        assert_eq!(KeepAlive::read(&json!(600)), secs(600));
        assert_eq!(KeepAlive::read(&json!("10m")), secs(600));
        assert_eq!(KeepAlive::read(&json!("1h2m3s")), secs(3723));
        assert_eq!(KeepAlive::read(&json!("0")), secs(0));
        assert_eq!(KeepAlive::read(&json!(0)), secs(0));
        assert_eq!(KeepAlive::read(&json!(-1)), Ok(Some(KeepAlive::Forever)));
        assert_eq!(KeepAlive::read(&json!("-1s")), Ok(Some(KeepAlive::Forever)));
        assert_eq!(KeepAlive::read(&json!(1e300)), Ok(Some(KeepAlive::Forever)));
        assert_eq!(KeepAlive::read(&json!(null)), Ok(None));
    }

    #[test]
    fn nonsense_is_refused_in_ollamas_words() {
        for wrong in ["soon", "", "5", "-", "1..2s", "1x"] {
            let refused = format!("time: invalid duration {wrong:?}");
            assert_eq!(KeepAlive::read(&json!(wrong)), Err(refused), "{wrong}");
        }
        assert_eq!(
            KeepAlive::read(&json!(true)),
            Err("Unsupported type: 'bool'".to_owned())
        );
    }
}
