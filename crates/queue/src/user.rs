//! Users with passwords, and the trait of a store that keeps them.

use std::{collections::BTreeSet, fmt};

use async_trait::async_trait;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{QueueError, Scope};

/// Identifier of a user; never reused within one store.
pub type UserId = u64;

/// The role of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// May submit and read.
    User,
    /// May also lease and answer jobs.
    Service,
    /// May do everything, in every account.
    Admin,
}

impl Role {
    /// The scopes of this role.
    #[must_use]
    pub fn scopes(self) -> BTreeSet<Scope> {
        match self {
            Self::User => [Scope::Enqueue, Scope::Read].into(),
            Self::Service => [Scope::Enqueue, Scope::Read, Scope::Work].into(),
            Self::Admin => [Scope::Enqueue, Scope::Read, Scope::Work, Scope::Admin].into(),
        }
    }

    /// The name of the role in the API and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Admin => "admin",
        }
    }
}

/// A stored password: a slow salted hash in PHC format. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(hidden)")
    }
}

/// A user to be stored. All fields are validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Login name.
    pub name: String,
    /// Account for which the user submits and reads jobs.
    pub account: Account,
    /// Role.
    pub role: Role,
    /// Hash of the password.
    pub password: PasswordHash,
    /// Time of creation.
    pub created_at: Timestamp,
}

/// A user as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Identifier, chosen by the store.
    pub id: UserId,
    /// The user as created.
    pub new: NewUser,
    /// Token generation; tokens of earlier generations are invalid.
    pub generation: u64,
    /// Time of the last login.
    pub last_login: Option<Timestamp>,
}

/// A change of a user; each one invalidates all earlier tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChange {
    /// Sets another password.
    Password(PasswordHash),
    /// Invalidates the tokens and changes nothing else.
    LogOut,
}

/// Storage of users, and of the key that signs their tokens. Other processes may change them at any
/// time.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Users: fmt::Debug + Send + Sync {
    /// Stores a new user and returns its identifier.
    ///
    /// # Errors
    /// [`QueueError::Exists`] if the name is taken.
    async fn create_user(&self, user: NewUser) -> Result<UserId, QueueError>;

    /// Returns the user with this identifier. Changes by other processes are visible at once.
    async fn find_user(&self, id: UserId) -> Result<Option<User>, QueueError>;

    /// Returns the user with this name.
    async fn find_user_named(&self, name: &str) -> Result<Option<User>, QueueError>;

    /// Returns all users, oldest first.
    async fn list_users(&self) -> Result<Vec<User>, QueueError>;

    /// Removes a user. Returns `false` if no user has this name.
    async fn remove_user(&self, name: &str) -> Result<bool, QueueError>;

    /// Changes a user. Returns `false` if no user has this name.
    async fn change_user(&self, name: &str, change: UserChange) -> Result<bool, QueueError>;

    /// Records the time of a login.
    async fn logged_in(&self, now: Timestamp, id: UserId) -> Result<(), QueueError>;

    /// Invalidates all tokens of all users at once, including those that a copy of the store could
    /// sign: replaces the key that signs tokens, begins a new generation of every user, and ends
    /// all sessions. Returns the number of users.
    async fn log_out_all(&self, token_key: [u8; 32]) -> Result<usize, QueueError>;

    /// Returns the key that signs tokens. Stores `fresh` as that key if there is none yet;
    /// afterwards only [`Users::log_out_all`] changes it.
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
