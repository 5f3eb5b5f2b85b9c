use std::path::PathBuf;

use etcetera::BaseStrategy as _;

/// The folders of one user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// The folder of `hearth.toml`.
    pub config: PathBuf,
    /// The folder of the local token, the owner's preferences, and the hub's address.
    pub data: PathBuf,
    /// The folder of the models.
    pub cache: PathBuf,
}

/// The user has no home folder.
#[derive(Debug, thiserror::Error)]
#[error(
    "the folders of this user cannot be determined: {0}; set HOME, or XDG_CONFIG_HOME, XDG_DATA_HOME and XDG_CACHE_HOME"
)]
pub struct NoFolders(#[from] etcetera::HomeDirError);

impl Folders {
    /// The folders of this user, by the conventions of the system (XDG on Linux).
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

    /// All folders below `home`, for tests.
    #[must_use]
    pub fn below(home: &std::path::Path) -> Self {
        Self {
            config: home.join("config"),
            data: home.join("data"),
            cache: home.join("cache"),
        }
    }
}
