use std::collections::BTreeSet;

use async_trait::async_trait;
use proto::{Account, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Ceiling, QueueError};

/// The public half of an API key: what it is found by. Random, lower-case, never secret.
pub type KeyId = String;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Submit and cancel jobs.
    Enqueue,
    /// Read jobs, their logs and the models.
    Read,
    /// Lease and answer jobs.
    Work,
    /// Everything else.
    Admin,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Enqueue, Self::Read, Self::Work, Self::Admin];

    /// The word for it.
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

/// Whose jobs a `work` key may lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serve {
    /// Those of these accounts.
    Accounts(BTreeSet<Account>),
    /// Everybody's.
    All,
}

impl Serve {
    /// Whether jobs of this account are served.
    #[must_use]
    pub fn includes(&self, account: &Account) -> bool {
        match self {
            Self::All => true,
            Self::Accounts(accounts) => accounts.contains(account),
        }
    }
}

/// An API key as it is stored. The secret is not in it, only its SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Found by this.
    pub id: KeyId,
    /// What its owner calls it; shown to the worker's owner as "who".
    pub name: String,
    /// Whose jobs it submits and reads.
    pub account: Account,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// Whose jobs it may lease.
    pub serve: Serve,
    /// How far it reaches.
    pub ceiling: Ceiling,
    /// SHA-256 of the secret half.
    pub secret_sha256: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Timestamp>,
    /// When it ends by itself, if it does.
    pub expires_at: Option<Timestamp>,
    /// About when it was used last; written rarely.
    pub last_used_at: Option<Timestamp>,
}

impl KeyRecord {
    /// Whether its time has passed.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether it opens doors.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && !self.has_expired(now)
    }

    /// What of `new` is taken by this key: ids are never used twice, names of revoked keys may be.
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

/// Where API keys are kept. Other processes may add and revoke keys at any time.
#[async_trait]
pub trait Keys: std::fmt::Debug + Send + Sync {
    /// Stores a new key.
    ///
    /// # Errors
    /// [`QueueError::Exists`] if any key has the same id or an unrevoked one the same name.
    async fn create_key(&self, key: KeyRecord) -> Result<(), QueueError>;

    /// The key with this id, revoked ones too; fresh enough that a revocation counts within 5 s.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn find_key(&self, id: &str) -> Result<Option<KeyRecord>, QueueError>;

    /// All keys, oldest first.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn list_keys(&self) -> Result<Vec<KeyRecord>, QueueError>;

    /// Revokes by id or name; `false` if no unrevoked key has it.
    ///
    /// # Errors
    /// [`QueueError::Store`].
    async fn revoke_key(&self, now: Timestamp, id_or_name: &str) -> Result<bool, QueueError>;

    /// Notes that a key was used; of a key that is not there, nothing.
    ///
    /// # Errors
    /// [`QueueError::Store`].
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
