//! Webhooks, delivered to a real receiver that the operator allows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hearth_relay::{RelaySettings, SystemWorld, World};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{Method, StatusCode};
use proto::Timestamp;
use serde_json::Value;
use sha2::Sha256;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{client::Client, in_time, server::Server, worker::Scripted};

/// A receiver whose answers the test chooses.
pub(crate) struct Receiver(pub(crate) TcpListener);

pub(crate) struct Message {
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Returns settings that allow webhooks to this receiver, with short pauses.
    fn settings(&self) -> RelaySettings {
        let mut settings = RelaySettings::default();
        let allowed = format!("127.0.0.1:{}", self.port());
        settings.webhook_allow = vec![allowed.parse().unwrap()];
        settings.webhook_pauses = vec![Duration::from_millis(1); 7];
        settings
    }

    /// Receives one request and answers it.
    async fn hear(&self, answer: &str) -> Message {
        self.hear_at("/hook?a=b", answer).await
    }

    pub(crate) async fn hear_at(&self, target: &str, answer: &str) -> Message {
        let (mut socket, _) = in_time(self.0.accept()).await.unwrap();
        let mut bytes = Vec::new();
        let (head, length) = loop {
            let mut part = [0; 4096];
            let n = in_time(socket.read(&mut part)).await.unwrap();
            assert!(n > 0, "the request broke off");
            bytes.extend_from_slice(&part[..n]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.parse::<usize>().unwrap())
                });
                let length = length.unwrap_or(0);
                if body.len() >= length {
                    break (text.clone(), length);
                }
            }
        };
        let answer = format!("HTTP/1.1 {answer}\r\nconnection: close\r\n\r\n");
        socket.write_all(answer.as_bytes()).await.unwrap();
        let (head, body) = head.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("POST {target} HTTP/1.1")),
            "{head}"
        );
        let headers = head.lines().skip(1).map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_lowercase(), value.to_owned())
        });
        Message {
            headers: headers.collect(),
            body: body[..length].to_owned(),
        }
    }
}

impl Message {
    /// Verifies the signature as a receiver does.
    fn is_signed_with(&self, secret: &str) -> bool {
        let secret = STANDARD
            .decode(secret.strip_prefix("whsec_").unwrap())
            .unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).unwrap();
        let (id, at) = (
            &self.headers["webhook-id"],
            &self.headers["webhook-timestamp"],
        );
        mac.update(format!("{id}.{at}.{}", self.body).as_bytes());
        let signature = STANDARD.encode(mac.finalize().into_bytes());
        self.headers["webhook-signature"] == format!("v1,{signature}")
    }
}

fn job(webhook: &Value) -> String {
    serde_json::json!({
        "op": "chat",
        "body": {"model": "m", "messages": [{"role": "user", "content": "a secret question"}]},
        "webhook": webhook,
    })
    .to_string()
}

async fn submit(client: &Client, webhook: &Value) -> Value {
    let reply = client.post("/api/jobs", job(webhook)).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    reply.json().await
}

