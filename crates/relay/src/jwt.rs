//! Tokens of the query service's login: JWTs signed with HS256 and one key; no other algorithm is
//! accepted.
//!
//! A token names a user and a generation of that user's tokens. It proves only that it was issued;
//! at each use the store tells whether the user still exists and the generation is still valid.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, KeyInit as _, Mac as _};
use proto::Timestamp;
use queue::UserId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Sha256;

/// Lifetime of an access token.
pub(crate) const ACCESS_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Lifetime of a refresh token.
pub(crate) const REFRESH_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Maximum length of a token, in bytes.
pub(crate) const TOKEN_MAX: usize = 4096;
/// Seconds that an issue time may lie in the future, because clocks of several nodes differ.
pub(crate) const LEEWAY: i64 = 30;
/// `{"alg":"HS256","typ":"JWT"}`: the only accepted header, so that a token cannot choose another
/// algorithm.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Purpose of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Authenticates requests.
    Access,
    /// Obtains new access tokens.
    Refresh,
}

/// Reason why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenError {
    /// It was not issued here.
    Invalid,
    /// It was issued, and later revoked.
    Void,
    /// It has expired.
    Expired,
    /// It is of another kind.
    Kind,
}

/// User and generation that a token stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bearer {
    pub(crate) user: UserId,
    pub(crate) generation: u64,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    token_type: Kind,
    exp: i64,
    iat: i64,
    jti: String,
    user_id: UserId,
    generation: u64,
}

/// Times of a token: `since` (monotonic) becomes `iat`, and `wall` (wall clock) is the base of
/// `exp`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenTime {
    pub(crate) since: Timestamp,
    pub(crate) wall: Timestamp,
}

#[cfg(any(test, feature = "fuzz"))]
impl From<Timestamp> for TokenTime {
    fn from(now: Timestamp) -> Self {
        Self {
            since: now,
            wall: now,
        }
    }
}

/// Signs a token for this user, valid from `since` until its lifetime after `wall` is over. `jti`
/// is random.
pub(crate) fn sign(
    key: &[u8; 32],
    kind: Kind,
    bearer: Bearer,
    TokenTime { since, wall }: TokenTime,
    jti: [u8; 32],
) -> String {
    let life = match kind {
        Kind::Access => ACCESS_LIFE,
        Kind::Refresh => REFRESH_LIFE,
    };
    let claims = Claims {
        token_type: kind,
        exp: seconds(wall + life),
        iat: seconds(since),
        jti: BASE64.encode(&jti[..16]),
        user_id: bearer.user,
        generation: bearer.generation,
    };
    encode(HEADER, key, &claims)
}

/// Encodes and signs claims under a header.
pub(crate) fn encode(header: &str, key: &[u8; 32], claims: &impl Serialize) -> String {
    // Serialising these cannot fail; an empty token would be refused.
    let claims = serde_json::to_vec(claims).unwrap_or_default();
    let signed = format!("{header}.{}", BASE64.encode(claims));
    let signature = mac(key, &signed).finalize().into_bytes();
    format!("{signed}.{}", BASE64.encode(signature))
}

/// Whether a text has the form of such a token; needs no key.
pub(crate) fn looks_like_one(text: &str) -> bool {
    text.split('.').count() == 3
}

/// Verifies a token, and returns its bearer and its expiry.
pub(crate) fn read(
    key: &[u8; 32],
    kind: Kind,
    text: &str,
    now: Timestamp,
) -> Result<(Bearer, Timestamp), TokenError> {
    let claims: Claims = verify(HEADER, key, text).ok_or(TokenError::Invalid)?;
    let now = seconds(now);
    if now >= claims.exp {
        return Err(TokenError::Expired);
    }
    if claims.iat > now + LEEWAY {
        return Err(TokenError::Invalid);
    }
    if claims.token_type != kind {
        return Err(TokenError::Kind);
    }
    let bearer = Bearer {
        user: claims.user_id,
        generation: claims.generation,
    };
    Ok((bearer, Timestamp(claims.exp.saturating_mul(1000))))
}

/// Verifies the signature, and only then decodes the claims.
pub(crate) fn verify<T: DeserializeOwned>(header: &str, key: &[u8; 32], text: &str) -> Option<T> {
    if text.len() > TOKEN_MAX {
        return None;
    }
    let (signed, signature) = text.rsplit_once('.')?;
    let signature = BASE64.decode(signature).ok()?;
    mac(key, signed).verify_slice(&signature).ok()?;
    let (said, claims) = signed.split_once('.')?;
    let claims = BASE64.decode(claims).ok().filter(|_| said == header)?;
    serde_json::from_slice(&claims).ok()
}

fn mac(key: &[u8; 32], signed: &str) -> Hmac<Sha256> {
    // A key shorter than the block equals the same key padded with zeros.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mac = Hmac::<Sha256>::new(&block.into());
    mac.chain_update(signed.as_bytes())
}

