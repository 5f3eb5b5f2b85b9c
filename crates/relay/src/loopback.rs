//! Protection of `--insecure-dev`: without a key, every web page open on this machine could use the
//! relay. Requests from pages of another origin, or to another host name, are refused.

use std::net::SocketAddr;

use http::{
    HeaderMap,
    header::{HOST, ORIGIN},
    uri::Authority,
};
use proto::ErrorCode;

use crate::error::ApiError;

/// Admits a request whose `Host` is this listener, and that no page of another origin made.
///
/// # Errors
/// `forbidden_host` or `forbidden_origin`.
pub(crate) fn admit(
    headers: &HeaderMap,
    target: Option<&Authority>,
    listener: SocketAddr,
) -> Result<(), ApiError> {
    let host = only(headers, HOST.as_str()).map(str::to_ascii_lowercase);
    let host = host.filter(|host| names(host, listener));
    let host = host.filter(|host| target.is_none_or(|target| target.as_str() == host));
    let Some(host) = host else {
        let message = format!(
            "with --insecure-dev, the relay accepts only the address http://localhost:{}; use it, \
             or start the relay without --insecure-dev",
            listener.port()
        );
        return Err(ApiError::new(ErrorCode::ForbiddenHost, message));
    };
    let is_own_origin = !headers.contains_key(ORIGIN)
        || only(headers, ORIGIN.as_str()).is_some_and(|origin| origin == format!("http://{host}"));
    // Requests for images and scripts have no `Origin`, but browsers send `Sec-Fetch-Site`.
    let is_own_page = !headers.contains_key(SITE)
        || only(headers, SITE).is_some_and(|site| ["same-origin", "none"].contains(&site));
    if is_own_origin && is_own_page {
        return Ok(());
    }
    let message = "with --insecure-dev, web pages of other origins are refused; call the relay \
                   from a program, or start it without --insecure-dev";
    Err(ApiError::new(ErrorCode::ForbiddenOrigin, message))
}

const SITE: &str = "sec-fetch-site";

fn names(host: &str, listener: SocketAddr) -> bool {
    let port = listener.port();
    let known = [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        // Another address of 127.0.0.0/8.
        listener.to_string(),
    ];
    known.iter().any(|known| known == host)
}

/// Returns the value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.to_str().ok())?
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn refused(target: Option<&str>, headers: &[(&str, &str)]) -> Option<ErrorCode> {
        let target = target.map(|target| target.parse().unwrap());
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()))
            .collect();
        let listener = "127.0.0.1:8787".parse().unwrap();
        let answer = admit(&headers, target.as_ref(), listener);
        answer.err().map(|error| error.code)
    }

    #[test]
    fn only_this_listener_by_its_own_name_is_a_good_host() {
        for host in [
            "127.0.0.1:8787",
            "localhost:8787",
            "LocalHost:8787",
            "[::1]:8787",
        ] {
            assert_eq!(refused(None, &[("host", host)]), None, "{host}");
            assert_eq!(refused(Some(&host.to_lowercase()), &[("host", host)]), None);
        }
        let other = "127.0.0.2:9".parse().unwrap();
        let host = HeaderMap::from_iter([(HOST, "127.0.0.2:9".parse().unwrap())]);
        assert_eq!(admit(&host, None, other), Ok(()), "where it listens");
        for host in [
            "",
            "localhost",
            "localhost:8788",
            "localhost:8787.",
            "localhost.:8787",
            " evil.example:8787",
            "evil.example:8787",
            "127.0.0.1.evil.example:8787",
            "127.0.0.2:8787",
            "0.0.0.0:8787",
            "user@localhost:8787",
            "localhost:8787,evil.example",
            "::1:8787",
        ] {
            let code = refused(None, &[("host", host)]);
            assert_eq!(code, Some(ErrorCode::ForbiddenHost), "{host}");
        }
        let good = ("host", "localhost:8787");
        for headers in [&[][..], &[good, good], &[good, ("host", "evil.example")]] {
            assert_eq!(refused(None, headers), Some(ErrorCode::ForbiddenHost));
        }
        let elsewhere = refused(Some("evil.example:8787"), &[good]);
        assert_eq!(elsewhere, Some(ErrorCode::ForbiddenHost));
    }

    #[test]
    fn only_pages_of_the_host_itself_are_a_good_origin() {
        let host = ("host", "LOCALHOST:8787");
        assert_eq!(
            refused(None, &[host, ("origin", "http://localhost:8787")]),
            None
        );
        for origin in [
            "",
            "null",
            "http://evil.example",
            "http://localhost",
            "http://localhost:8788",
            "http://127.0.0.1:8787",
            "https://localhost:8787",
            "http://localhost:8787/",
            "http://localhost:8787.evil.example",
        ] {
            let code = refused(None, &[host, ("origin", origin)]);
            assert_eq!(code, Some(ErrorCode::ForbiddenOrigin), "{origin}");
        }
        let own = ("origin", "http://localhost:8787");
        let twice = refused(None, &[host, own, own]);
        assert_eq!(twice, Some(ErrorCode::ForbiddenOrigin));
    }

    #[test]
    fn a_picture_of_another_page_is_known_by_where_it_stands() {
        let host = ("host", "localhost:8787");
        for (site, is_good) in [
            ("same-origin", true),
            ("none", true),
            ("same-site", false),
            ("cross-site", false),
            ("", false),
        ] {
            let answer = refused(None, &[host, ("sec-fetch-site", site)]);
            assert_eq!(answer.is_none(), is_good, "{site}: {answer:?}");
        }
    }
}
