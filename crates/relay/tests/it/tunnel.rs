//! The tunnel of the tunnel service: a scripted desktop on a WebSocket.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_relay::RelaySettings;
use http::StatusCode;
use queue::{Keys as _, Owner, Queue as _, Role, Scope};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::{
    bridge::{WHOLE, asked},
    client::Client,
    gated::Gated,
    in_time,
    people::{client_of, user},
    server::Server,
    worker::{CHAT_DONE, Scripted, chat},
};

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#;
const JOB: &str = r#"{"op":"chat","body":{"model":"m"}}"#;

/// A desktop with an open tunnel.
pub(crate) struct Desktop(WebSocketStream<TcpStream>);

impl Desktop {
    async fn of(server: &Server) -> Self {
        let key = server.key("default", &[Scope::Work]).await;
        Self::dial(server, &format!("?token={key}"), &[])
            .await
            .unwrap()
    }

    pub(crate) async fn dial(
        server: &Server,
        query: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Error> {
        let mut request = format!("ws://{}/ws/tunnel{query}", server.address)
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let headers = request.headers_mut();
            headers.insert(*name, value.parse().unwrap());
        }
        let tcp = TcpStream::connect(server.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (socket, _) = in_time(client_async(request, tcp)).await?;
        Ok(Self(socket))
    }

    pub(crate) async fn say(&mut self, message: &Value) {
        let text = Message::text(message.to_string());
        self.0.send(text).await.unwrap();
    }

    pub(crate) async fn frame(&mut self) -> Message {
        loop {
            let message = in_time(self.0.next()).await.unwrap().unwrap();
            if !message.is_ping() && !message.is_pong() {
                return message;
            }
        }
    }

    async fn hear(&mut self) -> Value {
        let text = self.frame().await.into_text().unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Waits for a request.
    async fn request(&mut self) -> Value {
        let request = self.hear().await;
        assert_eq!(request["type"], "http_request");
        request
    }

    async fn answer(&mut self, request: &Value, status: u16, body: &str) {
        self.say(
            &json!({"type": "http_response", "id": request["id"], "status": status,
            "headers": {}, "body": body}),
        )
        .await;
    }

    /// Waits for the close frame; returns its code and reason.
    async fn closed(&mut self) -> (u16, String) {
        let message = self.frame().await;
        let Message::Close(Some(frame)) = message else {
            panic!("{message:?}")
        };
        (frame.code.into(), frame.reason.as_str().to_owned())
    }
}

#[tokio::test]
async fn a_desktop_answers_chats_and_embeds_through_its_tunnel() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let collected = format!("{}\n{CHAT_DONE}\n", chat("a"));
    let embedded = r#"{"model":"m","embeddings":[[0.10,-1e-7]]}"#;
    for (path, body, answer) in [
        ("/api/chat", CHAT, collected.as_str()),
        ("/api/chat", WHOLE, CHAT_DONE),
        ("/api/embed", r#"{"model":"m","input":"x"}"#, embedded),
    ] {
        server.until(|counts| counts.leased == 0).await;
        let asked = asked(&requester, path, body);
        let request = desktop.request().await;
        let want = json!({"type": "http_request", "id": request["id"], "method": "POST",
            "path": path, "headers": {"content-type": "application/json"}, "body": body});
        assert_eq!(request, want, "byte for byte");
        desktop.answer(&request, 200, answer).await;
        assert_eq!(asked.await.unwrap().text().await, answer, "{path}");
    }
}

#[tokio::test]
async fn errors_of_both_kinds_reach_the_requester() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let first = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.request().await;
    let said = r#"{"error":"model 'm' not found"}"#;
    desktop.answer(&request, 404, said).await;
    let reply = first.await.unwrap();
    assert_eq!(
        (reply.status, reply.text().await.as_str()),
        (StatusCode::NOT_FOUND, said)
    );

    let second = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.request().await;
    desktop
        .say(&json!({"type": "error", "id": request["id"], "error": "no such option", "code": 400}))
        .await;
    let reply = second.await.unwrap();
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json().await["error"], "no such option");
}

