use std::path::PathBuf;

use etcetera::BaseStrategy as _;

/// Where Hearth keeps its things for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// `hearth.toml`.
    pub config: PathBuf,
    /// Token, wishes, where the hub listens.
    pub data: PathBuf,
    /// Models.
    pub cache: PathBuf,
}

/// This user has no home.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folders of this user cannot be determined: {0}; set HOME, or XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_CACHE_HOME"
)]
pub struct NoFolders(#[from] etcetera::HomeDirError);

impl Folders {
    /// The folders of this user, by the rules of the system (XDG where there are no others).
    ///
    /// # Errors
    /// If the user has no home folder.
    pub fn of_user() -> Result<Self, NoFolders> {
        let base = etcetera::choose_base_strategy()?;
        Ok(Self {
            config: base.config_dir().join("hearth"),
            data: base.data_dir().join("hearth"),
            cache: base.cache_dir().join("hearth"),
        })
    }

    /// All folders below one, for tests and for trying things out.
    #[must_use]
    pub fn below(home: &std::path::Path) -> Self {
        Self {
            config: home.join("config"),
            data: home.join("data"),
            cache: home.join("cache"),
        }
    }
}
