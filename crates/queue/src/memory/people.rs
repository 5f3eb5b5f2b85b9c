//! Keys and users of the store in memory.

use async_trait::async_trait;
use proto::Timestamp;

use super::MemoryQueue;
use crate::{KeyRecord, Keys, NewUser, QueueError, User, UserChange, UserId, Users};

#[async_trait]
impl Keys for MemoryQueue {
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError> {
        self.keys.create_key(key).await
    }

    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError> {
        self.keys.find_key(id).await
    }

    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError> {
        self.keys.list_keys().await
    }

    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError> {
        self.keys.revoke_key(now, id_or_name).await
    }

    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError> {
        self.keys.note_key_used(now, id).await
    }
}

#[async_trait]
impl Users for MemoryQueue {
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError> {
        self.users.create_user(user).await
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError> {
        self.users.find_user(id).await
    }

    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError> {
        self.users.find_user_named(name).await
    }

    async fn list_users(&self) -> Result<Vec<User>, QueueError> {
        self.users.list_users().await
    }

    async fn remove_user(&self, name: &str) -> Result<bool, QueueError> {
        self.users.remove_user(name).await
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError> {
        self.users.change_user(name, change).await
    }

    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError> {
        self.users.logged_in(now, id).await
    }

    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError> {
        self.open()?.opened.clear();
        self.users.log_out_all(token_key).await
    }

    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError> {
        self.users.token_key(fresh).await
    }
}
