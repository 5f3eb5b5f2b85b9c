//! Checks webhook URLs: public addresses over https, and targets that the operator allows.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use reqwest::Url;
use url::Host;

/// Maximum length of a URL, in bytes.
const URL_MAX: usize = 2048;
/// Allowed ports, unless the operator allows others.
const PORTS: [u16; 2] = [443, 8443];

/// A host, or one of its ports, that the operator allows: over http or https, and on any address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    host: Host,
    port: Option<u16>,
}

impl FromStr for Allowed {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "use HOST or HOST:PORT, for example hooks.lan:8080 or [::1]:8080";
        let is_plain = !text.contains(['/', '@', '?', '#']);
        // With `http://`, port 80 would be dropped from the URL.
        let url = format!("ws-allow://{text}");
        let url = Url::parse(&url).map_err(|_| SHAPE)?;
        let host = url.host_str().filter(|_| is_plain).ok_or(SHAPE)?;
        Ok(Self {
            host: Host::parse(host).map_err(|_| SHAPE)?,
            port: url.port(),
        })
    }
}

impl Allowed {
    fn covers(&self, host: &Host, port: u16) -> bool {
        self.host == *host && self.port.is_none_or(|own| own == port)
    }
}

/// A URL that a webhook may be sent to, if its name resolves to public addresses.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(super) url: Url,
    /// Whether the operator allows it, whatever its addresses.
    pub(super) is_allowed: bool,
}

/// Parses a URL and refuses it if it is not a valid target. The addresses of its name are checked
/// at each connection.
pub(crate) fn check(text: &str, allowed: &[Allowed]) -> Result<Target, &'static str> {
    if text.len() > URL_MAX {
        return Err("a webhook's URL must have at most 2048 bytes");
    }
    let url = Url::parse(text).map_err(|_| "the webhook's URL is invalid")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "a webhook's URL must not contain a user name or password; use a secret instead",
        );
    }
    if url.fragment().is_some() {
        return Err("a webhook's URL must not contain a fragment (#)");
    }
    let is_http = url.scheme() == "http";
    if !is_http && url.scheme() != "https" {
        return Err("a webhook's URL must begin with https://");
    }
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return Err("the webhook's URL has no host");
    };
    let host = host.to_owned();
    if allowed.iter().any(|allowed| allowed.covers(&host, port)) {
        return Ok(Target {
            url,
            is_allowed: true,
        });
    }
    if is_http {
        return Err("a webhook's URL must begin with https://");
    }
    if !PORTS.contains(&port) {
        return Err("a webhook's URL must use port 443 or 8443");
    }
    let is_public = match &host {
        Host::Ipv4(ip) => is_public((*ip).into()),
        Host::Ipv6(ip) => is_public((*ip).into()),
        Host::Domain(name) => !is_local(name),
    };
    if !is_public {
        return Err(NOT_PUBLIC);
    }
    Ok(Target {
        url,
        is_allowed: false,
    })
}

pub(super) const NOT_PUBLIC: &str =
    "a webhook's URL must have a public address; the operator can allow others";

/// Whether a name always resolves to local addresses.
fn is_local(name: &str) -> bool {
    const ENDS: [&str; 5] = ["localhost", "local", "internal", "lan", "arpa"];
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    match name.rsplit_once('.') {
        Some((_, last)) => ENDS.contains(&last),
        // A single-label name is looked up in the local network.
        None => true,
    }
}

