//! User sessions: a short-lived access token, and a refresh token that renews both and is valid
//! once.
//!
//! Both are JWTs signed with HS256 and the relay's one key; no other algorithm is accepted.
//! Audience and type differ between them and from those of the query service's tokens, so that no
//! token is accepted as another. The session is in the store: once it has ended, or its user was
//! changed, its tokens are invalid. A refresh token that is used twice was probably stolen, and
//! ends the session.

use std::time::Duration;

use proto::{Secret, Timestamp, hex};
use queue::{QueueError, Renewal, Renewed, Session, SessionId, User, UserId};
use serde::{Deserialize, Serialize};

use crate::{
    Relay,
    auth::{Denied, key_id_of_session},
    error::ApiError,
    jwt::{TokenError, TokenTime, encode, seconds, verify},
};

/// Lifetime of an access token.
pub(crate) const ACCESS_LIFE: Duration = Duration::from_secs(15 * 60);
/// Lifetime of a session that is not renewed.
pub(crate) const RENEW_LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Seconds by which the clocks of several nodes may differ.
pub(crate) const LEEWAY: i64 = 30;
const ISSUER: &str = "hearth-relay";

/// Purpose of a session's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Authenticates requests.
    Access,
    /// Renews the session.
    Renew,
}

impl Kind {
    /// Returns the encoded header: `{"alg":"HS256","typ":"at+jwt"}`, or with `rt+jwt`.
    const fn header(self) -> &'static str {
        match self {
            Self::Access => "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9",
            Self::Renew => "eyJhbGciOiJIUzI1NiIsInR5cCI6InJ0K2p3dCJ9",
        }
    }

    const fn audience(self) -> &'static str {
        match self {
            Self::Access => "hearth",
            Self::Renew => "hearth/api/sessions/renew",
        }
    }

    const fn life(self) -> Duration {
        match self {
            Self::Access => ACCESS_LIFE,
            Self::Renew => RENEW_LIFE,
        }
    }

    fn of(text: &str) -> Option<Self> {
        let (header, _) = text.split_once('.')?;
        [Self::Access, Self::Renew]
            .into_iter()
            .find(|kind| kind.header() == header)
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: String,
    sid: String,
}

/// Verified contents of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionClaims {
    user: UserId,
    session: SessionId,
    token: [u8; 16],
    until: Timestamp,
}

/// Whether a text has the form of such a token; needs no key.
pub(crate) fn looks_like_one(text: &str) -> bool {
    Kind::of(text).is_some()
}

fn sign(
    key: &[u8; 32],
    kind: Kind,
    session: &Session,
    TokenTime { since, wall }: TokenTime,
    token: [u8; 16],
) -> Secret {
    let claims = Claims {
        iss: ISSUER.into(),
        aud: kind.audience().into(),
        sub: session.user.to_string(),
        iat: seconds(since),
        nbf: seconds(since),
        exp: seconds(wall + kind.life()),
        jti: hex::encode(&token),
        sid: hex::encode(&session.id.0),
    };
    Secret::new(encode(kind.header(), key, &claims))
}

pub(crate) fn read(
    key: &[u8; 32],
    wanted: Kind,
    text: &str,
    now: Timestamp,
) -> Result<SessionClaims, TokenError> {
    let kind = Kind::of(text).ok_or(TokenError::Invalid)?;
    let claims: Claims = verify(kind.header(), key, text).ok_or(TokenError::Invalid)?;
    let shown = shown(kind, &claims).ok_or(TokenError::Invalid)?;
    let now = seconds(now);
    if claims.iat > now + LEEWAY || claims.nbf > now + LEEWAY {
        return Err(TokenError::Invalid);
    }
    if now >= claims.exp.saturating_add(LEEWAY) {
        return Err(TokenError::Expired);
    }
    if kind == wanted {
        Ok(shown)
    } else {
        Err(TokenError::Kind)
    }
}

fn shown(kind: Kind, claims: &Claims) -> Option<SessionClaims> {
    if claims.iss != ISSUER || claims.aud != kind.audience() {
        return None;
    }
    Some(SessionClaims {
        user: claims.sub.parse().ok()?,
        session: SessionId(hex::decode(&claims.sid)?),
        token: hex::decode(&claims.jti)?,
        until: Timestamp(claims.exp.checked_add(LEEWAY)?.checked_mul(1000)?),
    })
}

/// Tokens returned by a login and by each renewal.
pub(crate) struct Tokens {
    pub(crate) access: Secret,
    pub(crate) renew: Secret,
}

impl Relay {
    /// Opens a session for a user who has logged in.
    pub(crate) async fn open_session(&self, user: &User) -> Result<Tokens, ApiError> {
        let time = self.token_time();
        let session = Session {
            id: SessionId(self.random_16()?),
            user: user.id,
            generation: user.generation,
            renewal: self.random_16()?,
            until: time.wall + RENEW_LIFE,
        };
        let tokens = self.tokens(&session, time).await?;
        self.store.open_session(time.wall, session).await?;
        Ok(tokens)
    }

