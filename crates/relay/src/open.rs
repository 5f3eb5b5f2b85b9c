//! Opens a store by its URL.

use std::{path::PathBuf, sync::Arc};

use proto::Timestamp;
use queue::{Keys, MemoryQueue, QueueError, QueueLimits, Store, Users};
use queue_sqlite::{SqliteKeys, SqliteQueue};

/// Reason why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL's scheme is unknown.
    #[error("`{0}` is not the URL of a store; use sqlite:PATH")]
    Url(String),
    /// A store in memory is empty and cannot be shared with another process.
    #[error("a store in memory cannot keep keys and users; use sqlite:PATH")]
    KeysInMemory,
    /// The store's file does not exist.
    #[error("there is no store at {}; pass --store with the URL of the relay's store", .0.display())]
    Missing(PathBuf),
    /// The store's own error.
    #[error("{0}")]
    Store(String),
}

impl From<QueueError> for OpenError {
    fn from(error: QueueError) -> Self {
        if let QueueError::Store(source) = error {
            Self::Store(source.to_string())
        } else {
            Self::Store(error.to_string())
        }
    }
}

/// Opens a store for a relay: `sqlite:PATH`, or `memory:` for tests and trials.
///
/// # Errors
/// [`OpenError`], written for the user who gave the URL.
pub async fn open(
    url: &str,
    now: Timestamp,
    queue_limits: QueueLimits,
) -> Result<Arc<dyn Store>, OpenError> {
    match parse(url)? {
        StoreUrl::Memory => Ok(Arc::new(MemoryQueue::new(queue_limits))),
        StoreUrl::Sqlite(path) => {
            blocking(move || {
                let store = SqliteQueue::open_limited(&path, now, queue_limits)?;
                Ok(Arc::new(store) as Arc<dyn Store>)
            })
            .await
        }
    }
}

/// Opens only the keys of a store, which a running relay may have open as well.
///
/// # Errors
/// [`OpenError`], written for the user who gave the URL.
pub async fn open_keys(url: &str) -> Result<Arc<dyn Keys>, OpenError> {
    Ok(open_side_store(url).await?)
}

/// Opens only the users of a store, which a running relay may have open as well.
///
/// # Errors
/// [`OpenError`], written for the user who gave the URL.
pub async fn open_users(url: &str) -> Result<Arc<dyn Users>, OpenError> {
    Ok(open_side_store(url).await?)
}

/// Fails if the store does not exist, so that commands that only read do not create one.
///
/// # Errors
/// [`OpenError`], written for the user who gave the URL.
pub fn check_store_exists(url: &str) -> Result<(), OpenError> {
    match parse(url)? {
        StoreUrl::Sqlite(path) if !path.exists() => Err(OpenError::Missing(path)),
        StoreUrl::Sqlite(_) | StoreUrl::Memory => Ok(()),
    }
}

async fn open_side_store(url: &str) -> Result<Arc<SqliteKeys>, OpenError> {
    match parse(url)? {
        StoreUrl::Memory => Err(OpenError::KeysInMemory),
        StoreUrl::Sqlite(path) => blocking(move || Ok(Arc::new(SqliteKeys::open(&path)?))).await,
    }
}

enum StoreUrl {
    Memory,
    Sqlite(PathBuf),
}

fn parse(url: &str) -> Result<StoreUrl, OpenError> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(StoreUrl::Memory),
        Some(("sqlite", path)) if !path.is_empty() => {
            let path = path.strip_prefix("//").unwrap_or(path);
            Ok(StoreUrl::Sqlite(path.into()))
        }
        _ => Err(OpenError::Url(url.to_owned())),
    }
}

async fn blocking<T: Send + 'static>(
    open: impl FnOnce() -> Result<T, QueueError> + Send + 'static,
) -> Result<T, OpenError> {
    match tokio::task::spawn_blocking(open).await {
        Ok(opened) => Ok(opened?),
        Err(error) => Err(OpenError::Store(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_opened_and_its_keys_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/queue.db");
        for url in [
            format!("sqlite:{}", path.display()),
            format!("sqlite://{}", path.display()),
        ] {
            let store = open(&url, Timestamp(1), QueueLimits::default())
                .await
                .unwrap();
            assert!(
                open_keys(&url)
                    .await
                    .unwrap()
                    .list_keys()
                    .await
                    .unwrap()
                    .is_empty()
            );
            store.close().await.unwrap();
        }
        assert!(path.exists());
    }

    #[tokio::test]
    async fn what_names_no_store_is_repeated_in_the_error() {
        for url in ["", "queue.db", "sqlite:", "mysql:x", "memory:x"] {
            let error = open(url, Timestamp(1), QueueLimits::default()).await;
            let error = error.unwrap_err().to_string();
            assert!(error.contains(&format!("`{url}`")), "{error}");
        }
        assert!(
            open("memory:", Timestamp(1), QueueLimits::default())
                .await
                .is_ok()
        );
        assert!(matches!(
            open_keys("memory:").await,
            Err(OpenError::KeysInMemory)
        ));
    }
}
