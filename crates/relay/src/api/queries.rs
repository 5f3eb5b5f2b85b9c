//! The query service's routes for requesters. A query is a job in the shared queue: any agent may
//! answer it, or a worker of the query service may claim it.

pub(super) mod claims;

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use dialect::queries::{Log, Page, Query, Refusal, Status, Text, native, text_of};
use http::{HeaderMap, StatusCode, header};
use proto::{Dialect, EventId, JobState, Op, Priority};
use queue::{NewJob, NewQuery, Owner, QueryId};
use serde::Deserialize;

use super::{
    login::fields,
    relay_polling::model,
    rest::{Asks, Reads, RestError},
    written,
};
use crate::{
    Relay,
    budget::BudgetShare,
    concurrency::Repeat,
    error::ApiError,
    payload::{Inference, Payload},
    peer::Peer,
    target::{InPath, InQuery},
};

const JSON: &str = "application/json";
/// Number of queries on a page.
const PAGE: usize = 50;
/// Maximum number of queries in an unpaged list.
const LIST_MAX: usize = 500;
/// Approximate size limit of an unpaged list, in bytes; use `?page=` for more.
const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Maximum size of an answer when one query is shown, in bytes.
const ANSWER_MAX: usize = 16 * 1024 * 1024;
/// Maximum size of an answer in a list, in bytes.
const LISTED_ANSWER_MAX: usize = 256 * 1024;

