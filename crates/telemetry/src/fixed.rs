//! How `--print-config` lists limits that no option sets: as comments of a settings file, with times
//! in seconds and sizes in bytes.

use std::{fmt::Write as _, time::Duration};

/// Name and value of a limit.
pub type Limit = (&'static str, String);

/// Lists limits, each in a line of its own.
pub fn comments(limits: impl IntoIterator<Item = Limit>) -> String {
    limits.into_iter().fold(String::new(), |mut text, limit| {
        let (name, value) = limit;
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {name} = {value} (fixed)");
        text
    })
}

/// Writes a number, or a size in bytes.
pub fn count(value: impl Copy + ToString) -> String {
    value.to_string()
}

/// Writes a time in seconds.
#[must_use]
pub fn seconds(time: Duration) -> String {
    time.as_secs_f64().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_limit_is_a_comment_with_its_number() {
        let limits = [
            ("bytes-max", count(64)),
            ("wait-min", seconds(Duration::from_millis(500))),
            ("wait-max", seconds(Duration::from_secs(60))),
        ];
        let text = "# bytes-max = 64 (fixed)\n# wait-min = 0.5 (fixed)\n# wait-max = 60 (fixed)\n";
        assert_eq!(comments(limits), text);
    }
}
