//! The client's address, taken from the connection or from the headers of trusted proxies.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use axum::extract::FromRequestParts;
use http::{HeaderMap, request::Parts};

use crate::Relay;

const FOR: &str = "x-forwarded-for";
const PROTO: &str = "x-forwarded-proto";

/// An address or a network: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Length of the prefix, in bits.
    bits: u8,
}

impl Network {
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.address, canonical(address)) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differ = u32::from(own) ^ u32::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differ = u128::from(own) ^ u128::from(other);
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "use an address or a network, for example 10.0.0.1 or 10.0.0.0/8";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| SHAPE)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| SHAPE)?,
            None => most,
        };
        if bits > most {
            return Err(SHAPE);
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Converts an IPv4-mapped IPv6 address to IPv4: `::ffff:10.0.0.1` becomes 10.0.0.1.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Returns the key for per-client limits: the IPv4 address, or the IPv6 /64.
pub(crate) fn client_prefix(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Sender of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// Whether the client uses TLS, to the relay or to the proxy.
    pub(crate) is_secure: bool,
}

impl Peer {
    /// Returns the client's address: the TCP peer or, if that is a trusted proxy, the rightmost
    /// `X-Forwarded-For` address that is not a trusted proxy. An unreadable entry ends the search,
    /// and the entry after it is used.
    pub(crate) fn of(
        connection: SocketAddr,
        is_secure: bool,
        proxies: &[Network],
        headers: &HeaderMap,
    ) -> Self {
        let is_proxy = |address| proxies.iter().any(|proxy| proxy.contains(address));
        let mut peer = Self {
            address: canonical(connection.ip()),
            is_secure,
        };
        if !is_proxy(peer.address) {
            return peer;
        }
        let values = |name: &str| -> Vec<String> {
            let lines = headers.get_all(name).iter();
            // A header that is not text becomes an entry that is not an address.
            let lines = lines.map(|line| line.to_str().unwrap_or("?").to_owned());
            let lines: Vec<_> = lines.collect();
            lines
                .iter()
                .flat_map(|line| line.split(','))
                .map(|one| one.trim().to_owned())
                .collect()
        };
        if let Some(proto) = values(PROTO).last() {
            peer.is_secure = proto.eq_ignore_ascii_case("https");
        }
        for hop in values(FOR).iter().rev() {
            let Some(address) = forwarded(hop) else { break };
            peer.address = address;
            if !is_proxy(address) {
                break;
            }
        }
        peer
    }
}

impl FromRequestParts<Relay> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Relay) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self {
            address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            is_secure: false,
        }))
    }
}

/// Parses an address as proxies write it, with or without a port.
fn forwarded(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse::<IpAddr>();
    let with_port = || text.parse::<SocketAddr>().map(|socket| socket.ip());
    address.or_else(|_| with_port()).ok().map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_holds_what_begins_alike_in_any_spelling() {
        for (text, inside, outside) in [
            (
                "10.0.0.1",
                vec!["10.0.0.1", "::ffff:10.0.0.1"],
                vec!["10.0.0.2", "::1"],
            ),
            (
                "10.0.0.0/8",
                vec!["10.255.0.1"],
                vec!["11.0.0.1", "::a00:1"],
            ),
            ("0.0.0.0/0", vec!["1.2.3.4"], vec!["2001:db8::1"]),
            ("fd00::/8", vec!["fd12::1"], vec!["fe80::1", "10.0.0.1"]),
            ("::1", vec!["::1"], vec!["::2", "127.0.0.1"]),
        ] {
            for one in inside {
                assert!(network(text).contains(address(one)), "{text} {one}");
            }
            for one in outside {
                assert!(!network(text).contains(address(one)), "{text} {one}");
            }
        }
        for wrong in [
            "",
            "x",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.1:80",
        ] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_person_is_one_house_however_he_spells_his_address() {
        let same = |a: &str, b: &str| client_prefix(address(a)) == client_prefix(address(b));
        assert!(same("203.0.113.9", "::ffff:203.0.113.9"));
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff::9"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("203.0.113.9", "203.0.113.8"));
    }

    /// Cases of the sender, its `X-Forwarded-For` headers, and the resulting peer.
    #[test]
    fn only_listed_proxies_are_believed_and_only_as_far_as_they_saw() {
        let proxies = [network("10.0.0.0/8"), network("2001:db8::/32")];
        let (user, other) = ("203.0.113.9", "198.51.100.7");
        let (proxy, inner) = ("10.0.0.1", "10.1.1.1");
        for (from, forwarded, is) in [
            // Headers of other senders are ignored.
            (user, &[other][..], user),
            (user, &["127.0.0.1"], user),
            (user, &[proxy, proxy], user),
            ("::1", &[other], "::1"),
            ("::ffff:203.0.113.9", &[other], user),
            // A proxy's own entry counts; what its client sent does not.
            (proxy, &[user], user),
            ("::ffff:10.0.0.1", &[user], user),
            ("2001:db8::5", &[user], user),
            (proxy, &["127.0.0.1, 203.0.113.9"], user),
            (proxy, &[other, user], user),
            (proxy, &["198.51.100.7,10.9.9.9, 203.0.113.9"], user),
            // Through a second proxy.
            (proxy, &["203.0.113.9, 10.1.1.1"], user),
            (proxy, &[other, "203.0.113.9,10.1.1.1"], user),
            (proxy, &["10.1.1.1"], inner),
            (proxy, &["10.1.1.1, 10.1.1.1"], inner),
            // An unreadable entry ends the search at the last readable one.
            (proxy, &[], proxy),
            (proxy, &[""], proxy),
            (proxy, &["unknown"], proxy),
            (proxy, &["203.0.113.9, _hidden"], proxy),
            (proxy, &["203.0.113.9, unknown, 10.1.1.1"], inner),
            (proxy, &["203.0.113.9\u{e9}"], proxy),
            (proxy, &["1.2.3.4.5"], proxy),
            (proxy, &["0x7f.1"], proxy),
            (proxy, &["203.0.113.9:4711"], user),
            (proxy, &["[2001:db9::1]:4711"], "2001:db9::1"),
            (proxy, &["[2001:db9::1]"], "2001:db9::1"),
            (proxy, &["::ffff:203.0.113.9"], user),
        ] {
            let mut headers = HeaderMap::new();
            for line in forwarded {
                headers.append(FOR, http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let from = SocketAddr::new(address(from), 50_000);
            let peer = Peer::of(from, false, &proxies, &headers);
            assert_eq!(peer.address, address(is), "{from} {forwarded:?}");
        }
    }

    #[test]
    fn only_a_listed_proxy_says_that_its_client_speaks_tls() {
        let proxies = [network("10.0.0.1")];
        let said = |from: &str, own: bool, proto: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in proto {
                headers.append(PROTO, line.parse().unwrap());
            }
            let from = SocketAddr::new(address(from), 1);
            Peer::of(from, own, &proxies, &headers).is_secure
        };
        assert!(said("10.0.0.1", false, &["https"]));
        assert!(said("10.0.0.1", false, &["HTTPS"]));
        assert!(
            !said("10.0.0.1", false, &["https", "http"]),
            "the proxy's own is last"
        );
        assert!(!said("10.0.0.1", false, &["https,http"]));
        assert!(!said("10.0.0.1", false, &[]));
        assert!(!said("203.0.113.9", false, &["https"]));
        assert!(said("203.0.113.9", true, &["http"]));
    }
}
