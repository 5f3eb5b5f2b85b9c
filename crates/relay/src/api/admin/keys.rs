//! Operator routes for keys: list without secrets, create and revoke.

use std::{collections::BTreeSet, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header};
use proto::{
    Account, ErrorCode, Secret, Timestamp,
    admin::{KeyView, NewKey},
};
use queue::{Ceiling, InvalidPattern, ModelPattern, ModelPatterns, Scope};

use crate::{
    Relay,
    auth::MayAdmin,
    concurrency::Repeat,
    error::ApiError,
    keys::{KeyFor, check, mint, served, view},
    payload::{Control, Payload},
    target::InPath,
};

/// `GET /api/admin/keys`: oldest first, including revoked keys.
pub(super) async fn list(
    State(relay): State<Relay>,
    MayAdmin(_): MayAdmin,
) -> Result<Json<Vec<KeyView>>, ApiError> {
    let keys = relay.store.list_keys().await?;
    Ok(Json(keys.into_iter().map(view).collect()))
}

/// `POST /api/admin/keys`: creates a key. Its text is only in this response.
pub(super) async fn create(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    Payload(body): Control,
) -> Result<Response, ApiError> {
    let asked: NewKey = serde_json::from_slice(&body).map_err(|error| bad(error.to_string()))?;
    let now = relay.wall_now();
    let for_ = key_for(asked, now)?;
    let mut id = [0; 6];
    id.copy_from_slice(&relay.random()?[..6]);
    let (text, record) = mint(for_, id, relay.random()?, now);
    caller.if_repeated(Repeat::Doubles);
    relay.store.create_key(record.clone()).await?;
    let (id, name, by) = (&record.id, &record.name, caller.in_log());
    tracing::info!(key.id = id, key.name = name, by, "key created");
    let made = KeyView {
        key: Some(Secret::new(text.reveal().to_owned())),
        ..view(record)
    };
    let mut response = (StatusCode::CREATED, Json(made)).into_response();
    let unkept = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, unkept);
    Ok(response)
}

/// `DELETE /api/admin/keys/{id}`: revokes a key, and ends its open requests and connections.
pub(super) async fn revoke(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    InPath(id): InPath<String>,
) -> Result<StatusCode, ApiError> {
    let unknown = || {
        let message = "no valid key has this id; list the keys at /api/admin/keys";
        ApiError::new(ErrorCode::UnknownKey, message)
    };
    let key = relay.store.find_key(&id).await?;
    let key = key.filter(|key| key.revoked_at.is_none());
    let name = key.ok_or_else(unknown)?.name;
    // A caller that revokes its own key must receive the response first; its connections end within
    // seconds.
    let is_own = caller.key.as_ref() == Some(&id);
    let by = caller.in_log();
    caller.if_repeated(Repeat::Finds);
    let keeper = relay.clone();
    let revoked = relay.run_to_completion(async move {
        let was_there = keeper.store.revoke_key(keeper.now(), &id).await?;
        if was_there {
            tracing::info!(key.id = id, key.name = name, by, "key revoked");
        }
        if was_there && !is_own {
            keeper.key_uses.revoke(&id);
        }
        Ok(was_there)
    });
    if revoked.await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown())
    }
}

fn key_for(asked: NewKey, now: Timestamp) -> Result<KeyFor, ApiError> {
    let lasting = asked.expires_in_s.map(Duration::from_secs);
    check(&asked.name, lasting).map_err(bad)?;
    let scopes = asked.scopes.iter().map(|word| {
        let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
        scope.ok_or_else(|| bad("a scope must be one of enqueue, read, work, admin"))
    });
    let scopes: BTreeSet<Scope> = scopes.collect::<Result<_, _>>()?;
    if scopes.is_empty() {
        return Err(bad("a key needs at least one scope"));
    }
    let account = match asked.account {
        Some(account) => account,
        None => Account::new("default").map_err(|_| ApiError::internal())?,
    };
    let serve = served(&account, &asked.serve).map_err(|error| bad(error.to_string()))?;
    if !asked.serve.is_empty() && !scopes.contains(&Scope::Work) {
        return Err(bad("`serve` requires the scope `work`"));
    }
    let models: Result<Vec<ModelPattern>, _> =
        asked.models.iter().map(|text| text.parse()).collect();
    let models = models.map_err(|error: InvalidPattern| bad(error.to_string()))?;
    Ok(KeyFor {
        name: asked.name,
        account,
        scopes,
        serve,
        ceiling: Ceiling {
            models: ModelPatterns::new(models),
            priority: asked.max_priority,
        },
        expires_at: lasting.map(|lasting| now + lasting),
    })
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}
