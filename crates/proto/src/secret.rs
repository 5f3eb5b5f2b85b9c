//! Secrets in messages. They are erased from memory after use, compared in constant time, and
//! hidden by `Debug`.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq as _;

/// A token or key on its way to its owner. It is erased from memory after use; `Debug` hides it.
#[derive(Clone, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::new)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A secret, which is shown only here.",
        })
    }
}

/// A key that signs messages. It is erased from memory after use; `Debug` hides it.
#[derive(Clone, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Wraps a key.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Returns the key.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(…)")
    }
}

#[cfg(test)]
mod tests {
    use secrecy::zeroize::ZeroizeOnDrop;

    use super::*;

    /// Compiles only for what is erased from memory when it is dropped.
    const fn erased<T: ZeroizeOnDrop>(_: &T) {}

    #[test]
    fn a_secret_is_erased_after_use_never_printed_and_equal_only_to_itself() {
        let (secret, key) = (Secret::new("abc".into()), SecretBytes::new(vec![1, 2]));
        erased(&secret.0);
        erased(&key.0);
        assert_eq!(format!("{secret:?}{key:?}"), "Secret(…)SecretBytes(…)");
        assert_eq!(secret, Secret::new("abc".into()));
        assert_eq!(key, SecretBytes::new(vec![1, 2]));
        for other in ["", "ab", "abd", "abcd"] {
            assert_ne!(secret, Secret::new(other.into()));
        }
        assert_ne!(key, SecretBytes::new(vec![1]));
        let json = serde_json::to_string(&secret).unwrap();
        assert_eq!(json, "\"abc\"");
        assert_eq!(serde_json::from_str::<Secret>(&json).unwrap(), secret);
    }
}