    /// Renews a session: returns new tokens and invalidates the refresh token.
    pub(crate) async fn renew_session(&self, text: &str) -> Result<Tokens, Denied> {
        let time = self.token_time();
        let shown = self.shown(Kind::Renew, text).await?;
        let paced = self.rate_limits.take_user_request(shown.user, self.now());
        paced.map_err(Denied::Failed)?;
        // A user that was removed or changed has no session to renew.
        self.session(shown, None).await?;
        let renewal = Renewal {
            from: shown.token,
            to: self.random_16().map_err(Denied::Failed)?,
            until: time.wall + RENEW_LIFE,
        };
        let renewed = self.store.renew_session(shown.session, renewal).await;
        match renewed.map_err(failed)? {
            Renewed::Done(session) => self.tokens(&session, time).await.map_err(Denied::Failed),
            Renewed::Reused => {
                tracing::warn!(
                    user.id = shown.user,
                    "refresh token used twice; session ended"
                );
                self.cut_session(shown.session);
                Err(Denied::Reused)
            }
            Renewed::Gone => Err(Denied::Session(TokenError::Void)),
        }
    }

    /// Ends the session of a refresh token, even if the token was used before.
    pub(crate) async fn end_session(&self, text: &str) -> Result<(), Denied> {
        let shown = self.shown(Kind::Renew, text).await?;
        let relay = self.clone();
        let ended = self.run_to_completion(async move {
            relay.store.end_session(shown.session).await?;
            relay.cut_session(shown.session);
            Ok(())
        });
        ended.await.map_err(Denied::Failed)?;
        Ok(())
    }

    /// Returns the user of an access token, as stored now, the session, and the token's expiry.
    pub(crate) async fn user_of_session(
        &self,
        text: &str,
    ) -> Result<(User, SessionId, Timestamp), Denied> {
        let shown = self.shown(Kind::Access, text).await?;
        let user = self.session(shown, Some(self.wall_now())).await?;
        Ok((user, shown.session, shown.until))
    }

    /// Whether a session is still valid, for requests and connections opened with it.
    pub(crate) async fn session_stands(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> Result<bool, QueueError> {
        let Some(session) = self.store.find_session(id).await? else {
            return Ok(false);
        };
        let user = self.store.find_user(session.user).await?;
        Ok(session.until > now && user.is_some_and(|user| user.generation == session.generation))
    }

    async fn shown(&self, kind: Kind, text: &str) -> Result<SessionClaims, Denied> {
        let key = self.token_key().await.map_err(Denied::Failed)?;
        read(&key, kind, text, self.wall_now()).map_err(Denied::Session)
    }

    /// Returns the user of a valid session.
    async fn session(&self, shown: SessionClaims, now: Option<Timestamp>) -> Result<User, Denied> {
        let session = self.store.find_session(shown.session).await;
        let session = session.map_err(failed)?;
        let session = session.filter(|session| session.user == shown.user);
        let session = session.ok_or(Denied::Session(TokenError::Void))?;
        if now.is_some_and(|now| session.until <= now) {
            return Err(Denied::Session(TokenError::Void));
        }
        let user = self.store.find_user(shown.user).await.map_err(failed)?;
        user.filter(|user| user.generation == session.generation)
            .ok_or(Denied::Session(TokenError::Void))
    }

    async fn tokens(&self, session: &Session, time: TokenTime) -> Result<Tokens, ApiError> {
        let key = self.token_key().await?;
        Ok(Tokens {
            access: sign(&key, Kind::Access, session, time, self.random_16()?),
            renew: sign(&key, Kind::Renew, session, time, session.renewal),
        })
    }

    /// Ends all requests and connections of a session that was ended.
    fn cut_session(&self, id: SessionId) {
        self.key_uses.revoke(&key_id_of_session(id));
    }

    pub(crate) fn random_16(&self) -> Result<[u8; 16], ApiError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.random()?[..16]);
        Ok(bytes)
    }
}

