use std::sync::Arc;

use http::{HeaderMap, Uri, header, uri::Authority};
use proto::{ErrorBody, ErrorCode};

/// Origins of Hearth's own pages inside the desktop app.
pub(crate) const OWN_ORIGINS: [&str; 3] = [
    "tauri://localhost",
    "http://tauri.localhost",
    "https://tauri.localhost",
];

/// Query parameters whose names suggest a secret.
const SECRET_NAMES: [&str; 7] = [
    "token",
    "access_token",
    "auth",
    "authorization",
    "key",
    "api_key",
    "apikey",
];

/// The rules for requests to a loopback listener: no web page of another origin, and no `Host` that
/// DNS rebinding could point here.
#[derive(Debug, Clone)]
pub struct Access {
    hosts: Arc<[String]>,
    origins: Arc<[String]>,
    serves_pages: bool,
}

/// The reason why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable error code; it determines the HTTP status.
    pub code: ErrorCode,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The native error body.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(self.code, &*self.message)
    }
}

impl Access {
    /// The rules of a listener on `port`. Pages of `origins` are allowed in addition to Hearth's
    /// own.
    #[must_use]
    pub fn new(port: u16, origins: &[String]) -> Self {
        let hosts = ["127.0.0.1", "localhost", "[::1]"].map(|name| format!("{name}:{port}"));
        let own = OWN_ORIGINS.into_iter().map(str::to_owned);
        // Sandboxed frames and local files send `null`, so any page can have this origin.
        let more = origins
            .iter()
            .filter(|origin| *origin != "null" && *origin != "*")
            .cloned();
        Self {
            hosts: hosts.into(),
            origins: own.chain(more).collect(),
            serves_pages: false,
        }
    }

    /// Also allows the pages that this listener serves: some browsers send `Origin` even with
    /// same-origin requests.
    #[must_use]
    pub fn with_own_pages(self) -> Self {
        Self {
            serves_pages: true,
            ..self
        }
    }

    /// Checks the request line and headers, not the body.
    ///
    /// # Errors
    /// `forbidden_host`, `forbidden_origin` or `token_in_url`.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        self.check_host(uri, headers)?;
        self.check_origin(headers)?;
        check_query(uri)
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let named = only(headers, header::HOST).and_then(|host| host);
        let known = |host: &str| {
            self.hosts
                .iter()
                .any(|known| host.eq_ignore_ascii_case(known))
        };
        let line_agrees = uri.authority().map(Authority::as_str).is_none_or(known);
        if named.is_some_and(known) && line_agrees {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::ForbiddenHost,
            format!("the Host header must be {}", self.hosts.join(" or ")),
        ))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        match only(headers, header::ORIGIN) {
            Some(None) => Ok(()),
            Some(Some(origin)) if self.origins.iter().any(|known| known == origin) => Ok(()),
            Some(Some(origin)) if self.serves_pages && is_from(origin, headers) => Ok(()),
            Some(Some(_)) | None => Err(Refusal::new(
                ErrorCode::ForbiddenOrigin,
                "web pages of this origin are not allowed; add it to `origins` in hearth.toml",
            )),
        }
    }
}

/// Whether the origin is the host that the request is sent to.
fn is_from(origin: &str, headers: &HeaderMap) -> bool {
    let host = only(headers, header::HOST).and_then(|host| host);
    origin
        .strip_prefix("http://")
        .is_some_and(|from| Some(from) == host)
}

/// The header's value; `Some(None)` if it is absent, `None` if it is repeated or not text.
fn only(headers: &HeaderMap, name: header::HeaderName) -> Option<Option<&str>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(None),
        (Some(value), None) => value.to_str().ok().map(Some),
        (Some(_), Some(_)) => None,
    }
}

