//! The relay's own TLS, and agents that trust its certificate or do not.

use std::path::Path;

use hearth_tests::{
    process::{Home, PATIENCE, Process, binary, finish},
    scripted_ollama::ScriptedOllama,
    test_bed::{create_key, hearth, store},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::mpsc,
    time::timeout,
};

/// A relay with a certificate, and the keys to use it.
struct Secured {
    home: Home,
    relay: Process,
    url: String,
    worker: String,
    requester: String,
}

impl Secured {
    async fn with(params: rcgen::CertificateParams) -> Self {
        let home = Home::new();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        std::fs::write(home.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(home.path().join("key.pem"), key.serialize_pem()).unwrap();
        let asks = ["--name", "laptop", "--scope", "enqueue", "--scope", "read"];
        let requester = create_key(&home, &asks).await;
        let worker = create_key(&home, &["--name", "home", "--scope", "work"]).await;
        let mut command = home.command(binary("hearth"));
        command.args(["relay", "--listen", "127.0.0.1:0", "--store", &store(&home)]);
        command.arg("--tls-cert").arg(home.path().join("cert.pem"));
        command.arg("--tls-key").arg(home.path().join("key.pem"));
        let mut relay = Process::start("the relay", command);
        let address = relay.says("listening on https://").await;
        let port = address.rsplit(':').next().unwrap();
        let url = format!("https://localhost:{port}");
        Self {
            home,
            relay,
            url,
            worker,
            requester,
        }
    }

    /// The `hearth` program on a system that trusts the relay's certificate.
    fn trusting(&self, args: &[&str], key: &str) -> Command {
        let mut command = hearth(&self.home, args);
        command.env("SSL_CERT_FILE", trusted(self.home.path()));
        command.env("HEARTH_KEY", key);
        command
    }

    /// An agent on a system that trusts the relay's certificate.
    async fn agent(&self, ollama: &ScriptedOllama) -> Process {
        self.start_agent(ollama, |args| self.trusting(args, &self.worker))
            .await
    }

    async fn start_agent(
        &self,
        ollama: &ScriptedOllama,
        program: impl FnOnce(&[&str]) -> Command,
    ) -> Process {
        let engine = format!("ollama:{}", ollama.url());
        let mut command = program(&[
            "agent", "--relay", &self.url, "--engine", &engine, "--name", "home",
        ]);
        command.args(["--status-port", "0", "--http-port", "0"]);
        let mut agent = Process::start("the agent", command);
        agent.says("status on ws://").await;
        agent
    }

    async fn until(&self, phase: &str, agent: &Process) {
        let args = ["status", "--until", phase, "--timeout", "50"];
        let done = finish(hearth(&self.home, &args)).await;
        let (agent, relay) = (agent.log(), self.relay.log());
        assert!(
            done.status.success(),
            "{}\nagent: {agent}\nrelay: {relay}",
            done.stderr
        );
    }
}

fn trusted(home: &Path) -> std::path::PathBuf {
    home.join("cert.pem")
}

fn named(name: &str) -> rcgen::CertificateParams {
    rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap()
}

#[tokio::test]
async fn an_agent_works_over_the_relays_own_tls() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let secured = Secured::with(named("localhost")).await;
    let agent = secured.agent(&ollama).await;
    secured.until("ready", &agent).await;
    let asked = ["ask", "--relay", &secured.url, "Hello?"];
    let answer = finish(secured.trusting(&asked, &secured.requester)).await;
    assert!(answer.status.success(), "{}", answer.stderr);
    assert!(!answer.stdout.is_empty());
    // A program that does not trust the certificate sends no key.
    let mut wary = hearth(&secured.home, &asked);
    wary.env("HEARTH_KEY", &secured.requester);
    assert!(!finish(wary).await.status.success());
}

#[tokio::test]
async fn an_agent_refuses_a_certificate_of_another_name_and_one_that_has_expired() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let mut expired = named("localhost");
    expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
    for params in [named("other.example"), expired] {
        let secured = Secured::with(params).await;
        let agent = secured.agent(&ollama).await;
        secured.until("relay_offline", &agent).await;
        let asked = ["ask", "--relay", &secured.url, "Hello?"];
        let refused = finish(secured.trusting(&asked, &secured.requester)).await;
        assert!(!refused.status.success());
        let told = [agent.log(), refused.stderr].concat();
        assert!(told.contains("certificate"), "{told}");
    }
}

#[tokio::test]
async fn an_agent_refuses_a_certificate_that_nobody_vouches_for() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let secured = Secured::with(named("localhost")).await;
    let wary = |args: &[&str]| {
        let mut command = hearth(&secured.home, args);
        command.env("HEARTH_KEY", &secured.worker);
        command
    };
    let agent = secured.start_agent(&ollama, wary).await;
    secured.until("relay_offline", &agent).await;
    let told = agent.log();
    assert!(told.contains("certificate"), "{told}");
    let relay = secured.relay.log();
    assert!(
        !relay.contains("worker connected"),
        "it was let in: {relay}"
    );
}

#[tokio::test]
async fn an_agent_refuses_tls_1_1_and_sends_its_key_to_nobody_who_speaks_it() {
    let ollama = ScriptedOllama::start().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = format!("https://{}", listener.local_addr().unwrap());
    let (sender, mut heard) = mpsc::channel(1);
    let serving = tokio::spawn(async move {
        // The agent tries again; only the first connection is looked at.
        while let Ok((stream, _)) = listener.accept().await {
            drop(sender.try_send(outdated(stream).await));
        }
    });
    let home = Home::new();
    let engine = format!("ollama:{}", ollama.url());
    let mut command = hearth(&home, &["agent", "--relay", &relay, "--engine", &engine]);
    command.args(["--status-port", "0", "--http-port", "0"]);
    command.env("HEARTH_KEY", "worker-key-of-this-test");
    let mut agent = Process::start("the agent", command);
    agent.says("status on ws://").await;
    let args = ["status", "--until", "relay_offline", "--timeout", "50"];
    let done = finish(hearth(&home, &args)).await;
    assert!(done.status.success(), "{}", done.stderr);
    let (greeting, rest) = timeout(PATIENCE, heard.recv()).await.unwrap().unwrap();
    let is_in = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|part| part == text);
    assert!(!is_in(&greeting, b"worker-key"), "{greeting:?}");
    // A fatal alert `protocol_version`, and nothing else.
    assert_eq!(rest, [21, 3, 3, 0, 2, 2, 70], "{}", agent.log());
    serving.abort();
}

/// Answers a ClientHello with the choice of TLS 1.1; returns the ClientHello and what came then.
async fn outdated(mut stream: TcpStream) -> (Vec<u8>, Vec<u8>) {
    let mut head = [0; 5];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[..2], [22, 3], "a record of a handshake");
    let mut greeting = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut greeting).await.unwrap();
    let mut choice = vec![22, 3, 2, 0, 42, 2, 0, 0, 38, 3, 2];
    choice.extend([7; 32]);
    // No session, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, no compression.
    choice.extend([0, 0xc0, 0x13, 0]);
    stream.write_all(&choice).await.unwrap();
    let mut rest = Vec::new();
    // A reset is an end, too.
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await);
    (greeting, rest)
}
