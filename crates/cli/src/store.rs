//! The options that name the store with a relay's keys and users.

use std::{io::Write as _, path::PathBuf, sync::Arc};

use queue::{Keys, Users};

/// The store of a relay, whether or not the relay is running.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// Where the relay keeps its jobs, keys and users: sqlite:PATH.
    #[arg(long, env = "HEARTH_STORE", value_name = "URL")]
    store: String,
    /// The relay's settings file, which names the store if --store does not [default: relay.toml in
    /// the user's configuration folder].
    #[arg(long, env = "HEARTH_RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Store {
    /// Opens the keys of an existing store.
    ///
    /// # Errors
    /// If there is no store, or it cannot be opened.
    pub(crate) async fn keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        relay::check_store_exists(&self.store)?;
        self.made_with_keys().await
    }

    /// Opens the keys; creates the store if it does not exist.
    ///
    /// # Errors
    /// If the store cannot be opened or created.
    pub(crate) async fn made_with_keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        let keys = relay::open_keys(&self.store).await?;
        self.say()?;
        Ok(keys)
    }

    /// Opens the users of an existing store.
    ///
    /// # Errors
    /// If there is no store, or it cannot be opened.
    pub(crate) async fn users(&self) -> anyhow::Result<Arc<dyn Users>> {
        relay::check_store_exists(&self.store)?;
        self.made_with_users().await
    }

    /// Opens the users; creates the store if it does not exist.
    ///
    /// # Errors
    /// If the store cannot be opened or created.
    pub(crate) async fn made_with_users(&self) -> anyhow::Result<Arc<dyn Users>> {
        let users = relay::open_users(&self.store).await?;
        self.say()?;
        Ok(users)
    }

    /// Prints which store was opened, because a key in another store has no effect on the relay.
    fn say(&self) -> std::io::Result<()> {
        writeln!(std::io::stderr(), "store {}", self.store)
    }
}
