//! The relay's own TLS, with certificates generated here.

use std::{path::Path, sync::Arc, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use hearth_relay::{RelaySettings, TlsFiles};
use http::StatusCode;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use proto::{
    WorkerId,
    worker::{RelayMessage, SUBPROTOCOL, WorkerMessage},
};
use queue::Scope;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{in_time, server::Server, worker::report};

/// Writes a self-signed certificate for a name to files.
fn certify(folder: &Path, name: &str) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let files = TlsFiles {
        cert: folder.join("cert.pem"),
        key: folder.join("key.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

async fn served(files: TlsFiles, patience: Duration) -> Server {
    let mut settings = RelaySettings::default();
    settings.tls = Some(files);
    settings.tls_patience = patience;
    Server::with(settings).await
}

async fn dial(
    server: &Server,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server.address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("localhost").unwrap();
    in_time(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_request_over_tls_is_answered_and_told_to_stay_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (files, cert) = certify(folder.path(), "localhost");
    let server = served(files, LONG).await;
    let key = server.key("default", &[Scope::Read]).await;
    let stream = dial(&server, &cert).await.unwrap();
    let (mut http, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("/api/tags")
        .header("host", "localhost")
        .header("authorization", format!("Bearer {key}"));
    let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
    let reply = in_time(http.send_request(request)).await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let lasting = &reply.headers()["strict-transport-security"];
    assert_eq!(lasting, "max-age=31536000");
    let body = in_time(reply.into_body().collect()).await.unwrap();
    assert_eq!(body.to_bytes(), r#"{"models":[]}"#);
    connection.abort();

    let plain = Server::start().await;
    let reply = plain.nobody().get("/healthz").await;
    assert_eq!(reply.header("strict-transport-security"), "");
}

#[tokio::test]
async fn a_worker_connects_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (files, cert) = certify(folder.path(), "localhost");
    let server = served(files, LONG).await;
    let key = server.key("default", &[Scope::Work]).await;
    let mut request = "wss://localhost/api/worker/v1"
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let stream = dial(&server, &cert).await.unwrap();
    let (mut socket, _) = in_time(client_async(request, stream)).await.unwrap();
    let hello = WorkerMessage::Hello {
        worker: WorkerId::new("w").unwrap(),
        version: "0".into(),
        report: report(&["m"]),
        held: vec![],
    };
    let hello = Message::text(serde_json::to_string(&hello).unwrap());
    socket.send(hello).await.unwrap();
    let welcome = in_time(socket.next()).await.unwrap().unwrap();
    let welcome = serde_json::from_str(&welcome.into_text().unwrap()).unwrap();
    assert!(
        matches!(welcome, RelayMessage::Welcome { .. }),
        "{welcome:?}"
    );
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_relay_runs_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = certify(folder.path(), "localhost");
    let server = served(files.clone(), LONG).await;
    assert!(dial(&server, &first).await.is_ok());
    let (_, second) = certify(folder.path(), "localhost");
    assert!(dial(&server, &second).await.is_ok(), "the new one");
    assert!(dial(&server, &first).await.is_err(), "and it alone");
    // After each of these changes the previous certificate stays in use.
    let (cert, key) = (
        std::fs::read(&files.cert).unwrap(),
        std::fs::read(&files.key).unwrap(),
    );
    certify(folder.path(), "localhost");
    std::fs::write(&files.cert, &cert).unwrap();
    assert!(dial(&server, &second).await.is_ok(), "a key of another");
    std::fs::write(&files.cert, "not a certificate").unwrap();
    assert!(dial(&server, &second).await.is_ok(), "no certificate");
    std::fs::remove_file(&files.key).unwrap();
    assert!(dial(&server, &second).await.is_ok(), "no key");
    std::fs::write(&files.cert, &cert).unwrap();
    std::fs::write(&files.key, &key).unwrap();
    assert!(dial(&server, &second).await.is_ok(), "good again");
    let (_, third) = certify(folder.path(), "localhost");
    assert!(dial(&server, &third).await.is_ok(), "renewed again");
}

/// Replaces the certificate with another whose files have the same size and modification time.
fn certify_unseen(folder: &Path, files: &TlsFiles) -> CertificateDer<'static> {
    let stamp = |path: &Path| {
        let file = path.metadata().unwrap();
        (file.modified().unwrap(), file.len())
    };
    let before = [&files.cert, &files.key].map(|path| (path.clone(), stamp(path)));
    loop {
        let (_, cert) = certify(folder, "localhost");
        if before
            .iter()
            .any(|(path, (_, length))| stamp(path).1 != *length)
        {
            continue;
        }
        for (path, (modified, _)) in before {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(modified).unwrap();
        }
        return cert;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_certificate_is_read_again_when_the_relay_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (files, first) = certify(folder.path(), "localhost");
    let server = served(files.clone(), LONG).await;
    assert!(dial(&server, &first).await.is_ok());
    let second = certify_unseen(folder.path(), &files);
    assert!(dial(&server, &first).await.is_ok(), "nobody told it");
    let hang_up = || {
        let id = std::process::id().to_string();
        let said = std::process::Command::new("kill")
            .args(["-HUP", &id])
            .status();
        assert!(said.unwrap().success());
    };
    hang_up();
    in_time(async { while dial(&server, &second).await.is_err() {} }).await;
    assert!(dial(&server, &first).await.is_err(), "and it alone");
}

#[tokio::test]
async fn what_cannot_be_used_keeps_the_relay_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certify(folder.path(), "localhost");
    std::fs::write(&files.key, "no key").unwrap();
    let server = served(files, LONG).await;
    let error = server.stop().await.unwrap_err().to_string();
    assert!(error.contains("key.pem cannot be read"), "{error}");
}

/// Builds the first message of a client that supports at most TLS 1.1.
fn tls_1_1() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    // No session, two cipher suites of TLS 1.1, no compression, one signature algorithm.
    hello.extend([0, 0, 4, 0xc0, 0x14, 0x00, 0x35, 1, 0]);
    hello.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]);
    let mut handshake = vec![1, 0, 0, u8::try_from(hello.len()).unwrap()];
    handshake.extend(hello);
    let mut record = vec![22, 3, 1, 0, u8::try_from(handshake.len()).unwrap()];
    record.extend(handshake);
    record
}

#[tokio::test]
async fn older_tls_and_plain_http_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certify(folder.path(), "localhost");
    let server = served(files, LONG).await;
    let http = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
    for (said, is_told) in [(tls_1_1(), true), (http, false)] {
        let mut socket = TcpStream::connect(server.address).await.unwrap();
        socket.write_all(&said).await.unwrap();
        let mut answer = Vec::new();
        // A connection that was reset has ended as well.
        let _ = in_time(socket.read_to_end(&mut answer)).await;
        // At most a fatal alert; for TLS 1.1 it is `protocol_version`.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
        if is_told {
            assert_eq!(answer[5..], [2, 70], "protocol_version");
        }
    }
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let (files, cert) = certify(folder.path(), "localhost");
    let server = served(files, Duration::from_millis(50)).await;
    for begin in [&tls_1_1()[..9], &[]] {
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        silent.write_all(begin).await.unwrap();
        let mut answer = Vec::new();
        let _ = in_time(silent.read_to_end(&mut answer)).await;
        assert!(answer.is_empty());
    }
    drop(cert);
}
