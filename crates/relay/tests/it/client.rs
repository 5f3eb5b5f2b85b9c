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

use crate::within;

/// A requester with one key, or none.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) base: String,
    pub(crate) key: Option<String>,
    http: Hyper<HttpConnector, Full<Bytes>>,
}

/// An answer whose body may still be coming.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
}

impl Client {
    pub(crate) fn new(base: String, key: Option<String>) -> Self {
        // No pool: dropping an answer closes its connection, as a requester who leaves does.
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
        let (head, body) = within(self.http.request(request))
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
    /// The next HTTP chunk; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> Option<String> {
        let frame = within(self.body.frame()).await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    }

    /// Waits until it is broken off; what comes before that is not looked at.
    pub(crate) async fn broken_off(mut self) {
        while within(self.body.frame())
            .await
            .expect("it must not end as if it were whole")
            .is_ok()
        {}
    }

    /// The whole rest.
    pub(crate) async fn text(self) -> String {
        let bytes = within(self.body.collect()).await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    pub(crate) async fn json(self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a poll brought; nothing is no content.
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