/// `POST /api/queries/`.
pub(super) async fn create(
    State(relay): State<Relay>,
    Asks(caller): Asks,
    headers: HeaderMap,
    Payload(body): Inference,
) -> Result<Response, RestError> {
    let asked = fields(&headers, &body)?.new_query()?;
    if relay.drain.is_cancelled() {
        return Err(ApiError::draining().into());
    }
    let model = model(&relay, &caller, None)?;
    let now = relay.now();
    let job = NewJob {
        id: relay.job_id()?,
        account: caller.account.clone(),
        who: caller.name.clone(),
        op: Op::Chat,
        body: native(&asked.query_text, &model).into(),
        model,
        priority: caller.priority(None, Priority::DEFAULT)?,
        dialect: Dialect::Queries,
        deadline: None,
        attended: false,
        worker: caller.worker.clone(),
    };
    tracing::info!(job.id = %job.id, bytes = job.body.0.len(), "queued as a query");
    let new = NewQuery {
        job,
        project: asked.project,
        user: caller.user,
    };
    caller.if_repeated(Repeat::Doubles);
    let keeper = relay.clone();
    let id = relay.run_to_completion(async move {
        let id = keeper.store.create_query(now, new).await?;
        keeper.pushes.tell(id);
        Ok(id)
    });
    // The query is on disk now: nothing after this may fail, or its requester would send it again.
    let made = Query {
        id: id.await?,
        project: asked.project,
        project_name: caller.account.as_str().to_owned(),
        user: caller.user,
        user_name: caller.name.clone(),
        query_text: asked.query_text,
        answer_text: Text::default(),
        status: Status::Queued,
        query_created: now,
        query_started: None,
        query_finished: None,
        logs_count: 0,
        logs: None,
    };
    let share = relay.gathered.own_share();
    let mut response = held(share, dialect::queries::query(&made));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Returns the query if it exists and belongs to this owner.
async fn found(relay: &Relay, owner: Owner<'_>, id: QueryId) -> Result<queue::Query, RestError> {
    let found = relay.store.find_query(owner, id).await?;
    found.ok_or_else(|| Refusal::no_query().into())
}

/// Parses a query's number; any other text is an unknown query.
fn number(text: &str) -> Result<QueryId, RestError> {
    text.parse().map_err(|_| Refusal::no_query().into())
}

/// `GET /api/queries/{id}/`.
pub(super) async fn get(
    State(relay): State<Relay>,
    Reads(caller): Reads,
    InPath(id): InPath<String>,
) -> Result<Response, RestError> {
    let found = found(&relay, caller.owner(), number(&id)?).await?;
    let mut share = relay.gathered.share(&caller.claimant());
    let mut query = shown(&relay, &found, ANSWER_MAX, &mut share).await?;
    query.logs = Some(logs_of(&relay, &found).await?);
    Ok(held(share, dialect::queries::query(&query)))
}

/// `GET /api/queries/{id}/logs/`.
pub(super) async fn logs(
    State(relay): State<Relay>,
    Reads(caller): Reads,
    InPath(id): InPath<String>,
) -> Result<Response, RestError> {
    let found = found(&relay, caller.owner(), number(&id)?).await?;
    let logs = logs_of(&relay, &found).await?;
    Ok(written(JSON, dialect::queries::logs(&logs)))
}

#[derive(Deserialize)]
pub(super) struct Which {
    page: Option<String>,
    status: Option<String>,
}

/// `GET /api/queries/?page=`.
pub(super) async fn list(
    State(relay): State<Relay>,
    Reads(caller): Reads,
    InQuery(which): InQuery<Which>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, RestError> {
    let page = which.page.as_deref().unwrap_or("1").parse::<u64>();
    let page = page.ok().filter(|page| *page > 0);
    let page = page.ok_or_else(Refusal::no_page)?;
    let skip = (page - 1).saturating_mul(PAGE as u64);
    let owner = caller.owner();
    let (count, found) = relay.store.list_queries(owner, &[], skip, PAGE).await?;
    if found.is_empty() && page > 1 {
        return Err(Refusal::no_page().into());
    }
    let mut share = relay.gathered.share(&caller.claimant());
    let mut results = Vec::with_capacity(found.len());
    for query in &found {
        results.push(shown(&relay, query, LISTED_ANSWER_MAX, &mut share).await?);
    }
    let here = here(&relay, peer, &headers);
    let link = |page: u64| match page {
        1 => here.clone(),
        page => format!("{here}?page={page}"),
    };
    let page = Page {
        count,
        next: (skip + (found.len() as u64) < count).then(|| link(page + 1)),
        previous: (page > 1).then(|| link(page - 1)),
        results,
    };
    Ok(held(share, dialect::queries::page(&page)))
}

/// Returns the URL of the list as the client sees it.
fn here(relay: &Relay, peer: Peer, headers: &HeaderMap) -> String {
    if let Some(url) = &relay.settings.public_url {
        return format!("{url}/api/queries/");
    }
    let host = headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.unwrap_or("localhost");
    let scheme = if peer.is_secure { "https" } else { "http" };
    format!("{scheme}://{host}/api/queries/")
}

/// `GET /api/queries/by_status/?status=`.
pub(super) async fn by_status(
    State(relay): State<Relay>,
    Reads(caller): Reads,
    InQuery(which): InQuery<Which>,
) -> Result<Response, RestError> {
    let status = which.status.as_deref().and_then(Status::parse);
    let Some(status) = status else {
        let text = "status is one of queued, in_progress, done and failed";
        return Err(Refusal::detail(400, text).into());
    };
    let owner = caller.owner();
    let states = status.states();
    let (_, found) = relay.store.list_queries(owner, states, 0, LIST_MAX).await?;
    let mut share = relay.gathered.share(&caller.claimant());
    let mut queries = Vec::with_capacity(found.len());
    for query in &found {
        queries.push(shown(&relay, query, LISTED_ANSWER_MAX, &mut share).await?);
        if share.bytes() > LIST_BYTES_MAX {
            break;
        }
    }
    Ok(held(share, dialect::queries::queries(&queries)))
}

/// `DELETE /api/queries/{id}/`.
pub(super) async fn delete(
    State(relay): State<Relay>,
    Asks(caller): Asks,
    InPath(id): InPath<String>,
) -> Result<Response, RestError> {
    let found = found(&relay, caller.owner(), number(&id)?).await?;
    caller.if_repeated(Repeat::Finds);
    if relay.store.delete_query(found.id).await? {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let text = "Only queries that are done or failed can be deleted.";
    Err(Refusal::detail(400, text).into())
}

/// Returns a response that counts against the memory budget until the client has received it.
fn held(share: BudgetShare, json: impl Into<Bytes>) -> Response {
    written(JSON, share.held(json.into()))
}

/// Converts a query to its public form, within the memory budget.
async fn shown(
    relay: &Relay,
    query: &queue::Query,
    max: usize,
    share: &mut BudgetShare,
) -> Result<Query, RestError> {
    let job = &query.job;
    let claimed = query.claim.as_ref();
    let query_text = text_of(&job.new.body.0);
    share.grow(query_text.len())?;
    let answer_text = answer(relay, query, max).await?;
    share.grow(answer_text.len())?;
    Ok(Query {
        id: query.id,
        project: query.project,
        project_name: job.new.account.as_str().to_owned(),
        user: query.user,
        user_name: job.new.who.clone(),
        query_text: Text(query_text),
        answer_text: Text(answer_text),
        status: Status::of(job.state),
        query_created: job.created_at,
        query_started: claimed
            .filter(|_| job.state != JobState::Queued)
            .map(|claim| claim.at),
        query_finished: job.finished_at,
        logs_count: query.logs,
        logs: None,
    })
}

/// Returns the answer so far. A failure's message takes its place, as clients of the query service
/// expect.
async fn answer(relay: &Relay, query: &queue::Query, max: usize) -> Result<String, RestError> {
    let job = &query.job;
    if !job.state.is_final()
        && let Some(draft) = &query.draft
    {
        return Ok(String::from_utf8_lossy(&draft.0).into_owned());
    }
    let text = match job.state {
        JobState::Queued => String::new(),
        JobState::Leased | JobState::Completed | JobState::Failed | JobState::Cancelled => {
            written_so_far(relay, query, max).await?
        }
    };
    let is_lost = matches!(job.state, JobState::Failed | JobState::Cancelled);
    if is_lost && text.is_empty() {
        let error = job.error.as_ref();
        return Ok(error.map_or_else(|| "cancelled".to_owned(), |error| error.message.clone()));
    }
    Ok(text)
}

/// Returns the text of the job's log, from about `max` bytes of lines.
async fn written_so_far(
    relay: &Relay,
    query: &queue::Query,
    max: usize,
) -> Result<String, RestError> {
    let log = relay.store.log(Owner::Anyone, query.job.new.id).await?;
    let Some(log) = log else {
        return Ok(String::new());
    };
    let page = log.read(EventId::default(), max).await?;
    let lines: Vec<Bytes> = page.chunks.into_iter().map(|chunk| chunk.line.0).collect();
    Ok(dialect::relay_polling::text(&lines))
}

async fn logs_of(relay: &Relay, query: &queue::Query) -> Result<Vec<Log>, RestError> {
    let logs = relay.store.query_logs(query.id).await?;
    Ok(logs.iter().map(|log| entry(query.project, log)).collect())
}

fn entry(project: i64, log: &queue::QueryLog) -> Log {
    Log {
        id: log.id,
        project,
        query: log.query,
        log_data: Text(String::from_utf8_lossy(&log.text.0).into_owned()),
        create_dtime: log.created_at,
    }
}
