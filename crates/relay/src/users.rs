//! Users: names, passwords and logins.
//!
//! Passwords are hashed with argon2id, which is slow and uses much memory on purpose. It runs on
//! blocking threads, only a few hashes at a time.

use std::sync::Arc;

use argon2::{Argon2, PasswordHasher as _, PasswordVerifier as _};
use proto::{Account, ErrorCode, Timestamp};
use queue::{NewUser, PasswordHash, Role, User};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;

use crate::{Relay, error::ApiError, peer::Peer};

/// Longest user name, in bytes.
const NAME_MAX: usize = 64;
/// Minimum length of a password, in characters.
pub(crate) const PASSWORD_MIN: usize = 8;
/// Maximum length of a password, in bytes.
pub(crate) const PASSWORD_MAX: usize = 1024;
/// Number of passwords hashed at once, with 19 MiB and one thread each.
const AT_ONCE: usize = 2;
/// Number of logins that may wait for a hash; further ones are refused.
const WAITING_MAX: usize = 32;
/// Hash that is checked for unknown users, so that a login takes equally long for them. Its
/// parameters are those of [`Argon2::default`]; no known password has it.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5LW5vYm9keS0x$\
                      c29tZSBieXRlcyB0aGF0IG5vYm9keSdzIGhhc2ggaXM";

/// Reason why a user cannot be created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// The name is too long, or has characters that are not allowed.
    #[error("a user's name must have 1 to 64 ASCII letters, digits and `@.+_-`")]
    Name,
    /// The password is too short.
    #[error("a password must have at least 8 characters; choose a longer one")]
    Short,
    /// The password is too long.
    #[error("a password must have at most 1024 bytes; choose a shorter one")]
    Long,
    /// Hashing failed.
    #[error("the password could not be hashed; check that the system has enough free memory")]
    Hash,
}

/// Creates a user for the store. Hashing the password is slow on purpose.
///
/// # Errors
/// [`BadUser`], written for the user who chose name and password.
pub fn user(
    name: String,
    account: Account,
    role: Role,
    password: &SecretString,
    salt: [u8; 32],
    now: Timestamp,
) -> Result<NewUser, BadUser> {
    if !is_name(&name) {
        return Err(BadUser::Name);
    }
    Ok(NewUser {
        name,
        account,
        role,
        password: hash(password, salt)?,
        created_at: now,
    })
}

/// Hashes a password for storage. Slow on purpose.
///
/// # Errors
/// [`BadUser`], written for the user who chose it.
pub fn hash(password: &SecretString, salt: [u8; 32]) -> Result<PasswordHash, BadUser> {
    let text = password.expose_secret();
    if text.chars().count() < PASSWORD_MIN {
        return Err(BadUser::Short);
    }
    if text.len() > PASSWORD_MAX {
        return Err(BadUser::Long);
    }
    let hash = Argon2::default().hash_password_with_salt(text.as_bytes(), &salt);
    Ok(PasswordHash(hash.map_err(|_| BadUser::Hash)?.to_string()))
}

fn is_name(name: &str) -> bool {
    let known = |c: u8| c.is_ascii_alphanumeric() || b"@.+_-".contains(&c);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(known)
}

fn proves(password: &SecretString, hash: &str) -> bool {
    let password = password.expose_secret().as_bytes();
    Argon2::default().verify_password(password, hash).is_ok()
}

/// Limits on concurrent logins.
#[derive(Debug, Clone)]
pub(crate) struct Logins {
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            hashing: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(AT_ONCE + WAITING_MAX)),
        }
    }
}

impl Logins {
    /// Verifies a user's password; takes equally long for an unknown user.
    async fn prove(&self, user: Option<&User>, password: SecretString) -> Result<bool, ApiError> {
        let known = user.map(|user| user.new.password.0.clone());
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(ApiError::new(
                ErrorCode::RateLimited,
                "too many logins at once; try again in a moment",
            ));
        };
        let Ok(turn) = self.hashing.clone().acquire_owned().await else {
            return Err(ApiError::internal());
        };
        // A client that disconnects does not free the permit, because hashing continues.
        let proven = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let proven = proves(&password, known.as_deref().unwrap_or(NOBODY));
            proven && known.is_some()
        });
        proven.await.map_err(|_| ApiError::internal())
    }
}

