//! [`MemoryKeys`]: API keys in memory.

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::Timestamp;

use crate::{KeyRecord, Keys, QueueError};

/// API keys in memory, oldest first.
#[derive(Debug, Default)]
pub struct MemoryKeys(Mutex<Vec<KeyRecord>>);

#[async_trait]
impl Keys for MemoryKeys {
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError> {
        let mut keys = self.0.lock();
        if let Some(taken) = keys.iter().find_map(|had| had.taken(&key)) {
            return Err(QueueError::Exists(taken));
        }
        keys.push(key);
        Ok(())
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError> {
        Ok(self.0.lock().iter().find(|key| key.id == id).cloned())
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError> {
        Ok(self.0.lock().clone())
    }

    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError> {
        let mut keys = self.0.lock();
        let found = keys.iter_mut().find(|key| {
            key.revoked_at.is_none() && (key.id == id_or_name || key.name == id_or_name)
        });
        Ok(found.map(|key| key.revoked_at = Some(now)).is_some())
    }

    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError> {
        let mut keys = self.0.lock();
        if let Some(key) = keys.iter_mut().find(|key| key.id == id) {
            key.last_used_at = Some(now);
        }
        Ok(())
    }
}
