//! An HTTP client for tests, which reads responses chunk by chunk.

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};
use proto::worker::PollAnswer;
use serde_json::Value;

use crate::in_time;

/// An HTTP client with one key, or none.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) base: String,
    pub(crate) key: Option<String>,
    http: Hyper<HttpConnector, Full<Bytes>>,
}

/// A response whose body may still be arriving.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl Client {
    pub(crate) fn new(base: String, key: Option<String>) -> Self {
        // No connection pool: dropping a response closes its connection, like a client that
        // disconnects.
        let http = Hyper::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build_http();
        Self { base, key, http }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, "").await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send_with(method, path, &[], body).await
    }

    pub(crate) async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (head, body) = in_time(self.http.request(request))
            .await
            .unwrap()
            .into_parts();
        Reply {
            status: head.status,
            headers: head.headers,
            body,
        }
    }
}

impl Reply {
    /// Returns the next HTTP chunk; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let frame = in_time(self.body.frame()).await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// Waits until the body is broken off, and ignores the chunks before that.
    pub(crate) async fn broken_off(mut self) {
        while in_time(self.body.frame())
            .await
            .expect("it must not end as if it were whole")
            .is_ok()
        {}
    }

    /// Reads the rest of the body.
    pub(crate) async fn text(self) -> String {
        let bytes = in_time(self.body.collect()).await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Parses the response to a poll; status 204 is an empty answer.
    pub(crate) async fn polled(self) -> PollAnswer {
        if self.status == StatusCode::NO_CONTENT {
            assert_eq!(self.text().await, "");
            return PollAnswer::default();
        }
        assert_eq!(self.status, StatusCode::OK);
        let answer = serde_json::from_value(self.json().await).unwrap();
        assert_ne!(answer, PollAnswer::default(), "it says nothing");
        answer
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}
