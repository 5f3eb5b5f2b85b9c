//! OpenAI's files, as far as batches need them.

use std::{io, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, header::CONTENT_TYPE};
use proto::ErrorCode;
use queue::FileRecord;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::written;
use crate::{
    Relay,
    auth::{Caller, MayEnqueue, MayRead},
    batch::{self, FILE_KEPT, Parts},
    concurrency::Repeat,
    error::ApiError,
    multipart,
    payload::{Inference, Payload},
    target::{InPath, InQuery},
};

/// Maximum number of files of an account, and of their bytes in total.
pub(crate) const FILES_MAX: usize = 200;
pub(crate) const BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Maximum length of a file's name, in bytes.
const NAME_MAX: usize = 256;
/// Maximum time that a request to delete a file waits for its parts to be erased.
const ERASE_WAIT: Duration = Duration::from_secs(2);

/// `POST /v1/files`: `multipart/form-data` with `purpose` (`batch`) and `file`.
pub(super) async fn upload(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    headers: HeaderMap,
    Payload(body): Inference,
) -> Result<Json<Value>, ApiError> {
    let form = headers
        .get(CONTENT_TYPE)
        .and_then(|form| form.to_str().ok());
    let fields = multipart::parse(form.unwrap_or_default(), &body).map_err(bad)?;
    let find = |name| fields.iter().find(|field| field.name == name);
    let purpose = find("purpose").map(|field| &*field.content);
    if purpose != Some(b"batch") {
        return Err(bad("purpose must be batch; other files are not supported"));
    }
    let file = find("file").ok_or_else(|| bad("the form has no field `file`"))?;
    if file.content.is_empty() {
        return Err(bad("the file is empty"));
    }
    let had = relay.store.files((&caller.account).into()).await?;
    let bytes: u64 = had.iter().map(|file| file.bytes).sum();
    if had.len() >= FILES_MAX || bytes + file.content.len() as u64 > BYTES_MAX {
        let message = "the account's files have reached their limit; delete some that are no \
                       longer needed";
        return Err(ApiError::new(ErrorCode::AccountFull, message));
    }
    caller.if_repeated(Repeat::Doubles);
    let id = format!("file-{}", relay.job_id()?);
    let cut_short = CutShort::new(&relay, &id);
    let mut parts = Parts::new(&relay, &id);
    parts.add(&file.content).await?;
    let now = relay.now();
    let name = file.filename.as_deref().unwrap_or("requests.jsonl");
    let record = FileRecord {
        id: id.clone(),
        account: caller.account.clone(),
        name: name.chars().take(NAME_MAX).collect(),
        purpose: "batch".into(),
        bytes: 0,
        created_at: now,
        expires_at: now + FILE_KEPT,
    };
    let record = parts.finish(record).await?;
    cut_short.not();
    tracing::info!(file = id, bytes = record.bytes, "file stored");
    Ok(Json(view(&record)))
}

#[derive(Deserialize)]
pub(super) struct Page {
    after: Option<String>,
    limit: Option<usize>,
    purpose: Option<String>,
}

/// `GET /v1/files?purpose=&after=&limit=`: newest first.
pub(super) async fn list(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InQuery(page): InQuery<Page>,
) -> Result<Json<Value>, ApiError> {
    let mut files = relay.store.files((&caller.account).into()).await?;
    if let Some(purpose) = &page.purpose {
        files.retain(|file| file.purpose == *purpose);
    }
    let files = files.iter().map(|file| (file.id.as_str(), view(file)));
    Ok(Json(listed(files, &page)))
}

/// Formats one page of a list as OpenAI does, from the item after `after`.
pub(super) fn listed<'a>(all: impl Iterator<Item = (&'a str, Value)>, page: &Page) -> Value {
    let limit = page.limit.unwrap_or(20).clamp(1, 100);
    let mut all = all.skip_while(|(id, _)| page.after.as_ref().is_some_and(|after| after != id));
    if page.after.is_some() {
        all.next();
    }
    let found: Vec<_> = all.by_ref().take(limit).collect();
    json!({
        "object": "list",
        "first_id": found.first().map(|(id, _)| id),
        "last_id": found.last().map(|(id, _)| id),
        "has_more": all.next().is_some(),
        "data": found.iter().map(|(_, view)| view).collect::<Vec<_>>(),
    })
}

/// `GET /v1/files/{id}`.
pub(super) async fn get(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<String>,
) -> Result<Json<Value>, ApiError> {
    let file = relay.store.file((&caller.account).into(), &id).await?;
    Ok(Json(view(&file.ok_or_else(unknown)?)))
}

/// `GET /v1/files/{id}/content`.
pub(super) async fn content(
    State(relay): State<Relay>,
    MayRead(caller): MayRead,
    InPath(id): InPath<String>,
) -> Result<Response, ApiError> {
    let file = relay.store.file((&caller.account).into(), &id).await?;
    let file = file.ok_or_else(unknown)?;
    let reading = Reading {
        relay,
        left: file.bytes,
        id: file.id,
        next: 0,
    };
    let body = futures_util::stream::try_unfold(reading, Reading::part);
    let body = axum::body::Body::from_stream(body);
    let mut response = written("application/jsonl", "").into_response();
    *response.body_mut() = body;
    Ok(response)
}

/// A file that is being sent.
struct Reading {
    relay: Relay,
    id: String,
    /// Number of the next part.
    next: u32,
    /// Number of bytes that are not sent yet.
    left: u64,
}

