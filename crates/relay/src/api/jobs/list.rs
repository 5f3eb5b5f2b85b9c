//! `GET /api/jobs`: the requester's own jobs, newest first, in pages.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, Uri, header};
use proto::{ErrorCode, JobState, JobView, ModelName, Op, Timestamp, limits::LISTED_MAX};
use queue::{Cursor, JobFilter};
use serde::Deserialize;

use super::view;
use crate::{
    Relay,
    auth::{Caller, MayRead},
    error::ApiError,
    target::InQuery,
};

/// Default number of jobs on a page.
const LIST_USUAL: usize = 100;

#[derive(Deserialize)]
pub(in crate::api) struct ListQuery {
    state: Option<Wanted>,
    model: Option<ModelName>,
    op: Option<Op>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    after: Option<String>,
    limit: Option<usize>,
}

/// Filter by state; `dead` matches failed jobs that were not retried.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Wanted {
    Queued,
    Leased,
    Completed,
    Failed,
    Cancelled,
    Dead,
}

impl From<Wanted> for JobState {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Queued => Self::Queued,
            Wanted::Leased => Self::Leased,
            Wanted::Completed => Self::Completed,
            Wanted::Failed | Wanted::Dead => Self::Failed,
            Wanted::Cancelled => Self::Cancelled,
        }
    }
}

/// `GET /api/jobs?state=&model=&op=&since=&until=&after=&limit=`. If there may be more jobs, the
/// response's `link` header names the next page.
pub(in crate::api) async fn list(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InQuery(query): InQuery<ListQuery>,
    uri: Uri,
) -> Result<Response, ApiError> {
    page(&relay, &caller, query, &uri).await
}

/// Returns a page of the jobs that the caller may see.
pub(in crate::api) async fn page(
    relay: &Relay,
    caller: &Caller,
    query: ListQuery,
    uri: &Uri,
) -> Result<Response, ApiError> {
    let after = query.after.as_deref().map(str::parse::<Cursor>);
    let after = after
        .transpose()
        .map_err(|wrong| ApiError::new(ErrorCode::BadRequest, wrong))?;
    let filter = JobFilter {
        state: query.state.map(Into::into),
        dead: query.state == Some(Wanted::Dead),
        model: query.model,
        op: query.op,
        since: query.since,
        until: query.until,
        after,
        limit: query.limit.unwrap_or(LIST_USUAL).clamp(1, LISTED_MAX),
    };
    let page = relay.store.search(caller.owner(), &filter).await?;
    let jobs: Vec<JobView> = page.jobs.into_iter().map(view).collect();
    let mut response = Json(jobs).into_response();
    if let Some(next) = page.next.and_then(|next| link(uri, next)) {
        response.headers_mut().insert(header::LINK, next);
    }
    Ok(response)
}

/// Returns the link to the next page, relative to the request's URL.
fn link(uri: &Uri, next: Cursor) -> Option<HeaderValue> {
    let said = uri.query().unwrap_or_default().split('&');
    let kept = said.filter(|pair| !pair.is_empty() && !pair.starts_with("after="));
    let query: String = kept.map(|pair| format!("{pair}&")).collect();
    HeaderValue::from_str(&format!("<?{query}after={next}>; rel=\"next\"")).ok()
}
