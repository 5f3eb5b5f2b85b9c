//! The desktop entry in the autostart folder, by the Desktop Entry and Desktop Application
//! Autostart specifications of freedesktop.org. Not the usual crate: it ignores `XDG_CONFIG_HOME`
//! and does not quote arguments.

use std::{env, fs, io, path::Path, path::PathBuf};

use etcetera::BaseStrategy as _;
use status::private_file;

const NAME: &str = "hearth-desktop.desktop";

/// The path of the entry.
pub(super) fn path() -> Result<PathBuf, String> {
    let base = etcetera::choose_base_strategy().map_err(|error| error.to_string())?;
    Ok(base.config_dir().join("autostart").join(NAME))
}

/// The program to start: for an `AppImage` the image itself, whose mount point differs each time.
pub(super) fn program(app: &tauri::Env) -> Result<String, String> {
    let program = match &app.appimage {
        Some(image) => PathBuf::from(image),
        None => env::current_exe()
            .map_err(|error| format!("the path of this program cannot be determined: {error}"))?,
    };
    let path = program.to_str();
    path.map(str::to_owned).ok_or_else(|| {
        format!(
            "the path {} cannot be written to an autostart entry",
            program.display()
        )
    })
}

/// The content of the entry.
pub(super) fn text(program: &str, options: &[String]) -> String {
    let words = [program]
        .into_iter()
        .chain(options.iter().map(String::as_str));
    let exec: Vec<String> = words.map(quoted).collect();
    format!(
        "[Desktop Entry]\n\
         Type=Application\n\
         Name=Hearth\n\
         Comment=Lets applications use the language model on this machine\n\
         Exec={}\n\
         StartupNotify=false\n\
         Terminal=false\n",
        exec.join(" ")
    )
}

/// Writes the entry atomically, because a session may read it at any time.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    private_file::write(path, text.as_bytes())
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Quotes a value for `Exec`.
fn quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars().filter(|c| !c.is_control()) {
        match c {
            // Escaped twice: for the quotes, and for the string value of the entry.
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
    use super::*;

    #[test]
    fn a_value_stays_one_word_and_starts_nothing_else() {
        assert_eq!(quoted("/home/a b/key"), r#""/home/a b/key""#);
        assert_eq!(quoted("a\nExec=x"), r#""aExec=x""#);
        assert_eq!(quoted(r#"$(x)"`%\"#), r#""\\$(x)\\"\\`%%\\\\""#);
        assert_eq!(quoted(""), "\"\"");
    }

    #[test]
    fn an_entry_names_program_and_options_in_one_line() {
        let text = text(
            "/opt/my apps/hearth-desktop",
            &["--slots".into(), "2".into()],
        );
        let exec = text.lines().find_map(|line| line.strip_prefix("Exec="));
        assert_eq!(exec, Some(r#""/opt/my apps/hearth-desktop" --slots 2"#));
    }

    #[test]
    fn an_entry_is_replaced_and_taking_it_away_twice_is_no_fault() {
        let home = std::env::temp_dir().join(format!("hearth-entry-{}", std::process::id()));
        let path = home.join("autostart/x.desktop");
        write(&path, "one").unwrap();
        write(&path, "two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        remove(&path).unwrap();
        remove(&path).unwrap();
        fs::remove_dir_all(home).unwrap();
    }
}
