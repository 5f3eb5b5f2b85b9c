//! API keys as text: `hearth_<id>_<secret>_<checksum>`.
//!
//! The id finds the record, and the secret proves it. The checksum tells a mistyped key from a
//! wrong one without a lookup. Only the SHA-256 of the secret is stored: 32 random bytes need no
//! slow hash.

use std::{collections::BTreeSet, fmt, time::Duration};

use proto::{Account, InvalidId, Timestamp, admin::KeyView, hex};
use queue::{Ceiling, KeyRecord, Scope, Serve};
use secrecy::{ExposeSecret as _, SecretString, zeroize::Zeroizing};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Prefix of every key.
pub const PREFIX: &str = "hearth";

/// Text of a key, shown to its owner once. `Debug` hides it.
#[derive(Clone)]
pub struct KeyText(SecretString);

impl KeyText {
    /// Returns the text. Never log it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyText(hidden)")
    }
}

/// Properties of a new key.
#[derive(Debug, Clone)]
pub struct KeyFor {
    /// Name chosen by its owner.
    pub name: String,
    /// Account whose jobs it submits and reads.
    pub account: Account,
    /// Operations that it permits.
    pub scopes: BTreeSet<Scope>,
    /// Accounts whose jobs it may lease.
    pub serve: Serve,
    /// Limits on models and priorities.
    pub ceiling: Ceiling,
    /// Time when it expires, if it does.
    pub expires_at: Option<Timestamp>,
}

/// Longest lifetime of a key that expires.
pub const LASTING_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Checks a key's name and lifetime.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn check(name: &str, lasting: Option<Duration>) -> Result<(), &'static str> {
    if !(1..=64).contains(&name.chars().count()) || name.chars().any(char::is_control) {
        return Err("a key's name must have 1 to 64 printable characters");
    }
    if lasting.is_some_and(|lasting| lasting.as_secs() == 0 || lasting > LASTING_MAX) {
        return Err("a key's lifetime must be between 1 second and 100 years");
    }
    Ok(())
}

/// Returns the accounts whose jobs a key may lease: its own and `others`, or all if `others`
/// contains `all`.
///
/// # Errors
/// One of them is not a valid account name.
pub fn served(own: &Account, others: &[String]) -> Result<Serve, InvalidId> {
    if others.iter().any(|name| name == "all") {
        return Ok(Serve::All);
    }
    let mut accounts = BTreeSet::from([own.clone()]);
    for other in others {
        accounts.insert(other.parse()?);
    }
    Ok(Serve::Accounts(accounts))
}

/// Creates a key: the text for its owner, and the record for the store. `id` and `secret` are
/// random bytes.
#[must_use]
pub fn mint(for_: KeyFor, id: [u8; 6], secret: [u8; 32], now: Timestamp) -> (KeyText, KeyRecord) {
    let id = hex::encode(&id);
    let body = Zeroizing::new(format!(
        "{PREFIX}_{id}_{}",
        *Zeroizing::new(hex::encode(&secret))
    ));
    let text = KeyText(format!("{}_{}", *body, checksum(&body)).into());
    let record = KeyRecord {
        id,
        name: for_.name,
        account: for_.account,
        scopes: for_.scopes,
        serve: for_.serve,
        secret_sha256: Sha256::digest(secret).into(),
        created_at: now,
        revoked_at: None,
        ceiling: for_.ceiling,
        expires_at: for_.expires_at,
        last_used_at: None,
    };
    (text, record)
}

/// Returns the public view of a key, without its secret.
#[must_use]
pub fn view(key: KeyRecord) -> KeyView {
    let scopes = key.scopes.iter().map(|scope| scope.as_str().to_owned());
    let serve = match &key.serve {
        Serve::All => vec!["all".to_owned()],
        Serve::Accounts(accounts) => accounts.iter().map(ToString::to_string).collect(),
    };
    KeyView {
        scopes: scopes.collect(),
        serve,
        models: key.ceiling.models.iter().map(ToString::to_string).collect(),
        max_priority: key.ceiling.priority,
        expires_at: key.expires_at,
        last_used_at: key.last_used_at,
        id: key.id,
        name: key.name,
        account: key.account,
        created_at: key.created_at,
        revoked_at: key.revoked_at,
        key: None,
    }
}