/// Whether an address is on the public Internet.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    /// Networks that are not public, as address and prefix length.
    const NOT: &[([u8; 4], u32)] = &[
        ([0, 0, 0, 0], 8),        // this network
        ([10, 0, 0, 0], 8),       // private
        ([100, 64, 0, 0], 10),    // carrier-grade NAT
        ([127, 0, 0, 0], 8),      // loopback
        ([168, 63, 129, 16], 32), // a cloud's metadata
        ([169, 254, 0, 0], 16),   // link-local, most clouds' metadata
        ([172, 16, 0, 0], 12),    // private
        ([192, 0, 0, 0], 24),     // protocol assignments
        ([192, 0, 2, 0], 24),     // documentation
        ([192, 31, 196, 0], 24),  // AS112
        ([192, 52, 193, 0], 24),  // AMT
        ([192, 88, 99, 0], 24),   // 6to4 relays
        ([192, 168, 0, 0], 16),   // private
        ([192, 175, 48, 0], 24),  // AS112
        ([198, 18, 0, 0], 15),    // benchmarks
        ([198, 51, 100, 0], 24),  // documentation
        ([203, 0, 113, 0], 24),   // documentation
        ([224, 0, 0, 0], 4),      // multicast
        ([240, 0, 0, 0], 4),      // reserved, broadcast
    ];
    let bits = ip.to_bits();
    !NOT.iter().any(|(network, length)| {
        let network = u32::from_be_bytes(*network);
        (bits ^ network) >> (32 - length) == 0
    })
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    /// Networks in 2000::/3 that contain IPv4 addresses or are not routed, as address and prefix
    /// length.
    const NOT: &[([u16; 2], u32)] = &[
        ([0x2001, 0x0000], 23), // protocol assignments, Teredo among them
        ([0x2001, 0x0db8], 32), // documentation
        ([0x2002, 0x0000], 16), // 6to4
        ([0x3fff, 0x0000], 20), // documentation
    ];
    let [a, b, ..] = ip.segments();
    let bits = u32::from(a) << 16 | u32::from(b);
    // Loopback, mapped and translated IPv4, unique local, link-local and multicast addresses are
    // outside 2000::/3.
    bits >> 29 == 1
        && !NOT.iter().any(|([a, b], length)| {
            let network = u32::from(*a) << 16 | u32::from(*b);
            (bits ^ network) >> (32 - length) == 0
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_inside_is_public() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:53aa::1",
            "2001:20::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "168.63.129.17",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "192.169.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.254",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "2620:fe::fe",
        ] {
            assert!(is_public(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn no_url_leads_inside() {
        for wrong in [
            "",
            "hooks.example.org",
            "//example.org",
            "http://example.org",
            "ftp://example.org",
            "file:///etc/passwd",
            "gopher://example.org",
            "javascript:alert(1)",
            "https://",
            "https:///x",
            "https://user@example.org",
            "https://user:pw@example.org",
            "https://:pw@example.org",
            "https://example.org#x",
            "https://example.org:80",
            "https://example.org:22",
            "https://example.org:8080",
            "https://localhost",
            "https://localhost.",
            "https://LOCALHOST",
            "https://a.localhost",
            "https://a.localhost.",
            "https://printer",
            "https://printer.",
            "https://printer.local",
            "https://nas.lan",
            "https://metadata.google.internal",
            "https://1.0.0.127.in-addr.arpa",
            "https://127.0.0.1",
            "https://127.0.0.1.",
            "https://127.1",
            "https://127.0.1",
            "https://2130706433",
            "https://0x7f000001",
            "https://0x7f.1",
            "https://0177.0.0.1",
            "https://017700000001",
            "https://0",
            "https://0.0.0.0",
            "https://10.1.2.3",
            "https://192.168.1.1:8443",
            "https://169.254.169.254/latest/meta-data/",
            "https://2852039166",
            "https://0xa9fea9fe",
            "https://100.100.100.200",
            "https://[::1]",
            "https://[::]",
            "https://[::ffff:127.0.0.1]",
            "https://[::ffff:7f00:1]",
            "https://[0:0:0:0:0:ffff:a9fe:a9fe]",
            "https://[fe80::1]",
            "https://[fd00:ec2::254]",
            "https://[64:ff9b::a9fe:a9fe]",
            "https://[2002:7f00:1::]",
            "https://①②⑦.0.0.1",
            "https://127。0。0。1",
            "https://ⓛocalhost",
            "https://%31%32%37.0.0.1",
            "https:\\\\127.0.0.1",
            "https://example.org:443@127.0.0.1",
            "https://[fe80::1%25eth0]",
        ] {
            let read = check(wrong, &[]);
            assert!(read.is_err(), "{wrong}: {read:?}");
        }
        for fine in [
            "https://example.org",
            "https://example.org:443/x?y=z",
            "https://example.org:8443",
            "https://8.8.8.8/hook",
            "https://[2606:4700::1111]/",
            "HTTPS://Example.ORG./",
        ] {
            assert!(check(fine, &[]).is_ok(), "{fine}");
        }
        let long = format!("https://example.org/{}", "x".repeat(URL_MAX));
        assert!(check(&long, &[]).is_err());
    }

    #[test]
    fn the_operator_opens_one_host_or_one_port_of_it() {
        let allow = |text: &str| [text.parse::<Allowed>().unwrap()];
        let port = allow("127.0.0.1:8080");
        assert!(check("http://127.0.0.1:8080/x", &port).unwrap().is_allowed);
        assert!(check("http://127.0.0.1:8081/x", &port).is_err());
        assert!(check("http://127.0.0.2:8080/x", &port).is_err());
        let host = allow("Hooks.Lan");
        assert!(check("http://hooks.lan", &host).is_ok());
        assert!(check("https://hooks.lan:9", &host).is_ok());
        assert!(check("https://x.hooks.lan", &host).is_err());
        assert!(check("http://user@hooks.lan", &host).is_err());
        assert!(check("ftp://hooks.lan", &host).is_err());
        assert!(check("http://[::1]:9/x", &allow("[::1]:9")).is_ok());
        assert!(check("http://hooks.lan/", &allow("hooks.lan:80")).is_ok());
        assert!(!check("https://example.org", &host).unwrap().is_allowed);
        for wrong in ["", "a b", "http://x", "x/y", "u@x", "x:99999", "x:y"] {
            assert!(wrong.parse::<Allowed>().is_err(), "{wrong}");
        }
    }
}
