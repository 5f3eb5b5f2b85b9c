//! [`MemoryUsers`]: users in memory.

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::Timestamp;

use crate::{NewUser, QueueError, User, UserChange, UserId, Users};

/// Users in memory, oldest first.
#[derive(Default)]
pub struct MemoryUsers(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    last: UserId,
    users: Vec<User>,
    token_key: Option<[u8; 32]>,
}

impl std::fmt::Debug for MemoryUsers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryUsers")
            .field("users", &self.0.lock().users)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn named(&mut self, name: &str) -> Option<&mut User> {
        self.users.iter_mut().find(|user| user.new.name == name)
    }
}

#[async_trait]
impl Users for MemoryUsers {
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError> {
        let mut inner = self.0.lock();
        if inner.named(&user.name).is_some() {
            return Err(QueueError::Exists(format!("a user named {}", user.name)));
        }
        inner.last += 1;
        let id = inner.last;
        inner.users.push(User {
            id,
            new: user,
            generation: 1,
            last_login: None,
        });
        Ok(id)
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError> {
        Ok(self
            .0
            .lock()
            .users
            .iter()
            .find(|user| user.id == id)
            .cloned())
    }

    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError> {
        Ok(self.0.lock().named(name).cloned())
    }

    async fn list_users(&self) -> Result<Vec<User>, QueueError> {
        Ok(self.0.lock().users.clone())
    }

    async fn remove_user(&self, name: &str) -> Result<bool, QueueError> {
        let mut inner = self.0.lock();
        let had = inner.users.len();
        inner.users.retain(|user| user.new.name != name);
        Ok(inner.users.len() < had)
    }

    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError> {
        let mut inner = self.0.lock();
        let Some(user) = inner.named(name) else {
            return Ok(false);
        };
        user.generation += 1;
        match change {
            UserChange::Password(password) => user.new.password = password,
            UserChange::LogOut => {}
        }
        Ok(true)
    }

    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError> {
        let mut inner = self.0.lock();
        if let Some(user) = inner.users.iter_mut().find(|user| user.id == id) {
            user.last_login = Some(now);
        }
        Ok(())
    }

    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError> {
        let mut inner = self.0.lock();
        inner.token_key = Some(token_key);
        for user in &mut inner.users {
            user.generation += 1;
        }
        Ok(inner.users.len())
    }

    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError> {
        Ok(*self.0.lock().token_key.get_or_insert(fresh))
    }
}
