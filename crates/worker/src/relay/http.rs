//! HTTP requests to the relay, and the meaning of its refusals.

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use engine::{Url, client_builder};
use proto::{ErrorBody, ErrorCode, cause};
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Duration, timeout};

use crate::{LinkEnd, Tuning};

/// Maximum size of an error body that is read, in bytes.
const ERROR_MAX: usize = 16 * 1024;
/// Timeout of a response that stalls.
const STALLED: Duration = Duration::from_secs(30);

/// The relay's address, and the credentials for it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    base: String,
    bearer: HeaderValue,
}

impl Endpoint {
    pub(crate) fn new(relay: &Url, key: &SecretString, tuning: &Tuning) -> anyhow::Result<Self> {
        let mut base = relay.clone();
        base.set_query(None);
        base.set_fragment(None);
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
            .ok()
            .context("the key contains characters that are not valid in a key; copy it again")?;
        bearer.set_sensitive(true);
        Ok(Self {
            client: client_builder(relay)
                .connect_timeout(tuning.connect)
                .build()
                .context("the HTTP client for the relay cannot be set up")?,
            base: format!("{}/api/worker/v1", base.as_str().trim_end_matches('/')),
            bearer,
        })
    }

    /// Builds a request for a path below `/api/worker/v1`.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .header(AUTHORIZATION, self.bearer.clone())
    }
}

/// A refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// The relay's error code; `None` if something else answered.
    pub(crate) code: Option<ErrorCode>,
    pub(crate) problem: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) async fn read(response: Response) -> Self {
        let status = response.status();
        let seconds = response.headers().get(RETRY_AFTER);
        let retry_after = seconds
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_secs);
        let body = read_body(response, ERROR_MAX).await.unwrap_or_default();
        let detail = serde_json::from_slice::<ErrorBody>(&body).ok();
        let detail = detail.map(|body| body.error);
        Self {
            status,
            code: detail.as_ref().map(|detail| detail.code),
            problem: detail.map_or_else(|| format!("HTTP {status}"), |detail| detail.message),
            retry_after,
        }
    }

    /// Converts the refusal to the reason why the link ends.
    pub(crate) fn into_link_end(self) -> LinkEnd {
        let Self {
            status,
            code,
            problem,
            retry_after,
        } = self;
        match status.as_u16() {
            401 => LinkEnd::Unauthorized(problem),
            403 if code.is_some() => LinkEnd::Unauthorized(problem),
            400 if code == Some(ErrorCode::UnsupportedVersion) => LinkEnd::NotTheRelay(problem),
            503 if code == Some(ErrorCode::Draining) => LinkEnd::Restarting { after: retry_after },
            429 | 503 => LinkEnd::Later {
                after: retry_after,
                problem,
            },
            300..400 => LinkEnd::NotTheRelay(format!("it redirects, HTTP {status}")),
            // Sent by a proxy or a tunnel while the relay behind it is down.
            500 | 502 | 504 | 520..=530 => lost(problem),
            _ => LinkEnd::Blocked(problem),
        }
    }
}

/// Returns the end of a link that had reached a server.
pub(crate) fn lost(problem: impl Into<String>) -> LinkEnd {
    LinkEnd::Lost {
        reached: true,
        problem: problem.into(),
    }
}

/// Returns the end of a link whose request got no response.
pub(crate) fn unanswered(error: &reqwest::Error) -> LinkEnd {
    LinkEnd::Lost {
        reached: !error.is_connect(),
        problem: cause(error),
    }
}

/// Reads a body of at most `max` bytes. There is no limit of time while data keeps arriving.
pub(crate) async fn read_body(mut response: Response, max: usize) -> Result<Bytes, LinkEnd> {
    let mut body = BytesMut::new();
    loop {
        let chunk = timeout(STALLED, response.chunk()).await;
        let chunk = chunk.map_err(|_| lost("the relay's response ended early"))?;
        let Some(chunk) = chunk.map_err(|e| lost(cause(&e)))? else {
            return Ok(body.freeze());
        };
        if body.len() + chunk.len() > max {
            return Err(LinkEnd::NotTheRelay("its answer is too long".into()));
        }
        body.extend_from_slice(&chunk);
    }
}