fn failed(error: QueueError) -> Denied {
    Denied::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: [u8; 32] = [9; 32];
    const NOW: Timestamp = Timestamp(1_700_000_000_000);
    const TOKEN: [u8; 16] = [3; 16];

    fn session() -> Session {
        Session {
            id: SessionId([7; 16]),
            user: 5,
            generation: 2,
            renewal: TOKEN,
            until: NOW + RENEW_LIFE,
        }
    }

    fn token(kind: Kind) -> Secret {
        sign(&KEY, kind, &session(), NOW.into(), TOKEN)
    }

    fn claims() -> Value {
        json!({"iss": "hearth-relay", "aud": "hearth", "sub": "5", "iat": 1_700_000_000,
            "nbf": 1_700_000_000, "exp": 1_700_000_900, "jti": "03".repeat(16),
            "sid": "07".repeat(16)})
    }

    fn reads(header: &str, claims: &Value) -> Result<SessionClaims, TokenError> {
        read(&KEY, Kind::Access, &encode(header, &KEY, claims), NOW)
    }

    #[test]
    fn a_token_is_read_back_by_its_own_reader_until_its_time_and_the_leeway_have_passed() {
        for (kind, other, seconds) in [
            (Kind::Access, Kind::Renew, 900),
            (Kind::Renew, Kind::Access, 604_800),
        ] {
            let token = token(kind);
            let text = token.expose();
            let life = Duration::from_secs(seconds);
            let shown = SessionClaims {
                user: 5,
                session: SessionId([7; 16]),
                token: TOKEN,
                until: NOW + life + Duration::from_secs(30),
            };
            let over = shown.until;
            let last = NOW + life + Duration::from_secs(29);
            assert_eq!(read(&KEY, kind, text, NOW), Ok(shown));
            assert_eq!(read(&KEY, kind, text, last), Ok(shown));
            assert_eq!(read(&KEY, kind, text, over), Err(TokenError::Expired));
            assert_eq!(read(&KEY, other, text, NOW), Err(TokenError::Kind));
            let strange = read(&[8; 32], kind, text, NOW);
            assert_eq!(strange, Err(TokenError::Invalid));
        }
    }

    #[test]
    fn no_token_of_the_query_service_is_read_and_it_reads_none() {
        let jan = crate::jwt::Bearer {
            user: 5,
            generation: 2,
        };
        let theirs = crate::jwt::sign(&KEY, crate::jwt::Kind::Access, jan, NOW.into(), [3; 32]);
        assert!(!looks_like_one(&theirs));
        assert_eq!(
            read(&KEY, Kind::Access, &theirs, NOW),
            Err(TokenError::Invalid)
        );
        for kind in [Kind::Access, Kind::Renew] {
            for theirs in [crate::jwt::Kind::Access, crate::jwt::Kind::Refresh] {
                let read = crate::jwt::read(&KEY, theirs, token(kind).expose(), NOW);
                assert_eq!(read.map(|(bearer, _)| bearer), Err(TokenError::Invalid));
            }
        }
    }

    #[test]
    fn every_claim_must_be_there_and_say_what_it_says_here() {
        let header = Kind::Access.header();
        assert!(reads(header, &claims()).is_ok());
        for name in ["iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid"] {
            let mut without = claims();
            without.as_object_mut().unwrap().remove(name);
            assert_eq!(reads(header, &without), Err(TokenError::Invalid), "{name}");
            without[name] = Value::Null;
            assert_eq!(reads(header, &without), Err(TokenError::Invalid), "{name}");
        }
        for (name, value, told) in [
            ("iss", json!("another"), TokenError::Invalid),
            ("aud", json!("another"), TokenError::Invalid),
            ("aud", json!(["hearth"]), TokenError::Invalid),
            ("aud", json!(Kind::Renew.audience()), TokenError::Invalid),
            ("sub", json!("-5"), TokenError::Invalid),
            ("sub", json!(5), TokenError::Invalid),
            ("iat", json!(1_700_000_031), TokenError::Invalid),
            ("nbf", json!(1_700_000_031), TokenError::Invalid),
            ("exp", json!("never"), TokenError::Invalid),
            ("exp", json!(1e30), TokenError::Invalid),
            ("exp", json!(i64::MAX), TokenError::Invalid),
            ("exp", json!(1_699_999_970), TokenError::Expired),
            ("exp", json!(i64::MIN / 2000), TokenError::Expired),
            ("jti", json!(""), TokenError::Invalid),
            ("sid", json!("07"), TokenError::Invalid),
        ] {
            let mut with = claims();
            with[name] = value.clone();
            assert_eq!(reads(header, &with), Err(told), "{name}: {value}");
        }
        for (name, value) in [
            ("iat", json!(1_700_000_030)),
            ("nbf", json!(1_700_000_030)),
            ("exp", json!(1_699_999_971)),
        ] {
            let mut with = claims();
            with[name] = value;
            assert!(reads(header, &with).is_ok(), "{name} within the leeway");
        }
    }

    #[test]
    fn no_other_header_and_nothing_that_was_touched_is_read() {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
        for other in [
            r#"{"alg":"none","typ":"at+jwt"}"#,
            r#"{"alg":"HS512","typ":"at+jwt"}"#,
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
            r#"{"alg":"HS256","typ":"JWT"}"#,
            r#"{"alg":"HS256","typ":"at+jwt","kid":"../../dev/null"}"#,
            r#"{"typ":"at+jwt","alg":"HS256"}"#,
        ] {
            let read = reads(&BASE64.encode(other), &claims());
            assert_eq!(read, Err(TokenError::Invalid), "{other}");
        }
        for kind in [Kind::Access, Kind::Renew] {
            let typ = BASE64.decode(kind.header()).unwrap();
            assert!(typ.starts_with(br#"{"alg":"HS256","typ":"#));
        }
        let token = token(Kind::Access);
        let text = token.expose();
        for at in 0..text.len() {
            let mut touched = text.to_owned().into_bytes();
            touched[at] = if touched[at] == b'A' { b'B' } else { b'A' };
            let touched = String::from_utf8(touched).unwrap();
            let read = read(&KEY, Kind::Access, &touched, NOW);
            assert_eq!(read, Err(TokenError::Invalid), "byte {at}");
        }
    }
}
