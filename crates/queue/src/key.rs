//! API keys: their scopes and limits, and the trait of a store that keeps them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Ceiling, QueueError};

/// The public half of an API key, by which the key is found. Random, lower-case, not a secret.
pub type KeyId = String;

/// A permission of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Submit and cancel jobs.
    Enqueue,
    /// Read jobs, their logs and the list of models.
    Read,
    /// Lease and answer jobs.
    Work,
    /// Administer the relay.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Enqueue, Self::Read, Self::Work, Self::Admin];

    /// The name of the scope in the API and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Read => "read",
            Self::Work => "work",
            Self::Admin => "admin",
        }
    }
}

/// Accounts whose jobs a `work` key may lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// These accounts.
    Accounts(BTreeSet<Account>),
    /// All accounts.
    All,
}

impl Serve {
    /// Whether jobs of this account may be leased.
    #[must_use]
    pub fn includes(&self, account: &Account) -> bool {
        match self {
            Self::All => true,
            Self::Accounts(accounts) => accounts.contains(account),
        }
    }
}

/// An API key as it is stored: with the SHA-256 digest of its secret, not the secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Identifier.
    pub id: KeyId,
    /// Name given by its owner; shown to the worker's owner as `who`.
    pub name: String,
    /// Account for which the key submits and reads jobs.
    pub account: Account,
    /// Permissions of the key.
    pub scopes: BTreeSet<Scope>,
    /// Accounts whose jobs the key may lease.
    pub serve: Serve,
    /// Models and priority that the key permits.
    pub ceiling: Ceiling,
    /// SHA-256 digest of the secret half.
    pub secret_sha256: [u8; 32],
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of revocation, if revoked.
    pub revoked_at: Option<Timestamp>,
    /// Time of expiry, if any.
    pub expires_at: Option<Timestamp>,
    /// Approximate time of the last use; written rarely.
    pub last_used_at: Option<Timestamp>,
}

impl KeyRecord {
    /// Whether the key has expired.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether the key is valid: neither revoked nor expired.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }

    /// Returns what `new` must not share with this key, if it does: an id is never reused, a name
    /// only after its key was revoked.
    #[must_use]
    pub fn taken(&self, new: &Self) -> Option<String> {
        if self.id == new.id {
            Some(format!("key {}", new.id))
        } else if self.revoked_at.is_none() && self.name == new.name {
            Some(format!("a key named {}", new.name))
        } else {
            None
        }
    }
}

/// Storage of API keys. Other processes may add and revoke keys at any time.
///
/// Every method fails with [`QueueError::Store`] if the store cannot be read or written, and with
/// [`QueueError::Unconfirmed`] if it is not known whether it was written.
#[async_trait]
pub trait Keys: std::fmt::Debug + Send + Sync {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`QueueError::Exists`] if any key has this id, or an unrevoked key has this name.
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError>;

    /// Returns the key with this id, even if revoked. A revocation by another process is visible
    /// within 5 s.
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError>;

    /// Returns all keys, oldest first.
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError>;

    /// Revokes the key with this id or name. Returns `false` if no unrevoked key has it.
    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError>;

    /// Records the time at which a key was used; does nothing if the key does not exist.
    async fn note_key_used(&self, now: Timestamp, id: &str) -> Result<(), QueueError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::sample::{T0, account, at};

    fn key(revoked_at: Option<Timestamp>, expires_at: Option<Timestamp>) -> KeyRecord {
        KeyRecord {
            id: "0011".into(),
            name: "laptop".into(),
            account: account("a"),
            scopes: BTreeSet::from([Scope::Read]),
            serve: Serve::All,
            ceiling: Ceiling::default(),
            secret_sha256: [7; 32],
            created_at: T0,
            revoked_at,
            expires_at,
            last_used_at: None,
        }
    }

    #[test]
    fn a_key_is_in_force_until_it_is_revoked_or_its_moment_has_come() {
        assert!(key(None, None).is_in_force(at(9)));
        let ends = key(None, Some(at(9)));
        assert!(ends.is_in_force(at(8)) && !ends.has_expired(at(8)));
        assert!(!ends.is_in_force(at(9)) && ends.has_expired(at(9)));
        assert!(!key(Some(at(1)), None).is_in_force(at(9)));
        assert!(!key(Some(at(1)), Some(at(9))).is_in_force(at(2)));
    }

    #[test]
    fn a_key_serves_the_accounts_it_names_or_all() {
        let some = Serve::Accounts([account("a"), account("b")].into());
        assert!(some.includes(&account("b")) && !some.includes(&account("c")));
        assert!(Serve::All.includes(&account("c")));
    }

    #[test]
    fn each_scope_is_stored_by_the_name_it_is_shown_by() {
        for scope in Scope::ALL {
            let stored = serde_json::to_string(&scope).unwrap();
            assert_eq!(stored, format!("\"{}\"", scope.as_str()));
        }
    }
}
