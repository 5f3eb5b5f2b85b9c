//! What the id of a credential stands for. Keys, the tokens of logins and sessions share one space
//! of ids; the ids of keys are random and look like none of the others.

use proto::hex;
use queue::{KeyId, SessionId, UserId};

use crate::jwt::Bearer;

const OF_USER: &str = "user-";
const OF_SESSION: &str = "session-";

/// What an id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// A key.
    Key,
    /// A generation of a user's tokens.
    Token(Bearer),
    /// A session.
    Session(SessionId),
}

impl KeyKind {
    /// Reads an id. What has none of the other forms stands for a key.
    pub(crate) fn of(id: &str) -> Self {
        let kind = session(id).or_else(|| token(id));
        kind.unwrap_or(Self::Key)
    }
}

/// Returns the id that stands for a generation of a user's tokens wherever a key id is needed.
pub(crate) fn key_id_of_token(bearer: Bearer) -> KeyId {
    format!("{OF_USER}{}-{}", bearer.user, bearer.generation)
}

/// Returns the id that stands for a session wherever a key id is needed.
pub(crate) fn key_id_of_session(id: SessionId) -> KeyId {
    format!("{OF_SESSION}{}", hex::encode(&id.0))
}

/// Returns the id that stands for a user, after each login the same, in limits and claims. Nothing
/// can be shown for it, so it has no kind.
pub(crate) fn key_id_of_user(user: UserId) -> KeyId {
    format!("{OF_USER}{user}")
}

fn session(id: &str) -> Option<KeyKind> {
    let id = hex::decode(id.strip_prefix(OF_SESSION)?)?;
    Some(KeyKind::Session(SessionId(id)))
}

fn token(id: &str) -> Option<KeyKind> {
    let (user, generation) = id.strip_prefix(OF_USER)?.split_once('-')?;
    let bearer = Bearer {
        user: user.parse().ok()?,
        generation: generation.parse().ok()?,
    };
    // Numbers may be written in several ways.
    (key_id_of_token(bearer) == id).then_some(KeyKind::Token(bearer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_sessions_are_named_among_keys_and_found_again() {
        let id = SessionId([7; 16]);
        assert_eq!(KeyKind::of(&key_id_of_session(id)), KeyKind::Session(id));
        let bearer = Bearer {
            user: 5,
            generation: 2,
        };
        assert_eq!(key_id_of_token(bearer), "user-5-2");
        assert_eq!(KeyKind::of("user-5-2"), KeyKind::Token(bearer));
        for other in ["session-", "session-07", "user-05-2", "user-x-2", "abc"] {
            assert_eq!(KeyKind::of(other), KeyKind::Key, "{other}");
        }
        assert_eq!(KeyKind::of(&key_id_of_user(5)), KeyKind::Key);
    }
}
