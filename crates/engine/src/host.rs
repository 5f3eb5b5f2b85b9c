//! Parsing of `OLLAMA_HOST`.

use reqwest::Url;

/// The meaning of `OLLAMA_HOST` for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// URL of the server.
    pub url: Url,
    /// Warning for the owner about how the text was understood.
    pub warning: Option<String>,
}

/// The text does not name a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address of an Ollama: write it as host:port or as a URL")]
pub struct InvalidHost(pub String);

/// Parses `OLLAMA_HOST` as Ollama's own clients do: `http://127.0.0.1:11434` when empty, port 11434
/// without a scheme, 80 or 443 with one; an invalid port is replaced by the default one, with a
/// warning.
///
/// An unspecified address (`0.0.0.0`), which only a server can use, becomes this machine's.
///
/// # Errors
/// [`InvalidHost`] if the text cannot be made into a URL.
pub fn parse_host(text: &str) -> Result<Host, InvalidHost> {
    let invalid = || InvalidHost(text.to_owned());
    let bare = text.trim().trim_matches(['"', '\'']).trim();
    let (scheme, rest) = bare.split_once("://").unwrap_or(("", bare));
    let (scheme, default_port) = match scheme {
        "" => ("http", 11434),
        "http" => ("http", 80),
        "https" => ("https", 443),
        _ => return Err(invalid()),
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = split_port(authority);
    let (port, warning) = match port.map(str::parse::<u16>) {
        None => (default_port, None),
        Some(Ok(port)) => (port, None),
        Some(Err(_)) => {
            let warning = format!("the port in {text:?} is not one; using {default_port}");
            (default_port, Some(warning))
        }
    };
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        ipv6 if ipv6.contains(':') => format!("[{ipv6}]"),
        other => other.to_owned(),
    };
    let path = path.trim_end_matches('/');
    let url = Url::parse(&format!("{scheme}://{host}:{port}/{path}")).map_err(|_| invalid())?;
    if !url.username().is_empty() || url.query().is_some() || url.fragment().is_some() {
        return Err(invalid());
    }
    Ok(Host { url, warning })
}

/// Splits host and port. The port is `Some` if there is a colon, even if nothing follows it.
fn split_port(authority: &str) -> (&str, Option<&str>) {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').unwrap_or((rest, ""));
        return (host, after.strip_prefix(':'));
    }
    match authority.split_once(':') {
        // More than one colon without brackets: an IPv6 address without a port.
        Some((_, port)) if port.contains(':') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ollama_host_is_read_as_ollamas_own_clients_read_it() {
        for (text, url) in [
            ("", "http://127.0.0.1:11434/"),
            ("  \"1.2.3.4\" ", "http://1.2.3.4:11434/"),
            ("1.2.3.4:56789", "http://1.2.3.4:56789/"),
            (":56789", "http://127.0.0.1:56789/"),
            ("example.com", "http://example.com:11434/"),
            ("http://1.2.3.4", "http://1.2.3.4/"),
            ("https://1.2.3.4", "https://1.2.3.4/"),
            ("https://1.2.3.4:56789", "https://1.2.3.4:56789/"),
            ("http://example.com/a/b/", "http://example.com/a/b"),
            ("example.com:7/ollama", "http://example.com:7/ollama"),
            ("[::1]", "http://[::1]:11434/"),
            ("::1", "http://[::1]:11434/"),
            ("[0001:002:003:0004::1]:8080", "http://[1:2:3:4::1]:8080/"),
            ("0.0.0.0", "http://127.0.0.1:11434/"),
            ("http://[::]:8", "http://[::1]:8/"),
        ] {
            let host = parse_host(text).unwrap();
            assert_eq!(host.url.as_str(), url, "{text}");
            assert_eq!(host.warning, None, "{text}");
        }
    }

    #[test]
    fn a_wrong_port_gives_the_default_one_and_a_warning() {
        for (text, url) in [
            ("1.2.3.4:abc", "http://1.2.3.4:11434/"),
            ("1.2.3.4:99999", "http://1.2.3.4:11434/"),
            ("1.2.3.4:-1", "http://1.2.3.4:11434/"),
            ("https://1.2.3.4:66000", "https://1.2.3.4/"),
        ] {
            let host = parse_host(text).unwrap();
            assert_eq!(host.url.as_str(), url, "{text}");
            assert!(host.warning.is_some(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for wrong in [
            "a b",
            "ftp://x",
            "http://me@x",
            "http://x?y",
            "unix:///run/x",
        ] {
            assert_eq!(parse_host(wrong), Err(InvalidHost(wrong.into())), "{wrong}");
        }
    }
}
