//! What operators ask: what the relay is doing, everybody's jobs, and the keys. One scope opens
//! all of it, and no key that stands in a path does.

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

/// The routes below `/api/admin`.
pub(super) fn routes() -> Router<Relay> {
    Router::new()
        .route("/api/admin/overview", get(overview))
        .route("/api/admin/events", get(events::events))
        .route("/api/admin/jobs", get(jobs::list))
        .route("/api/admin/jobs/{id}", delete(jobs::cancel))
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