/// Waits until the webhook is no longer pending.
async fn settled(client: &Client, id: &str) -> Value {
    in_time(async {
        loop {
            let job = client.get(&format!("/api/jobs/{id}")).await.json().await;
            if job["webhook"]["state"] != "waiting" {
                return job["webhook"].clone();
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// A machine whose wall clock was set since the relay started.
#[derive(Debug)]
struct Stepped;

impl World for Stepped {
    fn now(&self) -> Timestamp {
        SystemWorld.now()
    }

    fn random(&self) -> std::io::Result<[u8; 32]> {
        SystemWorld.random()
    }

    fn wall(&self) -> Timestamp {
        Timestamp(1_900_000_000_999)
    }
}

#[tokio::test]
async fn a_webhook_is_signed_with_the_time_on_the_wall() {
    let receiver = Receiver::start().await;
    let server = Server::in_world(Arc::new(Stepped), receiver.settings()).await;
    let client = server.requester().await;
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
    let made = submit(&client, &serde_json::json!({"url": url})).await;
    let secret = made["webhook"]["secret"].as_str().unwrap();
    let path = format!("/api/jobs/{}", made["id"].as_str().unwrap());
    client.send(Method::DELETE, &path, "").await;
    let message = receiver.hear("204 No Content").await;
    assert_eq!(message.headers["webhook-timestamp"], "1900000000");
    assert!(message.is_signed_with(secret));
}

#[tokio::test]
async fn the_end_of_a_job_is_told_signed_and_without_its_words() {
    let receiver = Receiver::start().await;
    let server = Server::with(receiver.settings()).await;
    let client = server.requester().await;
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
    let made = submit(&client, &serde_json::json!({"url": url})).await;
    let secret = made["webhook"]["secret"].as_str().unwrap();
    assert!(secret.starts_with("whsec_"));
    let id = made["id"].as_str().unwrap();
    let seen = client.get(&format!("/api/jobs/{id}")).await.json().await;
    assert_eq!(
        seen["webhook"],
        serde_json::json!({"state": "waiting", "tries": 0}),
        "the secret is shown once, the URL never"
    );

    let mut worker = Scripted::ready(&server).await;
    let leased = worker.lease().await;
    worker.answer(&leased, &["a secret answer"]).await;
    let message = receiver.hear("204 No Content").await;
    assert!(message.is_signed_with(secret), "{:?}", message.headers);
    assert_eq!(message.headers["webhook-id"], format!("msg_{id}"));
    assert_eq!(message.headers["content-type"], "application/json");
    let told: Value = serde_json::from_str(&message.body).unwrap();
    assert_eq!(
        (&told["id"], &told["state"]),
        (&made["id"], &"completed".into())
    );
    assert!(!message.body.contains("secret"), "{}", message.body);
    let settled = settled(&client, id).await;
    assert_eq!(
        settled,
        serde_json::json!({"state": "delivered", "tries": 1})
    );
}

#[tokio::test]
async fn a_receiver_that_fails_is_tried_eight_times_with_one_id() {
    let receiver = Receiver::start().await;
    let server = Server::with(receiver.settings()).await;
    let client = server.requester().await;
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let hook = serde_json::json!({"url": url, "secret": secret});
    let made = submit(&client, &hook).await;
    assert!(made["webhook"]["secret"].is_null(), "it is known already");
    let id = made["id"].as_str().unwrap();
    client
        .send(http::Method::DELETE, &format!("/api/jobs/{id}"), "")
        .await;
    let answers = [
        "500 Oops",
        "302 Found\r\nlocation: http://127.0.0.1:1/",
        "429 Slow",
        "404 No",
    ];
    for n in 0..8 {
        let message = receiver.hear(answers[n % answers.len()]).await;
        assert!(message.is_signed_with(secret));
        assert_eq!(message.headers["webhook-id"], format!("msg_{id}"));
        assert!(message.body.contains(r#""state":"cancelled""#));
    }
    let settled = settled(&client, id).await;
    assert_eq!(
        (&settled["state"], &settled["tries"], &settled["error"]),
        (
            &"given_up".into(),
            &8.into(),
            &"the receiver answered 404".into()
        )
    );
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_not_tried_again() {
    let receiver = Receiver::start().await;
    let server = Server::with(receiver.settings()).await;
    let client = server.requester().await;
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
    let made = submit(&client, &serde_json::json!({"url": url})).await;
    let id = made["id"].as_str().unwrap();
    client
        .send(http::Method::DELETE, &format!("/api/jobs/{id}"), "")
        .await;
    receiver.hear("410 Gone").await;
    assert_eq!(settled(&client, id).await["state"], "given_up");
}

#[tokio::test]
async fn what_was_to_be_told_is_told_after_a_restart() {
    let receiver = Receiver::start().await;
    let mut patient = receiver.settings();
    patient.webhook_pauses = vec![Duration::ZERO; 7];
    let server = Server::with(receiver.settings()).await;
    let client = server.requester().await;
    let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
    let made = submit(&client, &serde_json::json!({"url": url})).await;
    let id = made["id"].as_str().unwrap().to_owned();
    let (store, key) = (server.store.clone(), client.key.clone());
    server.stop().await.unwrap();
    store.restart(SystemWorld.now());

    let server = Server::over(store, patient).await;
    let client = Client::new(server.base(), key);
    client
        .send(http::Method::DELETE, &format!("/api/jobs/{id}"), "")
        .await;
    let message = receiver.hear("200 OK").await;
    assert_eq!(message.headers["webhook-id"], format!("msg_{id}"));
    assert_eq!(settled(&client, &id).await["state"], "delivered");
}

#[tokio::test]
async fn a_webhook_that_leads_inside_or_cannot_be_read_refuses_the_job() {
    let server = Server::start().await;
    let client = server.requester().await;
    for url in [
        "http://127.0.0.1:1/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://[::ffff:169.254.169.254]/",
        "https://u:p@example.org/",
        "nonsense",
    ] {
        let refused = client
            .post("/api/jobs", job(&serde_json::json!({"url": url})))
            .await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{url}");
        assert_eq!(refused.header("x-hearth-error"), "bad_request");
    }
    for secret in ["", "short", "whsec_AAAA"] {
        let hook = serde_json::json!({"url": "https://example.org", "secret": secret});
        let refused = client.post("/api/jobs", job(&hook)).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{secret}");
    }
    let extra = serde_json::json!({"url": "https://example.org", "method": "PUT"});
    let refused = client.post("/api/jobs", job(&extra)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let list = client.get("/api/jobs").await.json().await;
    assert_eq!(list, serde_json::json!([]));
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_up_nobody_elses_webhooks() {
    let (deaf, hearing) = (Receiver::start().await, Receiver::start().await);
    let mut settings = hearing.settings();
    let deaf_too = format!("127.0.0.1:{}", deaf.port());
    settings.webhook_allow.push(deaf_too.parse().unwrap());
    let server = Server::with(settings).await;
    let scopes = [queue::Scope::Enqueue, queue::Scope::Read];
    let ends = async |client: &Client, receiver: &Receiver| {
        let url = format!("http://127.0.0.1:{}/hook?a=b", receiver.port());
        let made = submit(client, &serde_json::json!({"url": url})).await;
        let path = format!("/api/jobs/{}", made["id"].as_str().unwrap());
        client.send(Method::DELETE, &path, "").await;
    };
    let busy = server.client("busy", &scopes).await;
    for _ in 0..150 {
        ends(&busy, &deaf).await;
    }
    let other = server.client("other", &scopes).await;
    ends(&other, &hearing).await;
    hearing.hear("200 OK").await;
}
