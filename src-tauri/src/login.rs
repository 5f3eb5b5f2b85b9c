//! The options that a start at login repeats.

use std::path::Path;

/// The options of this start, except those that change with each start and the key itself, which
/// does not belong into a file that anybody may read.
pub(crate) fn options(args: &agent::Args) -> Vec<String> {
    let path = |path: &Path| {
        std::path::absolute(path)
            .unwrap_or_else(|_| path.to_owned())
            .display()
            .to_string()
    };
    let given = [
        ("--relay", args.relay.clone()),
        ("--key-file", args.key_file.as_deref().map(path)),
        ("--engine", args.engine.clone()),
        ("--slots", args.slots.map(|slots| slots.to_string())),
        ("--name", args.name.clone()),
        ("--config", args.config.as_deref().map(path)),
    ];
    let both = |(name, value): (&str, Option<String>)| Some([name.to_owned(), quoted(&value?)]);
    given.into_iter().filter_map(both).flatten().collect()
}

/// A value as a desktop entry's `Exec` wants it; the entry is written without a look at it.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    if cfg!(not(target_os = "linux")) || value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars().filter(|c| !c.is_control()) {
        match c {
            // Once for the quotes, and once more because the whole line is read as a string first.
            '\\' => quoted.push_str(r"\\\\"),
            '"' | '`' | '$' => quoted.extend([r"\\", c.encode_utf8(&mut [0; 4])]),
            '%' => quoted.push_str("%%"),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn of(options_given: &[&str]) -> Vec<String> {
        let words = ["hearth-desktop"].iter().chain(options_given);
        options(&agent::Args::parse_from(words))
    }

    #[test]
    fn what_names_the_relay_is_repeated_and_a_key_is_not() {
        assert_eq!(of(&[]), Vec::<String>::new());
        let given = [
            "--relay",
            "https://relay.example:8787",
            "--key-file",
            "/home/a/key",
        ];
        assert_eq!(of(&given), given);
        assert_eq!(
            of(&["--key", "secret", "--status-port", "0"]),
            Vec::<String>::new()
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_value_stays_one_word_and_starts_nothing_else() {
        assert_eq!(quoted("/home/a b/key"), r#""/home/a b/key""#);
        assert_eq!(quoted("a\nExec=x"), r#""aExec=x""#);
        assert_eq!(quoted(r#"$(x)"`%\"#), r#""\\$(x)\\"\\`%%\\\\""#);
    }
}
