//! Which store the keys and users of a relay lie in.

use std::sync::Arc;

use queue::{Keys, Users};

/// The store of a relay, whether or not it runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Store {
    /// Where the relay keeps its jobs, keys and users: sqlite:PATH.
    #[arg(long, env = "HEARTH_STORE", value_name = "URL")]
    store: String,
}

impl Store {
    /// Its keys, if it is there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        relay::must_exist(&self.store)?;
        Ok(relay::open_keys(&self.store).await?)
    }

    /// Its keys; it is made if it is not there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn made_with_keys(&self) -> anyhow::Result<Arc<dyn Keys>> {
        Ok(relay::open_keys(&self.store).await?)
    }

    /// Its users, if it is there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn users(&self) -> anyhow::Result<Arc<dyn Users>> {
        relay::must_exist(&self.store)?;
        Ok(relay::open_users(&self.store).await?)
    }

    /// Its users; it is made if it is not there.
    ///
    /// # Errors
    /// In words for whoever named it.
    pub(crate) async fn made_with_users(&self) -> anyhow::Result<Arc<dyn Users>> {
        Ok(relay::open_users(&self.store).await?)
    }
}