#[tokio::test]
async fn a_job_whose_desktop_disconnects_goes_to_another_worker() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let job = requester.post("/api/jobs", JOB).await.json().await;
    let request = desktop.request().await;
    assert_eq!(request["id"], job["id"]);
    drop(desktop);
    let mut worker = Scripted::ready(&server).await;
    let lease = worker.lease().await;
    assert_eq!(lease.token().attempt, 2);
    worker.answer(&lease, &["a"]).await;
}

#[tokio::test]
async fn a_token_is_taken_from_the_query_a_header_or_the_subprotocol() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Work]).await;
    user(&*server.store, "jan", Role::Service, "default").await;
    let jan = client_of(&server.nobody(), "jan").await.key.unwrap();
    for token in [&key, &jan] {
        let bearer = format!("Bearer {token}");
        for (query, headers) in [
            (format!("?token={token}"), vec![]),
            (format!("/?client=1&token={token}"), vec![]),
            (String::new(), vec![("authorization", bearer.as_str())]),
            (
                format!("?token={token}"),
                vec![("authorization", "Bearer x")],
            ),
        ] {
            let mut desktop = Desktop::dial(&server, &query, &headers).await.unwrap();
            let ping = json!({"type": "ping", "id": "a", "timestamp": "now"});
            desktop.say(&ping).await;
            assert_eq!(desktop.hear().await["type"], "pong");
        }
    }
    // No subprotocol is chosen, which clients of the library used here do not accept.
    let told = upgraded(&server, &format!("chat, token-{key}")).await;
    assert!(told.starts_with("HTTP/1.1 101 "), "{told}");
    assert!(!told.contains("sec-websocket-protocol"), "{told}");
}

/// Returns the head of the response to an upgrade with these subprotocols.
async fn upgraded(server: &Server, subprotocols: &str) -> String {
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "GET /ws/tunnel HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: {subprotocols}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 1024];
    let read = in_time(socket.read(&mut told)).await.unwrap();
    String::from_utf8_lossy(&told[..read]).into_owned()
}

#[tokio::test]
async fn a_credential_that_is_not_accepted_is_told_with_4001_after_the_upgrade() {
    let mut settings = RelaySettings::default();
    settings.failures_per_minute = 0;
    let server = Server::with(settings).await;
    let reader = server.key("default", &[Scope::Read]).await;
    for (query, reason) in [
        (String::new(), "Authentication required"),
        ("?token=".to_owned(), "Invalid token"),
        ("?token=sk-anything".to_owned(), "Invalid token"),
        ("?token=a%0Ab".to_owned(), "Invalid token"),
        (format!("?token={reader}"), "Authentication failed"),
    ] {
        let mut desktop = Desktop::dial(&server, &query, &[]).await.unwrap();
        assert_eq!(desktop.closed().await, (4001, reason.to_owned()), "{query}");
    }
    // Whoever asks without an upgrade is told by the status.
    let nobody = server.nobody();
    let refused = nobody.get("/ws/tunnel").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let key = server.key("default", &[Scope::Work]).await;
    let reply = nobody.get(&format!("/ws/tunnel?token={key}")).await;
    assert_eq!(reply.header("x-hearth-error"), "bad_request");
}