impl Relay {
    /// Returns the user with this name and password.
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: SecretString,
        peer: Peer,
    ) -> Result<Option<User>, ApiError> {
        // No user can have these, so nothing is hashed; the short time reveals nothing about users.
        if !is_name(name) || password.expose_secret().len() > PASSWORD_MAX {
            return Ok(None);
        }
        let attempt = self.rate_limits.try_login(peer, name, self.now())?;
        let proven = async {
            let user = self.store.find_user_named(name).await?;
            let is_his = self.logins.prove(user.as_ref(), password).await?;
            Ok::<_, ApiError>(user.filter(|_| is_his))
        };
        let user = match proven.await {
            Ok(Some(user)) => user,
            Ok(None) => {
                tracing::warn!("login refused: wrong name or password");
                return Ok(None);
            }
            Err(error) => {
                attempt.not_checked();
                return Err(error);
            }
        };
        attempt.succeeded();
        self.store.logged_in(self.now(), user.id).await?;
        tracing::info!(user.id, "user logged in");
        Ok(Some(user))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn made(name: &str, password: &str) -> Result<NewUser, BadUser> {
        let account: Account = "default".parse().map_err(|_| BadUser::Name)?;
        let salt = [7; 32];
        user(
            name.into(),
            account,
            Role::User,
            &secret(password),
            salt,
            Timestamp(1),
        )
    }

    #[test]
    fn a_password_proves_its_own_hash_and_no_other() {
        let hash = made("jan", "correct horse").unwrap().password.0;
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert!(!hash.contains("horse"));
        assert!(proves(&secret("correct horse"), &hash));
        assert!(!proves(&secret("correct Horse"), &hash));
        assert!(!proves(&secret("correct horse"), NOBODY));
        assert!(!proves(&secret("correct horse"), "not a hash"));
    }

    #[test]
    fn the_hash_of_nobody_is_as_dear_as_a_real_one() {
        let real = made("jan", "correct horse").unwrap().password.0;
        let cost = |hash: &str| {
            hash.split('$')
                .take(4)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(cost(NOBODY), cost(&real));
        let parsed = argon2::PasswordHash::new(NOBODY).unwrap();
        assert_eq!(parsed.hash.unwrap().len(), 32, "compared in full");
    }

    #[test]
    fn names_and_passwords_are_bounded() {
        assert_eq!(made("", "12345678").unwrap_err(), BadUser::Name);
        assert_eq!(made("jan k", "12345678").unwrap_err(), BadUser::Name);
        assert_eq!(
            made(&"j".repeat(65), "12345678").unwrap_err(),
            BadUser::Name
        );
        assert_eq!(made("jan", "1234567").unwrap_err(), BadUser::Short);
        assert_eq!(
            made("jan", "żółć").unwrap_err(),
            BadUser::Short,
            "four letters"
        );
        assert_eq!(made("jan", &"x".repeat(1025)).unwrap_err(), BadUser::Long);
        assert!(made(&"j".repeat(64), &"x".repeat(1024)).is_ok());
        assert!(made("jan.kowalski+1@example-2_3", "żółćżółć").is_ok());
    }

    #[test]
    fn no_password_is_printed() {
        let user = made("jan", "correct horse").unwrap();
        let printed = format!("{user:?} {:?}", secret("correct horse"));
        assert!(
            !printed.contains("horse") && !printed.contains("argon2id"),
            "{printed}"
        );
    }

    #[tokio::test]
    async fn only_so_many_logins_wait() {
        let logins = Logins::default();
        let turns = logins.hashing.clone().acquire_many_owned(2).await.unwrap();
        let mut waiting: Vec<_> = (0..AT_ONCE + WAITING_MAX)
            .map(|_| {
                let logins = logins.clone();
                tokio::spawn(async move { logins.prove(None, secret("12345678")).await })
            })
            .collect();
        while logins.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let refused = logins.prove(None, secret("12345678")).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::RateLimited);
        let first = waiting.remove(0);
        for one in waiting {
            one.abort();
        }
        drop(turns);
        let first = tokio::time::timeout(Duration::from_secs(20), first);
        assert_eq!(first.await.unwrap().unwrap(), Ok(false));
    }
}
