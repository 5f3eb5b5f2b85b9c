//! Extractors of path and query parameters. Invalid values get a typed error in the route's format,
//! never the framework's own text.

use axum::extract::{FromRequestParts, Path, Query};
use http::{Uri, request::Parts};
use proto::{ErrorCode, Op};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Job or lease in the path; an unreadable id is answered like an unknown one.
#[derive(Debug)]
pub(crate) struct InPath<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Path::from_request_parts(parts, state).await;
        let Path(read) = read.map_err(|_| ApiError::unknown_job())?;
        Ok(Self(read))
    }
}

/// Model in the path, as written.
#[derive(Debug)]
pub(crate) struct ModelInPath(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for ModelInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let read = Path::from_request_parts(parts, state).await;
        let Path(name) = read.map_err(|_| {
            let path = parts.uri.path();
            unknown_model(path.strip_prefix("/v1/models/").unwrap_or(path))
        })?;
        Ok(Self(name))
    }
}

/// Returns the error for an unknown model.
pub(crate) fn unknown_model(name: &str) -> ApiError {
    let message = dialect::ollama::model_not_found(Op::Chat, name);
    ApiError::new(ErrorCode::UnknownModel, message)
}

/// Query parameters.
#[derive(Debug)]
pub(crate) struct InQuery<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let read = Query::try_from_uri(&parts.uri);
        let Query(read) =
            read.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.body_text()))?;
        Ok(Self(read))
    }
}

/// Returns a path that may be logged: segments that may be a misplaced key are hidden.
pub(crate) fn shown(path: &str) -> String {
    const LONGEST_WORD: usize = 40;
    let mut segments = Vec::new();
    let mut after_k = false;
    for segment in path.split('/') {
        let may_be_key = after_k
            || segment.len() > LONGEST_WORD
            || segment.contains('%')
            || segment.starts_with(crate::keys::PREFIX);
        segments.push(if may_be_key && !segment.is_empty() {
            "…"
        } else {
            segment
        });
        after_k = segment.eq_ignore_ascii_case("k");
    }
    segments.join("/")
}

/// Returns the URL without duplicate and trailing slashes; `None` if it has none.
pub(crate) fn without_extra_slashes(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let clean: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .flat_map(|part| ["/", part])
        .collect();
    if clean.is_empty() || clean == path {
        return None;
    }
    let target = match uri.query() {
        Some(query) => format!("{clean}?{query}"),
        None => clean,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_without_what_may_be_a_key() {
        assert_eq!(shown("/api/nowhere"), "/api/nowhere");
        let key = "hearth_00112233aabb_".to_owned() + &"ab".repeat(32) + "_01020304";
        let mistyped = key.replace("hearth_", "");
        for (path, is) in [
            (format!("/{key}/api/chat"), "/…/api/chat"),
            (format!("/K/{key}/api/chat"), "/K/…/api/chat"),
            (format!("//k/{key}"), "//k/…"),
            ("/k/secret/x".to_owned(), "/k/…/x"),
            (format!("/%6B/{key}/x"), "/…/…/x"),
            (format!("/k/{mistyped}/x"), "/k/…/x"),
            (format!("/key/{mistyped}/x"), "/key/…/x"),
            (format!("/key/%68{}/x", &key[1..]), "/key/…/x"),
        ] {
            assert_eq!(shown(&path), is, "{path}");
        }
        let longest = format!("/api/{}", "x".repeat(40));
        assert_eq!(shown(&longest), longest);
        assert_eq!(shown(&format!("{longest}x")), "/api/…");
    }

    #[test]
    fn slashes_that_say_nothing_are_taken_out_and_the_query_stays() {
        let clean = |target: &str| {
            let clean = without_extra_slashes(&target.parse().unwrap());
            clean.map(|uri| uri.to_string())
        };
        assert_eq!(clean("/api/chat/").as_deref(), Some("/api/chat"));
        assert_eq!(clean("//api//tags?a=1").as_deref(), Some("/api/tags?a=1"));
        for already in ["/", "//", "/api/chat", "/api/jobs/1?x=/"] {
            assert_eq!(clean(already), None, "{already}");
        }
    }
}
