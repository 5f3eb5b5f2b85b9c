//! The relay's address and the API key, as options.

use std::{fmt::Display, path::PathBuf, time::Duration};

use anyhow::Context as _;
use proto::{ErrorBody, ErrorCode};
use reqwest::Response;
use secrecy::{ExposeSecret as _, SecretString};
use status::strip_control_chars;

/// Timeout of requests that need no model.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Options shared by every command that talks to a relay.
#[derive(Debug, clap::Args)]
pub(crate) struct Credentials {
    /// The relay's address.
    #[arg(
        long,
        env = "HEARTH_RELAY",
        default_value = "http://127.0.0.1:8787",
        value_name = "URL"
    )]
    pub(crate) relay: String,
    /// The API key; other users of this machine can see it, so prefer --key-file [env: HEARTH_KEY]
    #[arg(long, value_name = "KEY")]
    key: Option<SecretString>,
    /// A file that contains the API key [env: HEARTH_KEY_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    key_file: Option<PathBuf>,
    /// Send the key and the question to another machine over http://, although anyone on the
    /// network can read them.
    #[arg(long, env = "HEARTH_PLAIN_HTTP")]
    plain_http: bool,
}

impl Credentials {
    /// The key, if one was given. The command line overrides the environment.
    ///
    /// # Errors
    /// If the key file cannot be read or is empty.
    pub(crate) fn key(&self) -> anyhow::Result<Option<SecretString>> {
        if let Some(key) = &self.key {
            return Ok(Some(key.clone()));
        }
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let file = match (&self.key_file, set("HEARTH_KEY")) {
            (Some(file), _) => file.clone(),
            (None, Some(key)) => return Ok(Some(key.into())),
            (None, None) => match set("HEARTH_KEY_FILE") {
                Some(file) => file.into(),
                None => return Ok(None),
            },
        };
        let text = std::fs::read_to_string(&file).with_context(|| {
            format!(
                "the key file {} cannot be read; check --key-file and HEARTH_KEY_FILE",
                file.display()
            )
        })?;
        let key = text.trim();
        anyhow::ensure!(!key.is_empty(), "the key file {} is empty", file.display());
        Ok(Some(key.into()))
    }

    /// An HTTP client that sends the key with every request and has no total timeout, so that
    /// streams can be long.
    ///
    /// # Errors
    /// If the key cannot be read or is not valid in a header, or would be sent in the clear to
    /// another machine.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let mut headers = reqwest::header::HeaderMap::new();
        if let Some(key) = self.key()? {
            let bearer = format!("Bearer {}", key.expose_secret());
            let mut bearer = reqwest::header::HeaderValue::from_str(&bearer)
                .context("the key contains characters that are not valid in a key")?;
            bearer.set_sensitive(true);
            headers.insert(reqwest::header::AUTHORIZATION, bearer);
        }
        let relay: reqwest::Url = self.relay.parse().with_context(|| {
            format!(
                "{:?} is not a URL, such as https://relay.example",
                self.relay
            )
        })?;
        anyhow::ensure!(
            self.plain_http || relay.scheme() == "https" || engine::is_loopback(&relay),
            "anyone on the network could read the key and the question; use an https:// address, or \
             allow it with --plain-http"
        );
        let http = engine::client_builder(&relay)
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(10))
            .build()?;
        let relay = relay.as_str().trim_end_matches('/').to_owned();
        Ok(Client { http, relay })
    }
}

/// An HTTP client of one relay.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) relay: String,
}

impl Client {
    /// The URL of one of the relay's routes.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.relay)
    }

    /// Sends a request that needs no model, with a timeout of [`PATIENCE`].
    ///
    /// # Errors
    /// One sentence: the relay cannot be reached, or the reason for its refusal.
    pub(crate) async fn ask(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        success(self.send(request).await?).await
    }

    /// Sends a request that needs no model, with a timeout of [`PATIENCE`], and returns also a
    /// refusal.
    ///
    /// # Errors
    /// One sentence, if the relay cannot be reached.
    pub(crate) async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Response> {
        let sent = request.timeout(PATIENCE).send().await;
        sent.with_context(|| self.unreachable())
    }

    /// The error message for a relay that does not respond.
    pub(crate) fn unreachable(&self) -> String {
        format!(
            "the relay at {} cannot be reached; check --relay, the network, and that the relay runs",
            self.relay
        )
    }
}

/// The error message for a response that no relay sends.
pub(crate) fn not_the_relays(status: impl Display) -> String {
    format!(
        "the response (HTTP {status}) is not a Hearth relay's; check --relay and, if a proxy is in \
         front of the relay, that the relay runs"
    )
}

/// Returns the response if it is a success.
///
/// # Errors
/// One sentence: the reason for the relay's refusal.
pub(crate) async fn success(answer: Response) -> anyhow::Result<Response> {
    if answer.status().is_success() {
        Ok(answer)
    } else {
        Err(refusal(answer).await)
    }
}

/// The error message for a response that is not a success.
pub(crate) async fn refusal(answer: Response) -> anyhow::Error {
    let (Ok(error) | Err(error)) = refused_by_relay(answer).await;
    error
}

/// The message of [`refusal`]: `Ok` if the relay itself refused, `Err` if it is not known whether the
/// request was carried out: the relay says so, or another server answered, such as a proxy.
pub(crate) async fn refused_by_relay(answer: Response) -> Result<anyhow::Error, anyhow::Error> {
    let status = answer.status();
    let Ok(ErrorBody { error }) = answer.json::<ErrorBody>().await else {
        return Err(anyhow::anyhow!("{}", not_the_relays(status)));
    };
    let message = strip_control_chars(&error.message);
    let refusal = anyhow::anyhow!("the relay refused: {message} ({})", error.code);
    if error.code == ErrorCode::OutcomeUnknown {
        Err(refusal)
    } else {
        Ok(refusal)
    }
}
