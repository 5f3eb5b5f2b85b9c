use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{QueueError, Scope};

/// Finds a user; never used twice in one store.
pub type UserId = u64;

/// What a person, or a program that logs in like one, may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Ask and read.
    User,
    /// Answer as well.
    Service,
    /// Everything, in every account.
    Admin,
}

impl Role {
    /// What a user with this role may do.
    #[must_use]
    pub fn scopes(self) -> BTreeSet<Scope> {
        match self {
            Self::User => [Scope::Enqueue, Scope::Read].into(),
            Self::Service => [Scope::Enqueue, Scope::Read, Scope::Work].into(),
            Self::Admin => [Scope::Enqueue, Scope::Read, Scope::Work, Scope::Admin].into(),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// A password as it is kept: a slow salted hash in PHC text. `Debug` hides it all the same.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

/// A user to be stored. Everything in it was validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// What the user logs in with.
    pub name: String,
    /// Whose jobs the user submits and reads.
    pub account: Account,
    /// What the user may do.
    pub role: Role,
    /// What proves the user.
    pub password: PasswordHash,
    /// When the user was made.
    pub created_at: Timestamp,
}

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Chosen by the store.
    pub id: UserId,
    /// What was stored.
    pub new: NewUser,
    /// Tokens of an earlier generation are void.
    pub generation: u64,
    /// The last time the password was shown.
    pub last_login: Option<Timestamp>,
}

/// What may change about a user; each change voids the tokens given out before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChange {
    /// Another password.
    Password(PasswordHash),
    /// Nothing but the tokens.
    LogOut,
}

/// Where users are kept, and the key their tokens are signed with. Other processes may change
/// them at any time.
#[async_trait]
pub trait Users: fmt::Debug + Send + Sync {
    /// Stores a new user.
    ///
    /// # Errors
    /// [`QueueError::Exists`] if a user has the same name.
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError>;

    /// The user with this id; what another process changed counts at once.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError>;

    /// The user with this name.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError>;

    /// All users, oldest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn list_users(&self) -> Result<Vec<User>, QueueError>;

    /// Forgets a user; `false` if nobody has the name.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn remove_user(&self, name: &str) -> Result<bool, QueueError>;

    /// Changes a user; `false` if nobody has the name.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError>;

    /// Notes that the user logged in.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError>;

    /// The key that tokens are signed with: `fresh` if there was none, and the same ever after.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn token_key(&self, fresh: [u8; 32]) -> Result<[u8; 32], QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_the_one_before_may_and_something_more() {
        let [user, service, admin] = [Role::User, Role::Service, Role::Admin].map(Role::scopes);
        assert_eq!(user, [Scope::Enqueue, Scope::Read].into());
        assert_eq!(&service - &user, [Scope::Work].into());
        assert_eq!(&admin - &service, [Scope::Admin].into());
        assert!(user.is_subset(&service) && service.is_subset(&admin));
    }

    #[test]
    fn each_role_is_stored_by_the_name_it_is_shown_by() {
        for role in [Role::User, Role::Service, Role::Admin] {
            let stored = serde_json::to_string(&role).unwrap();
            assert_eq!(stored, format!("\"{}\"", role.as_str()));
        }
    }
}
