//! Identifiers and names with a fixed alphabet: jobs, leases, accounts, workers and models.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize, de};

use crate::Timestamp;

/// Reasons why a text is not a valid identifier or name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// A job id is 32 lower-case hexadecimal digits.
    #[error("a job id must have 32 lower-case hexadecimal digits")]
    Job,
    /// A name has 1 to 64 characters: ASCII letters, digits and `._-`.
    #[error("a name must have 1 to 64 ASCII letters, digits and `._-`")]
    Name,
    /// A model name is `^[A-Za-z0-9._:/-]{1,128}$`.
    #[error("a model name must have 1 to 128 ASCII letters, digits and `._:/-`")]
    Model,
}

/// Identifier of a job for its whole life, written as 32 hexadecimal digits. New ones are made by
/// [`JobId::new`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub [u8; 16]);

impl JobId {
    /// A new id: the time in milliseconds in 48 bits, then 80 random bits. Ids of about the same
    /// time are neighbours in the index of a store, so that jobs that end together share its pages;
    /// of entirely random ids, each would rewrite a page of its own.
    #[must_use]
    pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
        let [_, _, time @ ..] = now.0.to_be_bytes();
        let mut id = [0; 16];
        let (front, back) = id.split_at_mut(time.len());
        front.copy_from_slice(&time);
        back.copy_from_slice(&random);
        Self(id)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::hex::write(&self.0, f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for JobId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        crate::hex::decode(text).map(Self).ok_or(InvalidId::Job)
    }
}

impl Serialize for JobId {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// The credential of one lease. `attempt` is the fencing number: it rises with each lease of the
/// job, and a call with an older one gets the error `stale_lease`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseToken {
    /// The leased job.
    pub job: JobId,
    /// 1 for the first lease of the job.
    pub attempt: u32,
}

// Reference-counted, because the queue stores each name in many places.
macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $max:expr, $extra:pat, $invalid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Parses a name of the documented alphabet and length.
            ///
            /// # Errors
            /// [`InvalidId`] for anything else.
            pub fn new(name: impl AsRef<str>) -> Result<Self, InvalidId> {
                let name = name.as_ref();
                let fits = (1..=$max).contains(&name.len());
                let clean = name.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | $extra));
                if fits && clean { Ok(Self(name.into())) } else { Err($invalid) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $type {
            type Err = InvalidId;

            fn from_str(name: &str) -> Result<Self, InvalidId> {
                Self::new(name)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(from)?).map_err(de::Error::custom)
            }
        }
    };
}

/// Maximum length of a model name, in bytes.
pub const MODEL_NAME_MAX: usize = 128;

name! {
    /// Account that owns keys and jobs. Jobs of one account are invisible to every other.
    Account, 64, b'.' | b'_' | b'-', InvalidId::Name
}
name! {
    /// Name of a worker, chosen by its owner. Uniqueness within an account is not enforced.
    WorkerId, 64, b'.' | b'_' | b'-', InvalidId::Name
}
name! {
    /// Name of a model as Ollama writes it, for example `qwen2.5:7b`.
    ModelName, MODEL_NAME_MAX, b'.' | b'_' | b'-' | b':' | b'/', InvalidId::Model
}

impl ModelName {
    /// Whether both name the same model, see [`ModelName::canonical`].
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.bare().eq_ignore_ascii_case(other.bare())
    }

    /// Returns one spelling for all names of a model that Ollama treats as equal: in lower case,
    /// and without Ollama's own registry, `:latest`, and `:local`, which keeps a request off its
    /// cloud.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.bare().to_ascii_lowercase()
    }

    /// Returns the canonical name in its original case.
    fn bare(&self) -> &str {
        let mut name = &*self.0;
        for suffix in [":local", ":latest"] {
            let split = name.len().checked_sub(suffix.len());
            let split = split.and_then(|at| name.split_at_checked(at));
            if let Some((bare, _)) = split.filter(|(_, end)| end.eq_ignore_ascii_case(suffix)) {
                name = bare;
            }
        }
        for prefix in ["registry.ollama.ai/", "library/"] {
            let split = name.split_at_checked(prefix.len());
            if let Some((_, bare)) = split.filter(|(begin, _)| begin.eq_ignore_ascii_case(prefix)) {
                name = bare;
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_id_is_read_back_and_nothing_else_is_one() {
        let id = JobId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in [
            "",
            "ab",
            &"AB".repeat(16),
            &"ab".repeat(17),
            &"é".repeat(16),
        ] {
            assert_eq!(wrong.parse::<JobId>(), Err(InvalidId::Job), "{wrong}");
        }
    }

    #[test]
    fn a_later_job_has_a_greater_id_whatever_was_drawn() {
        let id = |now, random| JobId::new(Timestamp(now), [random; 10]);
        assert!(id(1_763_900_000_000, 0xff) < id(1_763_900_000_001, 0));
        assert_ne!(id(5, 1), id(5, 2));
        let written = id(1_763_900_000_000, 0xab).to_string();
        assert_eq!(written, "019ab0a20700abababababababababab");
    }

    #[test]
    fn names_keep_to_their_alphabet() {
        assert!(Account::new("jan.kowalski-2").is_ok());
        for wrong in ["", "a b", "a\nb", "ą", "a/b", &"a".repeat(65)] {
            assert!(Account::new(wrong).is_err(), "{wrong}");
        }
        assert!(ModelName::new("hf.co/x/y:Q4_K_M").is_ok());
        assert!(ModelName::new("a b").is_err());
    }

    #[test]
    fn a_bare_model_name_is_its_latest_tag() {
        let name = |text| ModelName::new(text).unwrap();
        assert!(name("llama3").is_same(&name("Llama3:latest")));
        assert!(!name("llama3:8b").is_same(&name("llama3")));
    }

    #[test]
    fn every_spelling_that_ollama_takes_names_the_same_model() {
        let name = |text| ModelName::new(text).unwrap();
        for same in [
            "smollm2:135m",
            "SMOLLM2:135M",
            "smollm2:135m:local",
            "library/smollm2:135m",
            "registry.ollama.ai/library/smollm2:135m",
        ] {
            assert!(name(same).is_same(&name("smollm2:135m")), "{same}");
        }
        for other in ["user/smollm2:135m", "smollm2", "hf.co/library/smollm2:135m"] {
            assert!(!name(other).is_same(&name("smollm2:135m")), "{other}");
        }
    }
}
