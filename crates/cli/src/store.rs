//! Which store the keys and users of a relay lie in.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use queue::{Keys, Users};

/// The store of a relay, whether or not it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// Where the relay keeps its jobs, keys and users: sqlite:PATH.
    #[arg(long, env = "HEARTH_STORE", value_name = "URL")]
    store: String,
    /// The relay's settings file, whose store is meant where none is named; else relay.toml in the
    /// user's config folder.
    #[arg(long, env = "HEARTH_RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Store {
    /// Its keys, if it is there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        relay::must_exist(&self.store)?;
        self.made_with_keys().await
    }

    /// Its keys; it is made if it is not there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn made_with_keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        let keys = relay::open_keys(&self.store).await?;
        self.say()?;
        Ok(keys)
    }

    /// Its users, if it is there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn users(&self) -> anyhow::Result<Arc<dyn Users>> {
        relay::must_exist(&self.store)?;
        self.made_with_users().await
    }

    /// Its users; it is made if it is not there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn made_with_users(&self) -> anyhow::Result<Arc<dyn Users>> {
        let users = relay::open_users(&self.store).await?;
        self.say()?;
        Ok(users)
    }

    /// Says which store was opened: a key that was made or revoked in another is worth nothing.
    fn say(&self) -> std::io::Result<()> {
        writeln!(std::io::stderr(), "store {}", self.store)
    }
}
