//! Operator routes for the jobs of all accounts: list, show, retry and cancel.

use axum::{Json, extract::State, response::Response};
use http::{StatusCode, Uri};
use proto::{JobId, JobView};

use crate::{
    Relay,
    api::jobs::{self, ListQuery},
    auth::MayAdmin,
    error::ApiError,
    target::{InPath, InQuery},
};

/// `GET /api/admin/jobs`: like `GET /api/jobs`, for all accounts.
pub(super) async fn list(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    InQuery(query): InQuery<ListQuery>,
    uri: Uri,
) -> Result<Response, ApiError> {
    jobs::page(&relay, &caller, query, &uri).await
}

/// `GET /api/admin/jobs/{id}`.
pub(super) async fn get(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    InPath(id): InPath<JobId>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(jobs::shown(&relay, &caller, id).await?))
}

/// `POST /api/admin/jobs/{id}/retry`.
pub(super) async fn retry(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    InPath(id): InPath<JobId>,
) -> Result<Response, ApiError> {
    jobs::again(&relay, &caller, id).await
}

/// `DELETE /api/admin/jobs/{id}`.
pub(super) async fn cancel(
    State(relay): State<Relay>,
    MayAdmin(caller): MayAdmin,
    InPath(id): InPath<JobId>,
) -> Result<StatusCode, ApiError> {
    jobs::withdraw(&relay, &caller, id).await
}
