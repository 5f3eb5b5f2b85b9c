//! Real Chromium against the hub: pages of every origin, DNS names that point here, frames with a
//! `null` origin, with and without a token, over every API that a page has.
#![expect(clippy::unwrap_used, reason = "these functions are tests")]

use std::{net::TcpListener as StdListener, time::Duration};

use fantoccini::{Client, ClientBuilder};
use hearth_status::{LocalToken, Request, StatusHub, StatusServer, bind_loopback};
use serde_json::{Value, json};
use tests::process::{PATIENCE, Process};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// Tries every target from one page; `open` means an open socket or a readable page.
const PROBE: &str = r#"
const [targets, frame, done] = arguments;
const probe = `
  const socket = (url, word) => new Promise((say) => {
    try {
      const socket = word ? new WebSocket(url, word) : new WebSocket(url);
      socket.onopen = () => { say("open"); socket.send('{"type":"command","command":"quit"}'); socket.close(); };
      socket.onerror = () => say("shut");
    } catch { say("shut"); }
  });
  const page = (url, init) => fetch(url, init).then((answer) => (answer.ok ? "open" : "shut"), () => "shut");
  const all = (targets) => Promise.all(targets.map(({ url, way, token }) => {
    if (way.startsWith("ws")) return socket("ws://" + url, way.slice(3));
    const http = "http://" + url;
    const body = '{"type":"command","command":"quit"}';
    if (way === "bearer") return page(http, { headers: { Authorization: "Bearer " + token } });
    if (way === "simple") return page(http, { method: "POST", mode: "no-cors", body });
    return page(http, { method: way, body: way === "PUT" ? body : undefined });
  }));
`;
if (!frame) {
  new Function("targets", "done", probe + "all(targets).then(done)")(targets, done);
} else {
  addEventListener("message", ({ data }) => done(data), { once: true });
  const html = `<script>${probe}; all(${JSON.stringify(targets)}).then((all) => parent.postMessage(all, "*"))<\/script>`;
  const inner = document.createElement("iframe");
  if (frame === "sandbox") { inner.sandbox = "allow-scripts"; inner.srcdoc = html; }
  else inner.src = "data:text/html," + encodeURIComponent(html);
  document.body.append(inner);
}
"#;

/// Serves an empty page to any request, for any `Host`.
async fn pages() -> (u16, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut answers = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            answers.spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let body = "<!doctype html><title>a page</title><body></body>";
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(head.as_bytes()).await;
            });
        }
    });
    (port, serving)
}

struct Chromium {
    client: Client,
    _driver: Process,
    _profile: tempfile::TempDir,
}

impl Chromium {
    async fn start() -> Self {
        let free = StdListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}")).kill_on_drop(true);
        let driver = Process::start("chromedriver", command);
        let reached = timeout(PATIENCE, async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        reached.await.expect("chromedriver listens");
        let profile = tempfile::tempdir().unwrap();
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--host-resolver-rules=MAP *.test 127.0.0.1",
            format!("--user-data-dir={}", profile.path().display()),
        ] });
        let capabilities =
            json!({ "goog:chromeOptions": options, "timeouts": { "script": 60_000 } });
        let Value::Object(capabilities) = capabilities else {
            unreachable!("it is an object")
        };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("Chromium starts: ./x setup installs it");
        Self {
            client,
            _driver: driver,
            _profile: profile,
        }
    }

    async fn probe(&self, page: &str, frame: &str, targets: &Value) -> Vec<String> {
        self.client.goto(page).await.unwrap();
        let arguments = vec![targets.clone(), json!(frame)];
        let answers = self.client.execute_async(PROBE, arguments);
        let answers = timeout(PATIENCE, answers).await.expect("the page answers");
        serde_json::from_value(answers.unwrap()).unwrap()
    }
}

#[tokio::test]
async fn chromium_opens_the_hub_to_the_listed_page_alone() {
    let (page_port, _serving) = pages().await;
    let listed = format!("http://localhost:{page_port}");
    let bound = bind_loopback(&[0]).await.unwrap();
    let hub_port = bound.addr.port();
    let (sender, mut commands) = mpsc::channel::<Request>(64);
    let token = LocalToken::new([9; 32]);
    let server = StatusServer::new(StatusHub::default(), token.clone(), sender).allow(vec![
        listed.clone(),
        "null".to_owned(),
        "*".to_owned(),
    ]);
    let stop = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(server.serve(bound.listener, stop.clone()));
    let chromium = Chromium::start().await;

    let hosts = ["127.0.0.1", "localhost", "0.0.0.0", "rebind.test", "[::1]"];
    let ways = [
        ("ws:", ""),
        ("ws:hearth.status.v1", ""),
        ("ws:", "?token=guess"),
        ("GET", ""),
        ("GET", "api/status"),
        ("HEAD", ""),
        ("PUT", ""),
        ("simple", ""),
        ("bearer", ""),
    ];
    let mut targets = Vec::new();
    for host in hosts {
        for (way, path) in ways {
            let url = format!("{host}:{hub_port}/{path}");
            targets.push(json!({ "url": url, "way": way, "token": token.expose() }));
        }
    }
    let (mut tried, mut opened, mut wrong) = (0, 0, Vec::new());
    for (page, frame) in [
        (listed.clone(), ""),
        (format!("http://127.0.0.1:{page_port}"), ""),
        (format!("http://evil.test:{page_port}"), ""),
        // The page's name resolves to the hub itself by now.
        (format!("http://rebind.test:{hub_port}"), ""),
        (format!("http://127.0.0.1:{hub_port}"), ""),
        (listed.clone(), "sandbox"),
        (listed.clone(), "data"),
    ] {
        let answers = chromium.probe(&page, frame, &json!(targets)).await;
        assert_eq!(answers.len(), targets.len());
        for (target, answer) in targets.iter().zip(answers) {
            let (url, way) = (
                target["url"].as_str().unwrap(),
                target["way"].as_str().unwrap(),
            );
            let is_ours = url.starts_with("127.0.0.1:") || url.starts_with("localhost:");
            let is_socket = way.starts_with("ws") && !url.contains('?');
            let is_right = page == listed && frame.is_empty() && is_ours && is_socket;
            let expected = if is_right { "open" } else { "shut" };
            if answer != expected {
                wrong.push(format!("{answer}: {way} {url} from {page} {frame}"));
            }
            tried += 1;
            opened += usize::from(answer == "open");
        }
    }
    // First, because a driver that is killed leaves its browser running.
    chromium.client.clone().close().await.unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!((tried, opened), (315, 4));
    assert!(commands.try_recv().is_err(), "no page gave a command");
    stop.cancel();
    timeout(PATIENCE, serving.join_next()).await.unwrap();
}
