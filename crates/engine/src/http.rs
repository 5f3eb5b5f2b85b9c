//! Common settings of HTTP clients.

use reqwest::{ClientBuilder, Url, redirect::Policy};

/// Returns a client builder with the settings shared by all connections of Hearth: no redirects, no
/// Nagle delay, ring for TLS, and no proxy to this machine itself.
pub fn client_builder(target: &Url) -> ClientBuilder {
    // Installed once per process; a second call fails, which is fine because all install the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    let builder = reqwest::Client::builder()
        .redirect(Policy::none())
        .tcp_nodelay(true)
        .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")));
    if is_loopback(target) {
        builder.no_proxy()
    } else {
        builder
    }
}

/// Whether the URL's host is this machine itself.
#[must_use]
pub fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        let loopback = |url: &str| is_loopback(&Url::parse(url).unwrap());
        for own in [
            "http://127.0.0.1:1",
            "http://localhost",
            "http://[::1]:5",
            "http://127.9.9.9",
            "http://[::ffff:127.0.0.1]",
        ] {
            assert!(loopback(own), "{own}");
        }
        for other in [
            "http://127.0.0.1.evil.example",
            "http://10.0.0.1",
            "https://localhost.example",
        ] {
            assert!(!loopback(other), "{other}");
        }
    }
}