impl Reading {
    /// Returns the next part. An error breaks the connection: a file that is erased meanwhile must
    /// not end as if it were whole.
    async fn part(mut self) -> io::Result<Option<(Bytes, Self)>> {
        let part = self.relay.store.part(&self.id, self.next).await;
        match part.map_err(io::Error::other)? {
            Some(part) => {
                self.next += 1;
                self.left = self.left.saturating_sub(part.len() as u64);
                Ok(Some((part, self)))
            }
            None if self.left == 0 => Ok(None),
            None => Err(io::Error::other("the file was erased during the download")),
        }
    }
}

/// `DELETE /v1/files/{id}`.
pub(super) async fn delete(
    State(relay): State<Relay>,
    MayEnqueue(caller): MayEnqueue,
    InPath(id): InPath<String>,
) -> Result<Json<Value>, ApiError> {
    let told = json!({"id": id, "object": "file", "deleted": true});
    caller.if_repeated(Repeat::Finds);
    relay
        .run_to_completion(erase(relay.clone(), caller, id))
        .await?;
    Ok(Json(told))
}

/// Erases a file, unless a batch reads it.
async fn erase(relay: Relay, caller: Caller, id: String) -> Result<(), ApiError> {
    forget(&relay, &caller, &id).await?;
    // A client that deletes faster than the disk erases waits here; the rest is erased later.
    let erased = timeout(ERASE_WAIT, relay.store.erase_file(&id)).await;
    if !matches!(erased, Ok(Ok(()))) {
        relay.batches.files.notify_one();
    }
    Ok(())
}

/// Removes a file, unless a batch reads it. No batch can start to read it meanwhile; batches do not
/// wait for its parts to be erased.
async fn forget(relay: &Relay, caller: &Caller, id: &str) -> Result<(), ApiError> {
    let _alone = relay.batches.alone.lock().await;
    let file = relay.store.file((&caller.account).into(), id).await?;
    file.ok_or_else(unknown)?;
    let batches = relay.store.batches((&caller.account).into()).await?;
    if batches.iter().any(|batch| batch::uses(batch, id)) {
        return Err(bad("a batch still uses this file; cancel the batch first"));
    }
    Ok(relay.store.forget_file(id).await?)
}

/// Erases the stored parts of an upload on drop, unless it was completed: the store failed or the
/// client disconnected.
struct CutShort {
    relay: Relay,
    id: Option<String>,
}

impl CutShort {
    fn new(relay: &Relay, id: &str) -> Self {
        Self {
            relay: relay.clone(),
            id: Some(id.to_owned()),
        }
    }

    /// Keeps the parts, because the upload is complete.
    fn not(mut self) {
        self.id = None;
    }
}

impl Drop for CutShort {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let relay = self.relay.clone();
        self.relay.tasks.spawn(async move {
            if let Err(error) = relay.store.erase_file(&id).await {
                tracing::warn!(file = id, error = proto::causes(&error), "cannot erase all parts of a broken upload yet; they are erased later, at the latest after the next restart");
                relay.batches.files.notify_one();
            }
        });
    }
}

fn view(file: &FileRecord) -> Value {
    json!({
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at.0 / 1000,
        "expires_at": file.expires_at.0 / 1000,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    })
}

pub(super) fn unknown() -> ApiError {
    let message = "there is no such file or batch; it may have expired, or belong to another \
                   account";
    ApiError::new(ErrorCode::UnknownJob, message)
}

fn bad(message: &'static str) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use proto::{Account, Timestamp};
    use queue::{Batches as _, MemoryQueue};
    use tower::ServiceExt as _;

    use super::*;
    use crate::{RelaySettings, SystemWorld};

    #[tokio::test]
    async fn parts_of_an_upload_that_was_cut_short_are_erased() {
        let store = Arc::new(MemoryQueue::default());
        let relay = Relay::new(
            store.clone(),
            RelaySettings::default(),
            Arc::new(SystemWorld),
        );
        for (id, is_whole) in [("file-cut", false), ("file-whole", true)] {
            let guard = CutShort::new(&relay, id);
            let part = Bytes::from_static(b"a prompt");
            store.put_part(id, 0, part).await.unwrap();
            if is_whole {
                guard.not();
            } else {
                drop(guard);
            }
        }
        relay.tasks.close();
        let erased = tokio::time::timeout(Duration::from_secs(10), relay.tasks.wait());
        erased.await.unwrap();
        assert_eq!(store.part("file-cut", 0).await.unwrap(), None);
        assert!(store.part("file-whole", 0).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_download_of_a_file_that_is_erased_meanwhile_is_broken_off() {
        for is_erased in [false, true] {
            let store = Arc::new(MemoryQueue::default());
            let settings = RelaySettings {
                insecure_dev: true,
                ..RelaySettings::default()
            };
            let relay = Relay::new(store.clone(), settings, Arc::new(SystemWorld));
            for n in 0..2 {
                let part = Bytes::from_static(b"line\n");
                store.put_part("file-1", n, part).await.unwrap();
            }
            let file = FileRecord {
                id: "file-1".into(),
                account: Account::new("default").unwrap(),
                name: "out.jsonl".into(),
                purpose: "batch_output".into(),
                bytes: 10,
                created_at: Timestamp(0),
                expires_at: Timestamp(i64::MAX),
            };
            store.put_file(file).await.unwrap();
            let request = Request::get("/v1/files/file-1/content").body(Body::empty());
            let routes = crate::api::routes(relay);
            let response = routes.oneshot(request.unwrap()).await.unwrap();
            let mut body = response.into_body();
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "line\n");
            if is_erased {
                store.erase_file("file-1").await.unwrap();
            }
            let rest = body.collect().await;
            assert_eq!(rest.is_err(), is_erased);
        }
    }
}
