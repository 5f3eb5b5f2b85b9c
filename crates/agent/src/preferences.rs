use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use status::private_file;

/// The owner's preferences, kept across restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Preferences {
    /// Whether the agent takes no new work.
    pub paused: bool,
    /// Whether the overlay is shown.
    pub overlay_visible: bool,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            paused: false,
            overlay_visible: true,
        }
    }
}

/// The file with the owner's preferences.
#[derive(Debug, Clone)]
pub(crate) struct PreferencesFile(PathBuf);

impl PreferencesFile {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self(folder.join("wishes.json"))
    }

    /// Reads the preferences of the last run. If the file exists but cannot be read, the agent is
    /// paused, because the owner may have paused it.
    pub(crate) fn load(&self) -> Preferences {
        let read = private_file::read(&self.0).and_then(|bytes| match bytes {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None => Ok(Preferences::default()),
        });
        read.unwrap_or_else(|error| {
            tracing::warn!(
                path = %self.0.display(), %error,
                "the saved preferences cannot be read; the agent is paused until `hearth resume`"
            );
            Preferences {
                paused: true,
                ..Preferences::default()
            }
        })
    }

    pub(crate) fn save(&self, preferences: Preferences) -> io::Result<()> {
        let mut json = serde_json::to_vec(&preferences)?;
        json.push(b'\n');
        private_file::write(&self.0, &json)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn wishes_are_read_back_and_unreadable_ones_pause() {
        let home = tempfile::tempdir().unwrap();
        let file = PreferencesFile::in_folder(home.path());
        assert_eq!(
            file.load(),
            Preferences {
                paused: false,
                overlay_visible: true
            }
        );
        let preferences = Preferences {
            paused: true,
            overlay_visible: false,
        };
        file.save(preferences).unwrap();
        assert_eq!(file.load(), preferences);
        private_file::write(&file.0, b"{\"paused\":true,\"of_later\":1}").unwrap();
        assert!(file.load().paused);
        private_file::write(&file.0, b"{\"pau").unwrap();
        assert!(file.load().paused, "damaged");
        file.save(Preferences::default()).unwrap();
        assert!(!file.load().paused);
        let for_all = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&file.0, for_all).unwrap();
        assert!(file.load().paused, "not the owner's alone");
    }
}