fn check_query(uri: &Uri) -> Result<(), Refusal> {
    let pairs = uri.query().unwrap_or_default().split(['&', ';']);
    let mut names = pairs.filter_map(|pair| pair.split('=').next());
    if names.any(|name| {
        SECRET_NAMES
            .iter()
            .any(|secret| name.eq_ignore_ascii_case(secret))
    }) {
        return Err(Refusal::new(
            ErrorCode::TokenInUrl,
            "a token in a URL ends up in logs; send it as `Authorization: Bearer …`",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(uri: &str, headers: &[(&'static str, &str)]) -> Option<ErrorCode> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let access = Access::new(
            6001,
            &["http://localhost:1420".to_owned(), "null".to_owned()],
        );
        access
            .check(&uri.parse().unwrap(), &map)
            .err()
            .map(|refusal| refusal.code)
    }

    #[test]
    fn exactly_three_host_names_are_answered() {
        for host in [
            "127.0.0.1:6001",
            "localhost:6001",
            "[::1]:6001",
            "LocalHost:6001",
        ] {
            assert_eq!(code("/", &[("host", host)]), None, "{host}");
        }
        for host in [
            "",
            "127.0.0.1",
            "127.0.0.1:6000",
            "evil.com:6001",
            "localhost.:6001",
            "0.0.0.0:6001",
            "u@127.0.0.1:6001",
            "127.1:6001",
            "0x7f.1:6001",
            "0:6001",
            "[::]:6001",
            "[::ffff:127.0.0.1]:6001",
            "127.0.0.1:6001.evil.com",
            " 127.0.0.1:6001x",
            "127.0.0.1:06001",
            "2130706433:6001",
        ] {
            assert_eq!(
                code("/", &[("host", host)]),
                Some(ErrorCode::ForbiddenHost),
                "{host}"
            );
        }
    }

    #[test]
    fn a_missing_or_doubled_host_is_refused() {
        assert_eq!(code("/", &[]), Some(ErrorCode::ForbiddenHost));
        let twice = [("host", "127.0.0.1:6001"), ("host", "127.0.0.1:6001")];
        assert_eq!(code("/", &twice), Some(ErrorCode::ForbiddenHost));
        let host = [("host", "127.0.0.1:6001")];
        assert_eq!(
            code("http://evil.com:6001/", &host),
            Some(ErrorCode::ForbiddenHost)
        );
    }

    #[test]
    fn only_listed_origins_are_let_in_and_null_never_is() {
        let with = |origin| code("/", &[("host", "localhost:6001"), ("origin", origin)]);
        for origin in [
            "tauri://localhost",
            "http://tauri.localhost",
            "https://tauri.localhost",
            "http://localhost:1420",
        ] {
            assert_eq!(with(origin), None, "{origin}");
        }
        for origin in [
            "null",
            "",
            "https://evil.com",
            "http://127.0.0.1:6001",
            "http://localhost:6001",
            "tauri://localhost.evil.com",
            "http://tauri.localhost:80",
            "file://",
            "*",
            "tauri://localhost https://evil.com",
            "TAURI://LOCALHOST",
        ] {
            assert_eq!(with(origin), Some(ErrorCode::ForbiddenOrigin), "{origin}");
        }
        let twice = [
            ("host", "localhost:6001"),
            ("origin", "tauri://localhost"),
            ("origin", "tauri://localhost"),
        ];
        assert_eq!(code("/", &twice), Some(ErrorCode::ForbiddenOrigin));
    }

    #[test]
    fn its_own_pages_are_those_of_the_same_name_and_port() {
        let access = Access::new(5001, &[]).with_own_pages();
        let check = |access: &Access, host: &str, origin: &str| {
            let mut map = HeaderMap::new();
            map.insert("host", host.parse().unwrap());
            map.insert("origin", origin.parse().unwrap());
            access.check(&Uri::from_static("/"), &map).is_ok()
        };
        for host in ["127.0.0.1:5001", "localhost:5001", "[::1]:5001"] {
            assert!(check(&access, host, &format!("http://{host}")), "{host}");
            let shut = Access::new(5001, &[]);
            assert!(!check(&shut, host, &format!("http://{host}")), "{host}");
        }
        for origin in [
            "http://127.0.0.1:5000",
            "http://127.0.0.1",
            "https://127.0.0.1:5001",
            "http://localhost:5001",
            "http://127.0.0.1:5001/",
            "http://127.0.0.1:5001.evil.com",
            "HTTP://127.0.0.1:5001",
            "127.0.0.1:5001",
            "null",
            "",
        ] {
            assert!(!check(&access, "127.0.0.1:5001", origin), "{origin}");
        }
        assert!(!check(&access, "evil.com:5001", "http://evil.com:5001"));
    }

    #[test]
    fn a_token_in_the_url_is_refused() {
        let with = |uri| code(uri, &[("host", "localhost:6001")]);
        for uri in [
            "/?token=x",
            "/ws?a=1&Access_Token=x",
            "/?key",
            "/?a;api_key=1",
        ] {
            assert_eq!(with(uri), Some(ErrorCode::TokenInUrl), "{uri}");
        }
        assert_eq!(with("/?monkey=1"), None);
    }
}
