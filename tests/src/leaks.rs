//! Searches for secrets where they must not be: in logs, in refusals, and on disk after their time.

use std::{fs, io, path::Path};

/// The secrets that occur in these texts, with their surroundings.
#[must_use]
pub fn find(said: &[String], secrets: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for text in said {
        for secret in secrets {
            if let Some(at) = text.find(secret.as_str()) {
                let from = text[..at]
                    .char_indices()
                    .rev()
                    .nth(60)
                    .map_or(0, |(from, _)| from);
                let around: String = text[from..].chars().take(160).collect();
                found.push(format!("{secret} in: {around}"));
            }
        }
    }
    found
}

/// The files below a folder that contain a word.
///
/// # Errors
/// If a folder cannot be read.
pub fn files_with(folder: &Path, word: &str) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, word)?);
        } else if let Ok(bytes) = fs::read(&path) {
            let has = bytes
                .windows(word.len())
                .any(|part| part == word.as_bytes());
            if has {
                found.push(format!("{word} in {}", path.display()));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_secret_is_found_in_a_text_and_in_a_file() {
        let said = [
            "fine".to_owned(),
            "żółć: key=s3cret, said the log".to_owned(),
        ];
        let secrets = ["s3cret".to_owned(), "other".to_owned()];
        let found = find(&said, &secrets);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("said the log"));
        assert!(find(&said[..1], &secrets).is_empty());

        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inside")).unwrap();
        fs::write(folder.path().join("inside/file"), b"\xff\x00s3cret\xff").unwrap();
        assert_eq!(files_with(folder.path(), "s3cret").unwrap().len(), 1);
        assert!(files_with(folder.path(), "other").unwrap().is_empty());
    }
}
