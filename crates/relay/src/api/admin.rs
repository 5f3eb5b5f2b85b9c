//! Operator routes: the overview, the jobs of all accounts, and the keys. All need the scope
//! `admin`, and none accepts a key in the path.

mod events;
mod jobs;
mod keys;

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get, post},
};
use proto::admin::Overview;

use crate::{Relay, auth::MayAdmin, error::ApiError};

/// Returns the routes below `/api/admin`.
pub(super) fn routes() -> Router<Relay> {
    Router::new()
        .route("/api/admin/overview", get(overview))
        .route("/api/admin/events", get(events::events))
        .route("/api/admin/jobs", get(jobs::list))
        .route("/api/admin/jobs/{id}", get(jobs::get).delete(jobs::cancel))
        .route("/api/admin/jobs/{id}/retry", post(jobs::retry))
        .route("/api/admin/keys", get(keys::list).post(keys::create))
        .route("/api/admin/keys/{id}", delete(keys::revoke))
}

/// `GET /api/admin/overview`.
async fn overview(
    State(relay): State<Relay>,
    MayAdmin(_): MayAdmin,
) -> Result<Json<Overview>, ApiError> {
    let mut overview = relay.overview().await?;
    overview.minutes = relay.minutes();
    Ok(Json(overview))
}
