//! Requests through proxies that are trusted, and through ones that are not.

use std::{sync::Arc, time::Duration};

use hearth_relay::{Relay, RelaySettings, SystemWorld};
use http::Method;
use proto::Timestamp;
use queue::{Keys as _, MemoryQueue, Scope};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::{client::Client, in_time, server::Server};

const BAD: &str = "hearth_00112233aabb_0_0";

async fn told(client: &Client, forwarded: &[&str]) -> u16 {
    let headers: Vec<_> = forwarded
        .iter()
        .map(|value| ("x-forwarded-for", *value))
        .collect();
    let reply = client
        .send_with(Method::GET, "/api/tags", &headers, "")
        .await;
    reply.status.as_u16()
}

#[tokio::test]
async fn behind_a_proxy_each_client_fails_for_himself_whatever_he_writes() {
    let mut settings = RelaySettings::default();
    settings.behind_proxy = vec!["127.0.0.0/8".parse().unwrap()];
    let server = Server::with(settings).await;
    let bad = Client::new(server.base(), Some(BAD.into()));
    for _ in 0..5 {
        assert_eq!(told(&bad, &["203.0.113.9"]).await, 401);
    }
    for forwarded in [
        &["203.0.113.9"][..],
        &["198.51.100.7, 203.0.113.9"],
        &["198.51.100.7", "203.0.113.9"],
        &["::ffff:203.0.113.9"],
        &["198.51.100.7, 203.0.113.9, 127.0.0.2"],
        &["203.0.113.9:4711"],
    ] {
        assert_eq!(told(&bad, forwarded).await, 429, "{forwarded:?}");
    }
    assert_eq!(told(&bad, &["198.51.100.7"]).await, 401, "another client");
    let good = server.key("default", &[Scope::Read]).await;
    let good = Client::new(server.base(), Some(good));
    assert_eq!(
        told(&good, &["203.0.113.9"]).await,
        200,
        "no neighbour suffers"
    );
}

#[tokio::test]
async fn without_a_listed_proxy_no_header_makes_another_client() {
    for listed in [vec![], vec!["10.0.0.0/8".parse().unwrap()]] {
        let mut settings = RelaySettings::default();
        settings.behind_proxy = listed;
        let server = Server::with(settings).await;
        let bad = Client::new(server.base(), Some(BAD.into()));
        let mut answers = Vec::new();
        for n in 0..20 {
            answers.push(told(&bad, &[&format!("203.0.113.{n}")]).await);
        }
        assert_eq!(answers[..5], [401; 5]);
        assert_eq!(answers[5..], [429; 15]);
    }
}

async fn list_url(server: &Server, proto: &str) -> String {
    let client = server
        .client("default", &[Scope::Enqueue, Scope::Read])
        .await;
    for _ in 0..51 {
        let query = r#"{"query_text":"x","project":1}"#;
        assert_eq!(client.post("/api/queries/", query).await.status, 201);
    }
    let headers = [("x-forwarded-proto", proto), ("host", "relay.example")];
    let list = client
        .send_with(Method::GET, "/api/queries/", &headers, "")
        .await;
    list.json().await["next"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_relay_calls_itself_as_its_clients_do() {
    let mut settings = RelaySettings::default();
    let server = Server::with(settings.clone()).await;
    let url = list_url(&server, "https").await;
    assert_eq!(
        url, "http://relay.example/api/queries/?page=2",
        "who says https?"
    );
    settings.behind_proxy = vec!["127.0.0.1".parse().unwrap()];
    let server = Server::with(settings.clone()).await;
    let url = list_url(&server, "https").await;
    assert_eq!(url, "https://relay.example/api/queries/?page=2");
    settings.public_url = Some("https://hearth.example/llm".parse().unwrap());
    let server = Server::with(settings).await;
    let url = list_url(&server, "http").await;
    assert_eq!(url, "https://hearth.example/llm/api/queries/?page=2");
}

#[tokio::test]
async fn a_public_address_is_served_only_behind_a_proxy() {
    let start = |address: &'static str, proxies: &[&str]| {
        let mut settings = RelaySettings::default();
        settings.behind_proxy = proxies.iter().map(|text| text.parse().unwrap()).collect();
        async move {
            let store = Arc::new(MemoryQueue::default());
            let for_ = hearth_relay::keys::KeyFor {
                name: "k".into(),
                account: proto::Account::new("a").unwrap(),
                scopes: [].into(),
                serve: queue::Serve::All,
                ceiling: queue::Ceiling::default(),
                expires_at: None,
            };
            let (_, record) = hearth_relay::keys::mint(for_, [1; 6], [1; 32], Timestamp(0));
            store.create_key(record).await.unwrap();
            let relay = Relay::new(store, settings, Arc::new(SystemWorld));
            let listener = TcpListener::bind(address).await.unwrap();
            let stop = CancellationToken::new();
            stop.cancel();
            in_time(hearth_relay::serve(listener, relay, stop)).await
        }
    };
    for (address, proxies, is_served) in [
        ("127.0.0.1:0", &[][..], true),
        ("[::1]:0", &[], true),
        ("0.0.0.0:0", &[], false),
        ("[::]:0", &[], false),
        ("0.0.0.0:0", &["10.0.0.1"], true),
        ("127.0.0.1:0", &["127.0.0.1"], true),
    ] {
        let served = start(address, proxies).await;
        assert_eq!(served.is_ok(), is_served, "{address} {proxies:?}");
    }
}

#[tokio::test]
async fn only_so_many_slow_bodies_without_a_key_arrive_from_a_client_of_a_proxy() {
    let mut settings = RelaySettings::default();
    settings.behind_proxy = vec!["127.0.0.1".parse().unwrap()];
    settings.connections_per_address = Some(2);
    settings.body_patience = Duration::from_secs(60);
    let server = Server::with(settings).await;
    let key = server.key("default", &[Scope::Enqueue, Scope::Read]).await;
    let good = Client::new(server.base(), Some(key));
    let login = async |client: &str| {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST /api/login/ HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {client}\r\n\
             expect: 100-continue\r\ncontent-length: 99\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = answer_of(&mut socket).await;
        (socket, answer)
    };
    let mut slow = Vec::new();
    for _ in 0..2 {
        let (socket, answer) = login("203.0.113.9").await;
        assert!(answer.starts_with("HTTP/1.1 100"), "{answer}");
        slow.push(socket);
    }
    let (_, answer) = login("203.0.113.9").await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    assert!(answer.contains("too_many_connections"), "{answer}");
    // Another client, and who shows a key, is served.
    let (mut other, _) = login("203.0.113.8").await;
    other.write_all(&[b' '; 99]).await.unwrap();
    let answer = answer_of(&mut other).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let headers = [("x-forwarded-for", "203.0.113.9")];
    let body = r#"{"model":"m","messages":[]}"#;
    let with_key = good
        .send_with(Method::POST, "/api/show", &headers, body)
        .await;
    assert_ne!(with_key.status.as_u16(), 429);
    drop(slow);
}

async fn answer_of(socket: &mut TcpStream) -> String {
    let mut answer = [0; 4096];
    let read = in_time(socket.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}