/// A key from a request: well formed, not yet verified.
#[derive(Clone)]
pub struct ShownKey {
    /// Id of the record.
    pub id: String,
    secret: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for ShownKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShownKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl ShownKey {
    /// Whether this is the key of the record, and not revoked. Takes the same time for every wrong
    /// secret.
    #[must_use]
    pub fn proves(&self, record: &KeyRecord) -> bool {
        self.is_of(record) && record.revoked_at.is_none()
    }

    /// Whether this is the key of the record, even if it was revoked.
    pub(crate) fn is_of(&self, record: &KeyRecord) -> bool {
        let shown: [u8; 32] = Sha256::digest(*self.secret).into();
        bool::from(shown.ct_eq(&record.secret_sha256))
    }
}

/// Parses a key's text; `None` if it is malformed or mistyped.
#[must_use]
pub fn parse(text: &str) -> Option<ShownKey> {
    let (body, sum) = text.rsplit_once('_')?;
    let rest = body.strip_prefix(PREFIX)?.strip_prefix('_')?;
    let (id, secret) = rest.split_once('_')?;
    let id = hex::decode::<6>(id).map(|id| hex::encode(&id))?;
    let secret = Zeroizing::new(hex::decode(secret)?);
    (checksum(body) == sum).then_some(ShownKey { id, secret })
}

fn checksum(body: &str) -> String {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(body).into();
    hex::encode(&[a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minted() -> (KeyText, KeyRecord) {
        let for_ = KeyFor {
            name: "laptop".into(),
            account: Account::new("default").unwrap(),
            scopes: BTreeSet::from([Scope::Enqueue]),
            serve: Serve::All,
            ceiling: Ceiling::default(),
            expires_at: None,
        };
        mint(for_, [7; 6], [0xab; 32], Timestamp(5))
    }

    #[test]
    fn a_key_proves_its_own_record_and_no_other() {
        let (text, record) = minted();
        let shown = parse(text.reveal()).unwrap();
        assert_eq!(shown.id, record.id);
        assert!(shown.proves(&record));
        let other = KeyRecord {
            secret_sha256: [0; 32],
            ..record.clone()
        };
        assert!(!shown.proves(&other));
        let revoked = KeyRecord {
            revoked_at: Some(Timestamp(9)),
            ..record
        };
        assert!(!shown.proves(&revoked));
    }

    #[test]
    fn a_mistyped_key_is_not_a_key() {
        let (text, _) = minted();
        let text = text.reveal();
        for at in 0..text.len() {
            let mut wrong = text.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(
                parse(&String::from_utf8(wrong).unwrap()).is_none(),
                "byte {at}"
            );
            assert!(parse(&text[..at]).is_none(), "cut at {at}");
        }
        for wrong in [
            "",
            "hearth",
            "hearth___",
            "hearth_é_é_é",
            &text.to_uppercase(),
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn no_secret_is_printed_or_stored() {
        let (text, record) = minted();
        let shown = parse(text.reveal()).unwrap();
        let printed = format!("{text:?} {shown:?} {record:?}");
        assert!(!printed.contains(&"ab".repeat(8)), "{printed}");
        assert!(!printed.contains("171, 171"), "{printed}");
    }

    #[test]
    fn a_key_has_a_name_and_lasts_from_a_second_to_a_hundred_years() {
        let lasting = |seconds: u64| Some(Duration::from_secs(seconds));
        let century = 3_162_240_000;
        let good = ["a".to_owned(), "é".repeat(64)];
        let bad = [String::new(), "a".repeat(65), "a\nb".to_owned()];
        assert!(good.iter().all(|name| check(name, None).is_ok()));
        assert!(bad.iter().all(|name| check(name, None).is_err()));
        for (seconds, is_good) in [(0, false), (1, true), (century, true), (century + 1, false)] {
            assert_eq!(check("a", lasting(seconds)).is_ok(), is_good, "{seconds}");
        }
        let nearly = Some(Duration::from_millis(999));
        assert!(check("a", nearly).is_err());
    }

    #[test]
    fn a_key_serves_its_own_account_and_those_named_or_everybody() {
        let account = |name: &str| Account::new(name).unwrap();
        let serves = |others: &[&str]| {
            let others: Vec<_> = others.iter().map(|name| (*name).to_owned()).collect();
            served(&account("own"), &others)
        };
        let these = |names: &[&str]| Serve::Accounts(names.iter().map(|n| account(n)).collect());
        assert_eq!(serves(&[]).unwrap(), these(&["own"]));
        assert_eq!(
            serves(&["one", "two"]).unwrap(),
            these(&["own", "one", "two"])
        );
        assert_eq!(serves(&["one", "all"]).unwrap(), Serve::All);
        assert!(serves(&[""]).is_err());
    }
}