#[tokio::test]
async fn a_token_in_the_query_opens_no_other_route() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Work, Scope::Read]).await;
    let nobody = server.nobody();
    for path in [
        "/api/tags?token=",
        "/api/bridge/x/poll?token=",
        "/api/worker/v1?token=",
        "/ws/tunnel/x?token=",
        "/ws?token=",
        "/ws/tunnel?access_token=",
        "/ws/tunnel?key=",
    ] {
        let reply = nobody.get(&format!("{path}{key}")).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{path}");
        assert_eq!(reply.header("x-hearth-error"), "token_in_url", "{path}");
        assert!(!reply.text().await.contains(&key), "{path}");
    }
    let in_path = format!("{}/k/{key}", server.base());
    let refused = Client::new(in_path, None).get("/ws/tunnel").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_web_page_opens_no_tunnel_whatever_it_shows() {
    let server = Server::start().await;
    let key = server.key("default", &[Scope::Work]).await;
    let own = server.base();
    for origin in ["https://evil.example", "null", own.as_str()] {
        let query = format!("?token={key}");
        let dialled = Desktop::dial(&server, &query, &[("origin", origin)]).await;
        let Err(Error::Http(refused)) = dialled else {
            panic!("{origin} was let in")
        };
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert_eq!(refused.headers()["x-hearth-error"], "forbidden_origin");
    }
}

#[tokio::test]
async fn a_ping_is_answered_with_its_id_and_a_time_that_the_strictest_client_reads() {
    let server = Server::start().await;
    let mut desktop = Desktop::of(&server).await;
    for time in [json!("2025-10-30T12:00:00.000123"), json!(7), Value::Null] {
        let ping = json!({"type": "ping", "id": "ping-7", "timestamp": time});
        desktop.say(&ping).await;
        let pong = desktop.hear().await;
        assert_eq!(
            (&pong["type"], &pong["id"]),
            (&"pong".into(), &"ping-7".into())
        );
        let time = pong["timestamp"].as_str().unwrap();
        assert_eq!(
            (time.len(), &time[19..20], &time[23..]),
            (24, ".", "Z"),
            "{time}"
        );
    }
    for nonsense in [
        "sing",
        "[]",
        r#"{"type":"pong"}"#,
        r#"{"type":"later","id":"x"}"#,
    ] {
        desktop.0.send(Message::text(nonsense)).await.unwrap();
    }
    desktop.0.send(Message::binary(vec![7])).await.unwrap();
    desktop.say(&json!({"type": "ping", "id": "last"})).await;
    assert_eq!(desktop.hear().await["id"], "last", "it goes on");
}

#[tokio::test]
async fn an_answer_to_another_request_changes_nothing() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let asked = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.request().await;
    let id = request["id"].as_str().unwrap();
    for other in [format!("{id}-2"), "0".repeat(32), "x".to_owned()] {
        desktop.answer(&json!({"id": other}), 500, "it broke").await;
    }
    desktop.answer(&request, 200, CHAT_DONE).await;
    desktop.answer(&request, 500, "it broke").await;
    assert_eq!(asked.await.unwrap().text().await, CHAT_DONE);
}

#[tokio::test]
async fn a_message_that_is_too_large_fails_its_job_for_good() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let asked = asked(&requester, "/api/chat", WHOLE);
    let request = desktop.request().await;
    let large = "x".repeat(2 * proto::limits::LINE_MAX);
    let text = json!({"type": "http_response", "id": request["id"], "status": 200, "body": large});
    // The relay may close the connection before everything is sent.
    let _ = desktop.0.send(Message::text(text.to_string())).await;
    let reply = asked.await.unwrap();
    assert_eq!(reply.header("x-hearth-error"), "too_large");
}

#[tokio::test]
async fn a_revoked_key_loses_its_tunnel_and_its_job_goes_to_another() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    let server = Server::with(settings).await;
    let mut desktop = Desktop::of(&server).await;
    let requester = server.requester().await;
    requester.post("/api/jobs", JOB).await;
    desktop.request().await;
    let now = proto::Timestamp(1);
    assert!(server.store.revoke_key(now, "key-0").await.unwrap());
    assert_eq!(desktop.closed().await, (4001, "Invalid token".to_owned()));
    let mut worker = Scripted::ready(&server).await;
    assert_eq!(worker.lease().await.token().attempt, 2);
}

