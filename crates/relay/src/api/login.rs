//! `POST /api/login/` and `POST /api/token/refresh/`, the login of the query service.

use axum::{extract::State, response::Response};
use dialect::queries::{Fields, LoggedIn, Profile, Refusal, Why, logged_in, refreshed};
use http::{HeaderMap, header};
use queue::{Role, User};
use secrecy::SecretString;

use super::{rest::RestError, written};
use crate::{
    Relay,
    auth::Denied,
    error::ApiError,
    jwt::{self, Bearer, Kind},
    payload::{Control, Payload},
    peer::Peer,
};

const JSON: &str = "application/json";
/// Project of a user's queries unless the request names another.
const PROJECT: i64 = 1;

/// `POST /api/login/`.
pub(super) async fn login(
    State(relay): State<Relay>,
    peer: Peer,
    headers: HeaderMap,
    Payload(body): Control,
) -> Result<Response, RestError> {
    let fields = fields(&headers, &body)?;
    let (name, password) = (fields.text("username"), fields.text("password"));
    let (Some(name), Some(password)) = (name, password) else {
        return Err(RestError::from(Refusal::bad_login()));
    };
    let password = SecretString::from(password.to_owned());
    let Some(user) = relay.log_in(name, password, peer).await? else {
        return Err(RestError::from(Refusal::bad_login()));
    };
    let access = relay.token(&user, Kind::Access).await?;
    let refresh = relay.token(&user, Kind::Refresh).await?;
    let answer = LoggedIn {
        access: &access,
        refresh: &refresh,
        user: profile(&user),
    };
    Ok(written(JSON, logged_in(&answer)))
}

/// `POST /api/token/refresh/`.
pub(super) async fn refresh(
    State(relay): State<Relay>,
    peer: Peer,
    headers: HeaderMap,
    Payload(body): Control,
) -> Result<Response, RestError> {
    let fields = fields(&headers, &body)?;
    let user = relay.user(fields.refresh()?, Kind::Refresh).await;
    let user = user.map_err(|denied| relay.rate_limits.throttle_denied(peer, denied, relay.now()));
    let user = match user {
        Ok((user, _)) => user,
        Err(Denied::Failed(error)) => return Err(error.into()),
        Err(Denied::Gone) => return Err(RestError::challenge(Refusal::no_account())),
        Err(Denied::Token(why)) => {
            return Err(RestError::challenge(Refusal::bad_refresh(said(why))));
        }
        Err(
            Denied::Nothing
            | Denied::Key
            | Denied::Revoked
            | Denied::Expired
            | Denied::Session(_)
            | Denied::Reused
            | Denied::Scope(_)
            | Denied::KeyInPath,
        ) => {
            return Err(RestError::challenge(Refusal::bad_refresh(Why::Invalid)));
        }
    };
    relay.rate_limits.take_user_request(user.id, relay.now())?;
    let access = relay.token(&user, Kind::Access).await?;
    Ok(written(JSON, refreshed(&access)))
}

/// Converts the reason of a refused token to the query service's.
pub(super) const fn said(refused: jwt::TokenError) -> Why {
    match refused {
        jwt::TokenError::Invalid | jwt::TokenError::Void => Why::Invalid,
        jwt::TokenError::Expired => Why::Expired,
        jwt::TokenError::Kind => Why::WrongType,
    }
}

/// Parses a body according to its content type.
pub(super) fn fields(headers: &HeaderMap, body: &[u8]) -> Result<Fields, Refusal> {
    let kind = headers.get(header::CONTENT_TYPE);
    Fields::parse(kind.and_then(|kind| kind.to_str().ok()), body)
}

fn profile(user: &User) -> Profile<'_> {
    let account = user.new.account.as_str();
    Profile {
        id: user.id,
        username: &user.new.name,
        project: (user.new.role != Role::Service).then_some((PROJECT, account)),
        first_login: user.last_login.is_none(),
        date_joined: user.new.created_at,
        last_login: user.last_login,
    }
}

impl Relay {
    async fn token(&self, user: &User, kind: Kind) -> Result<String, ApiError> {
        let bearer = Bearer {
            user: user.id,
            generation: user.generation,
        };
        let key = self.token_key().await?;
        Ok(jwt::sign(
            &key,
            kind,
            bearer,
            self.token_time(),
            self.random()?,
        ))
    }
}