pub(crate) fn seconds(moment: Timestamp) -> i64 {
    moment.0.div_euclid(1000)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: [u8; 32] = [9; 32];
    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const JAN: Bearer = Bearer {
        user: 5,
        generation: 2,
    };

    fn read(key: &[u8; 32], kind: Kind, text: &str, now: Timestamp) -> Result<Bearer, TokenError> {
        super::read(key, kind, text, now).map(|(bearer, _)| bearer)
    }

    fn token(kind: Kind) -> String {
        sign(&KEY, kind, JAN, NOW.into(), [3; 32])
    }

    fn forged(header: &Value, claims: &Value, key: &[u8; 32]) -> String {
        let part = |value: &Value| BASE64.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = mac(key, &signed).finalize().into_bytes();
        format!("{signed}.{}", BASE64.encode(signature))
    }

    fn header() -> Value {
        json!({"alg": "HS256", "typ": "JWT"})
    }

    fn claims() -> Value {
        json!({"token_type": "access", "exp": 1_700_000_060, "iat": 1_700_000_000, "jti": "x",
            "user_id": 5, "generation": 2})
    }

    #[test]
    fn a_token_is_read_back_until_its_time_has_passed() {
        let days = |n: u64| Duration::from_secs(n * 86_400);
        for (kind, life) in [(Kind::Access, days(1)), (Kind::Refresh, days(7))] {
            let text = token(kind);
            assert!(looks_like_one(&text));
            let last = NOW + (life - Duration::from_secs(1));
            assert_eq!(read(&KEY, kind, &text, last), Ok(JAN));
            assert_eq!(
                read(&KEY, kind, &text, NOW + life),
                Err(TokenError::Expired)
            );
        }
        let refresh = token(Kind::Refresh);
        assert_eq!(
            read(&KEY, Kind::Access, &refresh, NOW),
            Err(TokenError::Kind)
        );
        let access = token(Kind::Access);
        assert_eq!(
            read(&KEY, Kind::Refresh, &access, NOW),
            Err(TokenError::Kind)
        );
    }

    #[test]
    fn a_token_that_was_touched_anywhere_is_invalid() {
        let text = token(Kind::Access);
        for at in 0..text.len() {
            let mut touched = text.clone().into_bytes();
            touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(touched).unwrap();
            let read = read(&KEY, Kind::Access, &touched, NOW);
            assert_eq!(read, Err(TokenError::Invalid), "byte {at}");
        }
        assert_eq!(
            read(&[8; 32], Kind::Access, &text, NOW),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn no_other_header_is_read_even_if_it_is_signed() {
        let mut good = forged(&header(), &claims(), &KEY);
        assert_eq!(read(&KEY, Kind::Access, &good, NOW), Ok(JAN));
        for other in [
            json!({"alg": "none", "typ": "JWT"}),
            json!({"alg": "None"}),
            json!({"alg": "HS384", "typ": "JWT"}),
            json!({"alg": "HS512", "typ": "JWT"}),
            json!({"alg": "RS256", "typ": "JWT"}),
            json!({"alg": "ES256", "typ": "JWT"}),
            json!({"alg": "EdDSA", "typ": "JWT"}),
            json!({"alg": "hs256", "typ": "JWT"}),
            json!({"alg": "HS256", "typ": "JWE"}),
            json!({"alg": "HS256"}),
            json!({"alg": "HS256", "typ": "JWT", "kid": "../../dev/null"}),
            json!({"alg": "HS256", "typ": "JWT", "crit": ["x"]}),
            json!({"alg": "HS256", "typ": "JWT", "jku": "https://evil.example"}),
            json!("HS256"),
        ] {
            let text = forged(&other, &claims(), &KEY);
            assert_eq!(
                read(&KEY, Kind::Access, &text, NOW),
                Err(TokenError::Invalid),
                "{other}"
            );
        }
        let unsigned = good.rfind('.').unwrap() + 1;
        good.truncate(unsigned);
        assert_eq!(
            read(&KEY, Kind::Access, &good, NOW),
            Err(TokenError::Invalid)
        );
    }

    #[test]
    fn every_claim_must_be_there_and_of_its_kind() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            let text = forged(&header(), &claims, &KEY);
            read(&KEY, Kind::Access, &text, NOW)
        };
        for name in ["token_type", "exp", "iat", "jti", "user_id", "generation"] {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            let text = forged(&header(), &claims, &KEY);
            assert_eq!(
                read(&KEY, Kind::Access, &text, NOW),
                Err(TokenError::Invalid),
                "{name}"
            );
            assert_eq!(with(name, Value::Null), Err(TokenError::Invalid), "{name}");
        }
        for (name, value) in [
            ("exp", json!("never")),
            ("exp", json!(1e30)),
            ("iat", json!(1_700_000_031)),
            ("user_id", json!("5")),
            ("user_id", json!(-5)),
            ("token_type", json!("sliding")),
        ] {
            assert_eq!(
                with(name, value.clone()),
                Err(TokenError::Invalid),
                "{name}: {value}"
            );
        }
        assert_eq!(with("iat", json!(1_700_000_030)), Ok(JAN), "the leeway");
        assert_eq!(with("exp", json!(1_700_000_000)), Err(TokenError::Expired));
        assert_eq!(with("exp", json!(-1)), Err(TokenError::Expired));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let long = format!("{}{}", token(Kind::Access), "A".repeat(TOKEN_MAX));
        for text in [
            "",
            ".",
            "..",
            "a.b.c",
            "é.é.é",
            HEADER,
            &long,
            &format!("{HEADER}.."),
        ] {
            assert_eq!(
                read(&KEY, Kind::Access, text, NOW),
                Err(TokenError::Invalid),
                "{text}"
            );
        }
    }

    #[test]
    fn a_token_is_read_up_to_the_longest_and_no_longer() {
        let with = |length: usize| {
            let mut claims = claims();
            let rest = length - claims.to_string().len();
            claims["jti"] = json!("x".repeat(rest + 1));
            forged(&header(), &claims, &KEY)
        };
        let (longest, longer) = (with(3011), with(3012));
        assert_eq!((longest.len(), longer.len()), (TOKEN_MAX, TOKEN_MAX + 1));
        assert_eq!(read(&KEY, Kind::Access, &longest, NOW), Ok(JAN));
        let read = read(&KEY, Kind::Access, &longer, NOW);
        assert_eq!(read, Err(TokenError::Invalid));
    }
}