#[tokio::test]
async fn a_tunnel_that_ends_while_its_answer_is_stored_gives_the_job_back() {
    let mut settings = RelaySettings::default();
    settings.key_check = Duration::from_millis(20);
    // No end of a job is written.
    let gated = Gated::new(99, 0);
    let server = Server::beside(gated.clone(), gated.inner.clone(), settings).await;
    let mut desktop = Desktop::of(&server).await;
    let requester = server.requester().await;
    let job = requester.post("/api/jobs", JOB).await.json().await;
    let request = desktop.request().await;
    desktop.answer(&request, 200, CHAT_DONE).await;
    let id = job["id"].as_str().unwrap().parse().unwrap();
    let log = server.store.log(Owner::Anyone, id).await.unwrap().unwrap();
    let mut head = log.head();
    in_time(head.wait_for(|head| head.last.n > 0))
        .await
        .unwrap();
    let now = proto::Timestamp(1);
    assert!(server.store.revoke_key(now, "key-0").await.unwrap());
    assert_eq!(desktop.closed().await.0, 4001);
    let mut worker = Scripted::ready(&server).await;
    assert_eq!(worker.lease().await.token().attempt, 2);
}

#[tokio::test]
async fn a_relay_that_stops_waits_for_the_answer_of_a_tunnel() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let mut desktop = Desktop::of(&server).await;
    let mut idle = Desktop::of(&server).await;
    let job = requester.post("/api/jobs", JOB).await.json().await;
    let path = format!("/api/jobs/{}/events", job["id"].as_str().unwrap());
    let following = tokio::spawn(async move { requester.get(&path).await });
    let (mut busy, mut other) = tokio::select! {
        request = desktop.request() => ((desktop, request), idle),
        request = idle.request() => ((idle, request), desktop),
    };
    server.begin_stop();
    assert_eq!(other.closed().await.0, 1012);
    busy.0.answer(&busy.1, 200, CHAT_DONE).await;
    assert_eq!(busy.0.closed().await.0, 1012);
    server.ended().await.unwrap();
    let events = following.await.unwrap().text().await;
    assert!(events.contains("completed"), "{events}");
}

#[tokio::test]
async fn a_tunnel_is_a_worker_that_runs_any_model_of_its_accounts() {
    let server = Server::start().await;
    let requester = server.requester().await;
    let none = requester.post("/api/chat", WHOLE).await;
    assert_eq!(none.header("x-hearth-error"), "no_worker");
    let mut desktop = Desktop::of(&server).await;
    let stranger = server.client("other", &[Scope::Enqueue]).await;
    stranger.post("/api/jobs", JOB).await;
    let mine = requester.post("/api/jobs", JOB).await.json().await;
    assert_eq!(desktop.request().await["id"], mine["id"]);
    let admin = server.client("default", &[Scope::Admin]).await;
    let overview = admin.get("/api/admin/overview").await.json().await;
    assert_eq!(overview["workers"][0]["carrier"], "websocket");
    let name = overview["workers"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("tunnel-"), "{name}");
}

#[tokio::test]
async fn a_desktop_that_closes_its_tunnel_is_answered() {
    let server = Server::start().await;
    let mut desktop = Desktop::of(&server).await;
    desktop.0.close(None).await.unwrap();
    assert!(desktop.frame().await.is_close());
}

#[tokio::test]
async fn a_desktop_that_breaks_a_rule_of_websocket_is_told_which() {
    let server = Server::start().await;
    // Reserved bits, and a text that is not UTF-8, both masked with zeros.
    let broken: [(&[u8], u16); 2] = [
        (&[0xf1, 0x80, 0, 0, 0, 0], 1002),
        (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007),
    ];
    for (frame, code) in broken {
        let mut desktop = Desktop::of(&server).await;
        // More follows, as from a program that knows nothing of its mistake.
        let sent = [frame, &[0; 4096]].concat();
        desktop.0.get_mut().write_all(&sent).await.unwrap();
        assert_eq!(desktop.closed().await.0, code);
    }
}
